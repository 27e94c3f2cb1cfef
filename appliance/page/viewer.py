"""The confined processes that open a study's files for the page, and a cache of the patients that they read.

One process reads patients and two draw pictures, so the worklist does not wait for pictures. Each session uses one
drawing process at a time (:attr:`page.sessions.Session.drawing`). A slow study delays only its own viewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import DefectError, ExhaustedError, Unavailable
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.model.bundle_files import BundleFiles
from lungstage.appliance.report.key_views import Plane
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.staging.sketching import Draft, Sketched
from lungstage.appliance.staging.viewing import Layer, Packed, Patient, Picture, Scene
from lungstage.appliance.workers.messages import (
    Confirm,
    Draw,
    Look,
    Pack,
    ReadPatients,
    Request,
    Sketch,
    ViewerSetting,
)
from lungstage.appliance.workers.process import Limits, WorkerProcess

P = ParamSpec("P")
T = TypeVar("T")

_DRAWING = Limits(seconds=20.0, memory=3 * 1024**3)
_READING = Limits(seconds=5.0, memory=1024**3)
_DRAWERS: Final = 2
_MOST_PATIENTS = 2000  # kept in memory only


class _Desk:
    """One confined process and the thread that waits for it; it handles one request after the other.

    Attributes
    ----------
    waits
        Number of waiting requests.
    study
        The study whose slices it has loaded.
    used
        Order of its last use; a higher number is later.
    """

    def __init__(self, scratch: Path, limits: Limits, contour: BundleFiles | None = None) -> None:
        self._process = WorkerProcess(ViewerSetting(scratch, contour), limits)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="viewer")
        self._is_over = False
        self.waits, self.study, self.used = 0, "", 0

    def start(self) -> None:
        """Start the process early, so that the first request does not wait for it."""
        with contextlib.suppress(OSError, ExhaustedError):  # the first request reports the error
            self._process.start()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run something in the only thread that may use the process."""
        return self._thread.submit(work, *args, **kwargs)

    def ask(self, request: Request[T]) -> T:
        """Send a request to the process, in that thread.

        Raises
        ------
        Unavailable
            The process cannot be started, or the page is shutting down.
        ExhaustedError, DefectError
            The files exceeded the limits of the process, or there was an internal error.
        Exception
            Any other error of the step.
        """
        if self._is_over:
            raise Unavailable("The page is shutting down.")
        try:
            self._process.ask(request)
        except OSError as error:
            raise Unavailable("The process that opens the files cannot be started.") from error
        return self._process.answer(request)

    def end(self) -> None:
        """End the process."""
        self._is_over = True
        self._process.end()
        self._thread.shutdown(cancel_futures=True)


class Viewer:
    """Reads patients and draws pictures, in confined processes.

    Parameters
    ----------
    scratch
        A folder that the processes may write to; the viewer does not use it.
    contour
        Files of the bundle that draws contours, if there is one.
    """

    def __init__(self, scratch: Path, contour: BundleFiles | None = None) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700, parents=True)
        self._reader = _Desk(scratch, _READING)
        self._drawers = [_Desk(scratch, _DRAWING, contour) for _ in range(_DRAWERS)]
        self._counter = itertools.count(1)
        self._patients: OrderedDict[tuple[str, int, int], Patient] = OrderedDict()  # used by the reader's thread only

    def start(self) -> None:
        """Start the processes that the first page needs."""
        self._reader.start()
        self._drawers[0].start()

    async def patients(self, paths: Sequence[Path | None]) -> list[Patient]:
        """Return the patient of each file; an empty one if there is no file."""
        return await asyncio.wrap_future(self._reader.run(self._read, paths))

    def read(self, paths: Sequence[Path | None]) -> list[Patient]:
        """Return the same, and wait for it."""
        return self._reader.run(self._read, paths).result()

    async def look(self, headers: tuple[Header, ...], key: str, region: RegionChoice | None) -> Scene:
        """Return what can be shown of a case (:func:`staging.viewing.look`)."""
        return await self._draw(key, Look(headers, key, region))

    async def draw(
        self, headers: tuple[Header, ...], key: str, plane: Plane, index: int | None, window: str,
        region: RegionChoice | None, draft: Draft | None = None,
    ) -> Picture:  # fmt: skip
        """Draw one plane (:func:`staging.viewing.draw`)."""
        return await self._draw(key, Draw(headers, key, plane, index, window, region, draft))

    async def sketch(self, headers: tuple[Header, ...], key: str, draft: Draft) -> Sketched:
        """Draw a contour (:func:`staging.sketching.sketch`)."""
        return await self._draw(key, Sketch(headers, key, draft))

    async def confirm(
        self, headers: tuple[Header, ...], key: str, draft: Draft, person: str, created: datetime, images: str
    ) -> Document:
        """Make the SEG of a confirmed contour (:func:`staging.sketching.confirm`)."""
        return await self._draw(key, Confirm(headers, key, draft, person, created, images))

    async def pack(self, headers: tuple[Header, ...], key: str, layer: Layer, region: RegionChoice | None) -> Packed:
        """Return a volume (:func:`staging.viewing.pack`)."""
        return await self._draw(key, Pack(headers, key, layer, region))

    async def _draw(self, study: str, request: Request[T]) -> T:
        """Use a free process; if both are free, the one with this study, or the one that was not used longest."""
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
                "This study cannot be shown: internal error (please report it). The log of the page has the details."
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
        except Unavailable as error:  # show the worklist without names
            unknown = Patient(fault=str(error))
        found = [self._patients.get(key, unknown) if key else Patient() for key in keys]
        while len(self._patients) > _MOST_PATIENTS:
            self._patients.popitem(last=False)
        return found

    def _opened(self, paths: tuple[Path, ...]) -> tuple[Patient, ...]:
        """Read files one by one if the process fails: one bad file does not remove the names of the others."""
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
