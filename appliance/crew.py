"""The processes at work over the bundle in use, and how those of one bundle relieve those of another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from appliance.bundlefiles import BundleFiles
from appliance.exchange import SealedPlan, Setting
from appliance.metrics import Meter
from appliance.sandbox import Bench, Benches, Limits
from appliance.settings import Settings


class Crew:
    """Processes that take the steps over one bundle.

    One reads and plans, which is short work that the daemon waits for; the others stage.

    Parameters
    ----------
    settings
        How many they are, and what each may take.
    files
        The bundle's files.
    started
        Told of each process that is started.
    """

    def __init__(self, settings: Settings, files: BundleFiles, started: Callable[[], None] = lambda: None) -> None:
        limits = Limits(settings.work_seconds, settings.work_memory_mb * 1024**2)
        setting = Setting(files, settings.engine, settings.state)
        self.examiner = Bench(setting, limits, started)
        self.stagers: Benches[int] = Benches(lambda: Bench(setting, limits, started), settings.workers)
        self._awaited = [self.examiner, self.stagers.first]

    def start(self) -> None:
        """Start one process of each kind, without waiting until they are set up."""
        for bench in self._awaited:
            bench.start()

    def is_set_up(self) -> bool:
        """Whether both are ready to work, without waiting.

        Raises
        ------
        Refused
            When the bundle does not prove itself.
        ExhaustedError
            When a process died of it, or took too long.
        DefectError
            When it met a defect of ours.
        """
        self._awaited = [bench for bench in self._awaited if not bench.is_set_up()]
        return not self._awaited

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when one of them is set up."""
        return [descriptor for bench in self._awaited if (descriptor := bench.descriptor) is not None]

    def next_due(self) -> float | None:
        """When the first has taken too long to be set up."""
        return min((bench.due for bench in self._awaited), default=None)

    def relieve(self) -> None:
        """End the processes that have nothing in hand."""
        self.examiner.end()
        self.stagers.end_idle()

    def end(self) -> None:
        """End all processes."""
        self.examiner.end()
        self.stagers.end()


class Workforce:
    """The crew of the bundle in use, and former ones until they have finished what they have in hand.

    It is the daemon's examiner (:meth:`call`) and its stagers (:class:`appliance.dispatch.Stagers`).

    Parameters
    ----------
    make
        Makes the crew of a bundle, not started.
    files
        The bundle to begin with.
    """

    def __init__(self, make: Callable[[BundleFiles], Crew], files: BundleFiles) -> None:
        self._make = make
        self._crew = make(files)
        self._former: list[Crew] = []
        self._candidate: Crew | None = None

    def begin(self) -> None:
        """Start the first crew, and wait until it can read and plan."""
        self._crew.start()
        self._crew.examiner.set_up()

    def hire(self, files: BundleFiles) -> Crew:
        """Start the crew of another bundle, in the place of one that was hired before and did not take over."""
        self.dismiss()
        self._candidate = self._make(files)
        self._candidate.start()
        return self._candidate

    def dismiss(self) -> None:
        """End the crew that was hired."""
        if self._candidate is not None:
            self._candidate.end()
            self._candidate = None

    def take_over(self) -> None:
        """Give all new work to the crew that was hired."""
        if self._candidate is None:
            raise RuntimeError("nobody was hired")
        self._crew.relieve()
        self._former.append(self._crew)
        self._crew, self._candidate = self._candidate, None

    def call(self, step: str, *arguments: object, **keywords: object) -> Any:
        """Have a short step taken, and wait for it."""
        return self._crew.examiner.call(step, *arguments, **keywords)

    def free(self) -> bool:
        """Whether another plan can be staged."""
        return self._crew.stagers.free()

    def start(self, ticket: int, plan: SealedPlan, **known: object) -> None:
        """Have a plan staged."""
        self._crew.stagers.ask(ticket, "stage", plan, **known)

    def finished(self) -> Iterator[tuple[int, Future[Any]]]:
        """Give each plan that has come to an end; a former crew ends with its last."""
        for crew in (self._crew, *self._former):
            yield from crew.stagers.finished()
        for crew in [crew for crew in self._former if not crew.stagers.keys]:
            crew.end()
            self._former.remove(crew)

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when a plan was staged."""
        return [descriptor for crew in (self._crew, *self._former) for descriptor in crew.stagers.descriptors()]

    def next_due(self) -> float | None:
        """When the first plan in hand has taken too long."""
        dues = [crew.stagers.next_due() for crew in (self._crew, *self._former)]
        return min((due for due in dues if due is not None), default=None)

    def end(self) -> None:
        """End all crews."""
        self.dismiss()
        for crew in (self._crew, *self._former):
            crew.end()


@contextlib.contextmanager
def at_work(settings: Settings, files: BundleFiles, meter: Meter) -> Iterator[Workforce]:
    """Set up processes that take the steps over a bundle, until the block ends.

    Raises
    ------
    Refused
        When the bundle does not prove itself.
    Unavailable
        When no process comes up.
    """
    workforce = Workforce(partial(Crew, settings, started=meter.process_started), files)
    try:
        workforce.begin()
        yield workforce
    finally:
        workforce.end()
