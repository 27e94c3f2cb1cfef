"""What the daemon waits for: each source alone wakes it in time, and none keeps it awake."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.contract.source import Source
from lungstage.appliance.daemon.loop import Daemon
from tests.support.fake_steps import put_roi
from tests.support.simulated import House, SimulatedWake, put_study

NEVER = 80_000.0


class Heard:
    """A watcher that misses nothing, so that the scan relies on the events."""

    def events_come(self) -> bool:
        return True

    def looked(self, *, found: bool) -> None: ...


class Swap(Source):
    """A hot swap that has something to do at one moment."""

    def __init__(self, at: float) -> None:
        self.at: float | None = at
        self.looks: list[float] = []
        self.clock: Callable[[], float]

    def look(self) -> None:
        if self.at is not None and self.clock() >= self.at:
            self.at = None
            self.looks.append(self.clock())

    def next_due(self) -> float | None:
        return self.at

    def descriptors(self) -> Sequence[int]:
        return (123,)


class Watched(SimulatedWake):
    """Records the sources that may wake it."""

    def __init__(self) -> None:
        super().__init__()
        self.others: object = ()

    def wait(self, seconds: float, others: object = ()) -> bool:
        self.others = others
        return super().wait(seconds)


class Sleeper(House):
    """A daemon that, for a day, only the tested source wakes."""

    def __init__(self, root: Path, swap: Swap | None = None, **timers: Any) -> None:
        self.swap: Any = swap
        super().__init__(root, scan_seconds=NEVER, **{"heartbeat_seconds": NEVER, **timers})

    def start(self) -> None:
        self.wake = Watched()
        if self.swap is not None:
            self.swap.clock = self.wake
        super().start()
        wake: Any = self.wake
        watcher: Any = Heard()
        self.daemon = Daemon(
            self.settings, self.bundle.digest, self.steps.steps(), self.database, wake, watcher,
            clock=self.wake, swap=self.swap,
        )  # fmt: skip

    def seconds_until(self, condition: Callable[[], object], steps: int = 60) -> float:
        began = self.wake.now
        for _ in range(steps):
            woken = self.wake.now
            self.daemon.step()
            if condition():
                return woken - began
        raise AssertionError("it did not come, or the daemon does not sleep")


def said(caplog: pytest.LogCaptureFixture, event: str) -> Callable[[], bool]:
    caplog.set_level(logging.INFO, logger="lungstage")
    return lambda: event in [record.getMessage() for record in caplog.records]


def test_files_that_come_to_rest_and_cases_that_settle_wake_it(tmp_path: Path) -> None:
    house = Sleeper(tmp_path)
    put_study(house.inbox, "1.5", 5, "margin")
    assert house.seconds_until(house.reports) < 2.5


def test_a_case_that_waits_for_long_wakes_it(tmp_path: Path) -> None:
    house = Sleeper(tmp_path)
    put_roi(house.inbox, "1.5.99", "1.5", range(5))
    assert house.seconds_until(lambda: house.states() == ["held"]) < 6


def test_the_end_of_a_pause_wakes_it(tmp_path: Path) -> None:
    house = Sleeper(tmp_path)
    house.outbox.rename(tmp_path / "away")
    put_study(house.inbox)
    house.seconds_until(lambda: house.steps.calls["stage"] == 1)
    (tmp_path / "away").rename(house.outbox)
    assert house.seconds_until(house.reports) < 2


def test_a_sign_of_life_wakes_it(tmp_path: Path) -> None:
    house = Sleeper(tmp_path, heartbeat_seconds=3.0)
    began = house.wake.now
    house.daemon.step()
    assert house.wake.now == began + 3.0


def test_a_canary_wakes_it_and_is_found_although_no_event_tells_of_it(tmp_path: Path) -> None:
    house = Sleeper(tmp_path, canary_seconds=1003.0)
    sent: list[float] = []
    write = house.steps.write_phantom

    def note(folder: Path, study: str) -> str:
        sent.append(house.wake.now)
        return write(folder, study)

    house.steps.write_phantom = note  # type: ignore[method-assign]
    house.start()
    house.seconds_until(lambda: len(house.database.query("SELECT 1 FROM jobs WHERE state = 'delivered'")) == 1)
    assert house.wake.now - sent[0] < 2
    house.seconds_until(lambda: len(sent) == 2, steps=200)
    assert sent[1] - sent[0] == 1003.0


def test_a_bundle_wakes_it(tmp_path: Path) -> None:
    swap = Swap(at=1500.0)
    house = Sleeper(tmp_path, swap)
    house.seconds_until(lambda: swap.looks, steps=100)
    assert 1500 <= swap.looks[0] < 1501
    assert 123 in house.wake.others  # type: ignore[attr-defined]


def test_upkeep_wakes_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    house = Sleeper(tmp_path, alert_after_seconds=0.001)
    put_roi(house.inbox, "1.5.99", "1.5", range(5))
    assert house.seconds_until(said(caplog, "alert")) == 10


def test_it_sleeps_while_nothing_is_due(tmp_path: Path) -> None:
    house = Sleeper(tmp_path)
    put_study(house.inbox)
    house.seconds_until(house.reports)
    began = house.wake.now
    for _ in range(20):
        house.daemon.step()
    assert house.wake.now - began > 150, "something else than upkeep keeps it awake"
