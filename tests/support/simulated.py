"""A whole daemon with the fake steps, in simulated time: it does not really wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.daemon.loop import Daemon
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import Job
from lungstage.appliance.state.ledger import Ledger
from tests.support.fake_steps import BUNDLE, FakeSteps, put_roi, put_slice


class SimulatedWake:
    """Waits that only move the simulated clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stopping = False

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float, others: object = ()) -> bool:
        self.now += max(seconds, 1e-3)
        return False

    def pause(self, seconds: float) -> None:
        self.wait(seconds)


class House:
    """A daemon with its folders, in simulated time."""

    def __init__(self, root: Path, steps: Any = None, **timers: Any) -> None:
        self.root = root
        self.inbox, self.outbox, self.state = (root / name for name in ("inbox", "outbox", "state"))
        for folder in (self.inbox, self.outbox, self.state):
            folder.mkdir(exist_ok=True)
        paths = {"inbox": self.inbox, "outbox": self.outbox, "bundle": root, "state": self.state}
        self.settings = load_settings(None, {**paths, **timers}, {})
        self.steps = steps or FakeSteps()
        self.wake = SimulatedWake()
        self.bundle: Any = BUNDLE
        self.start()

    def start(self) -> None:
        self.database = Database(self.state / "ledger.sqlite")
        self.ledger = Ledger(self.database)
        Claims(self.ledger).release_all()
        wake: Any = self.wake
        self.daemon = Daemon(
            self.settings, self.bundle.digest, self.steps.steps(), self.database, wake, clock=self.wake
        )

    def restart(self) -> None:
        self.database.close()
        self.start()

    def run(self, seconds: float) -> None:
        until = self.wake.now + seconds
        while self.wake.now < until:
            self.daemon.step()

    def states(self) -> list[str]:
        return [job.state.value for job in self.ledger.jobs.find()]

    def job(self) -> Job:
        (job,) = self.ledger.jobs.find()
        return job

    def reports(self) -> list[Path]:
        return sorted(self.outbox.glob("SR-*.dcm"))


def put_study(folder: Path, series: str = "1.5", slices: int = 5, *flags: str) -> None:
    put_roi(folder, f"{series}.99", series, range(slices), *flags)
    for n in range(slices):
        put_slice(folder, series, n)


def with_stop(house: House, seconds: float) -> None:
    """Run the whole loop, with its handling of exceptions, for `seconds`."""
    until = house.wake.now + seconds
    wait = house.wake.wait

    def wait_or_stop(duration: float) -> bool:
        house.wake.stopping = house.wake.now >= until
        return wait(duration)

    house.wake.wait = wait_or_stop  # type: ignore[method-assign]
    house.daemon.run()
    house.wake.wait = wait  # type: ignore[method-assign]
