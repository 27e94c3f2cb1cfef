"""The confined process that opens a study's files in the page's place, and what it has said lately."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import ExhaustedError, Unavailable
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.report.key_views import Plane
from lungstage.appliance.staging.viewing import Layer, Packed, Patient, Picture, Scene
from lungstage.appliance.workers.messages import Draw, Look, Pack, ReadPatients, Request, ViewerSetting
from lungstage.appliance.workers.process import Limits, WorkerProcess

AnswerT = TypeVar("AnswerT")

_LIMITS = Limits(seconds=20.0, memory=3 * 1024**3)
_MOST_PATIENTS = 2000  # that are remembered, in memory alone


class Viewer:
    """Has patients read and pictures drawn; one after the other.

    Parameters
    ----------
    scratch
        A folder that the process may write to, though nothing here does.
    """

    def __init__(self, scratch: Path) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700, parents=True)
        self._process = WorkerProcess(ViewerSetting(scratch), _LIMITS)
        self._lock = threading.Lock()
        self._patients: OrderedDict[tuple[str, int, int], Patient] = OrderedDict()

    def start(self) -> None:
        """Start the process, so that whoever comes first need not wait for it."""
        with contextlib.suppress(OSError, ExhaustedError):  # told to whoever comes first
            self._process.start()

    async def patients(self, paths: Sequence[Path | None]) -> list[Patient]:
        """Say whose each of some files is; nobody's where there is none."""
        return await run_in_threadpool(self.read, paths)

    async def look(self, headers: tuple[Header, ...], key: str, region: RegionChoice | None) -> Scene:
        """Say what there is to be seen of a case (:func:`staging.viewing.look`)."""
        return await run_in_threadpool(self._call, Look(headers, key, region))

    async def draw(
        self, headers: tuple[Header, ...], key: str, plane: Plane, index: int | None, window: str,
        region: RegionChoice | None,
    ) -> Picture:  # fmt: skip
        """Draw one plane (:func:`staging.viewing.draw`)."""
        return await run_in_threadpool(self._call, Draw(headers, key, plane, index, window, region))

    async def pack(self, headers: tuple[Header, ...], key: str, layer: Layer, region: RegionChoice | None) -> Packed:
        """Give a volume (:func:`staging.viewing.pack`)."""
        return await run_in_threadpool(self._call, Pack(headers, key, layer, region))

    def _call(self, request: Request[AnswerT]) -> AnswerT:
        with self._lock:
            try:
                return self._process.call(request)
            except ExhaustedError as error:
                raise Unavailable(f"This study cannot be shown. {error}") from error

    def read(self, paths: Sequence[Path | None]) -> list[Patient]:
        """Say the same, and wait for it."""
        keys = [_key(path) for path in paths]
        unread = [path for path, key in zip(paths, keys, strict=True) if path and key and key not in self._patients]
        if unread:
            answer = self._call(ReadPatients(tuple(unread)))
            for path, patient in zip(unread, answer, strict=True):
                if key := _key(path):
                    self._patients[key] = patient
        found = [self._patients.get(key, Patient()) if key else Patient() for key in keys]
        while len(self._patients) > _MOST_PATIENTS:
            self._patients.popitem(last=False)
        return found

    def end(self) -> None:
        """End the process."""
        self._process.end()


def _key(path: Path | None) -> tuple[str, int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_mtime_ns, status.st_size
