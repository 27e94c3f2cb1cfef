"""The confined processes that open a study's files in the page's place, and what one of them said of patients lately.

Whose a study is and what it looks like are asked of different processes, so that the worklist waits for no picture. Of
those that draw there are two, and a session is drawn for by one at a time (:attr:`page.sessions.Session.drawing`): a
study that takes long keeps whoever looks at it, and nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import DefectError, ExhaustedError, Unavailable
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.report.key_views import Plane
from lungstage.appliance.staging.viewing import Layer, Packed, Patient, Picture, Scene
from lungstage.appliance.workers.messages import Draw, Look, Pack, ReadPatients, Request, ViewerSetting
from lungstage.appliance.workers.process import Limits, WorkerProcess

P = ParamSpec("P")
T = TypeVar("T")

_DRAWING = Limits(seconds=20.0, memory=3 * 1024**3)
_READING = Limits(seconds=5.0, memory=1024**3)
_DRAWERS: Final = 2
_MOST_PATIENTS = 2000  # that are remembered, in memory alone


class _Desk:
    """One confined process, and the thread that waits for it: what it is asked it does one after the other.

    Attributes
    ----------
    waits
        How many wait for it.
    study
        Whose slices it holds.
    used
        When it was asked last, as a number that grows.
    """

    def __init__(self, scratch: Path, limits: Limits) -> None:
        self._process = WorkerProcess(ViewerSetting(scratch), limits)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="viewer")
        self._is_over = False
        self.waits, self.study, self.used = 0, "", 0

    def start(self) -> None:
        """Start the process, so that whoever comes first need not wait for it."""
        with contextlib.suppress(OSError, ExhaustedError):  # told to whoever comes first
            self._process.start()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do something in the thread that alone may ask the process."""
        return self._thread.submit(work, *args, **kwargs)

    def ask(self, request: Request[T]) -> T:
        """Ask the process, in that thread.

        Raises
        ------
        Unavailable
            No process can be started, or the page is being stopped.
        ExhaustedError, DefectError
            It did not survive the files, or has a defect.
        Exception
            Whatever else the step raised.
        """
        if self._is_over:
            raise Unavailable("The page is being stopped.")
        try:
            self._process.ask(request)
        except OSError as error:
            raise Unavailable("No process can be started that would open the files.") from error
        return self._process.answer(request)

    def end(self) -> None:
        """End the process."""
        self._is_over = True
        self._process.end()
        self._thread.shutdown(cancel_futures=True)


class Viewer:
    """Has patients read and pictures drawn.

    Parameters
    ----------
    scratch
        A folder that the processes may write to, though nothing here does.
    """

    def __init__(self, scratch: Path) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700, parents=True)
        self._reader = _Desk(scratch, _READING)
        self._drawers = [_Desk(scratch, _DRAWING) for _ in range(_DRAWERS)]
        self._counter = itertools.count(1)
        self._patients: OrderedDict[tuple[str, int, int], Patient] = OrderedDict()  # the reader's thread's alone

    def start(self) -> None:
        """Start the processes that the first page needs."""
        self._reader.start()
        self._drawers[0].start()

    async def patients(self, paths: Sequence[Path | None]) -> list[Patient]:
        """Say whose each of some files is; nobody's where there is none."""
        return await asyncio.wrap_future(self._reader.run(self._read, paths))

    def read(self, paths: Sequence[Path | None]) -> list[Patient]:
        """Say the same, and wait for it."""
        return self._reader.run(self._read, paths).result()

    async def look(self, headers: tuple[Header, ...], key: str, region: RegionChoice | None) -> Scene:
        """Say what there is to be seen of a case (:func:`staging.viewing.look`)."""
        return await self._draw(key, Look(headers, key, region))

    async def draw(
        self, headers: tuple[Header, ...], key: str, plane: Plane, index: int | None, window: str,
        region: RegionChoice | None,
    ) -> Picture:  # fmt: skip
        """Draw one plane (:func:`staging.viewing.draw`)."""
        return await self._draw(key, Draw(headers, key, plane, index, window, region))

    async def pack(self, headers: tuple[Header, ...], key: str, layer: Layer, region: RegionChoice | None) -> Packed:
        """Give a volume (:func:`staging.viewing.pack`)."""
        return await self._draw(key, Pack(headers, key, layer, region))

    async def _draw(self, study: str, request: Request[T]) -> T:
        """Ask whichever process is free; of two, the one that holds the study, or has rested longest."""
        desk = min(self._drawers, key=lambda desk: (desk.waits, desk.study != study, desk.used))
        desk.study, desk.used = study, next(self._counter)
        desk.waits += 1
        try:
            return await asyncio.wrap_future(desk.run(desk.ask, request))
        except ExhaustedError as error:
            raise Unavailable(f"This study cannot be shown. {error}") from error
        except DefectError as error:
            logger.error("viewer_defect", extra=error.defect)
            raise Unavailable(
                "This study cannot be shown: a defect of ours. The log of the page says where."
            ) from error
        finally:
            desk.waits -= 1

    def _read(self, paths: Sequence[Path | None]) -> list[Patient]:
        keys = [_key(path) for path in paths]
        unread = {
            key: path for path, key in zip(paths, keys, strict=True) if path and key and key not in self._patients
        }
        unknown = Patient()
        try:
            self._patients.update(zip(unread, self._opened(tuple(unread.values())), strict=True))
        except Unavailable as error:  # a worklist without names is better than none
            unknown = Patient(fault=str(error))
        found = [self._patients.get(key, unknown) if key else Patient() for key in keys]
        while len(self._patients) > _MOST_PATIENTS:
            self._patients.popitem(last=False)
        return found

    def _opened(self, paths: tuple[Path, ...]) -> tuple[Patient, ...]:
        """Read files; one that the process does not survive is nobody's, and takes no other's name away."""
        if not paths:
            return ()
        try:
            return self._reader.ask(ReadPatients(paths))
        except (ExhaustedError, DefectError):
            if len(paths) == 1:
                return (Patient(fault="The file cannot be read."),)
            return tuple(patient for path in paths for patient in self._opened((path,)))

    def end(self) -> None:
        """End the processes."""
        for desk in (self._reader, *self._drawers):
            desk.end()


def _key(path: Path | None) -> tuple[str, int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_mtime_ns, status.st_size
