"""``make torture``: hundreds of studies through the real daemon, which is killed repeatedly at random times.

Every study must end in one report or one refusal, as without the kills: see :mod:`long.reliability.verdict`.
Writes its section of ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.long.reliability import page
from tests.long.reliability.house import House, make_bundle, until
from tests.long.reliability.sender import Sender
from tests.long.reliability.studies import make_many
from tests.long.reliability.verdict import judge

SHARE_REFUSED = 0.1
WORKER_ROUNDS, WORKER_KILLS = (
    0.3,
    3,
)  # share of runs in which worker processes are killed too; the largest number of them
END_SECONDS, REST_SECONDS = 900.0, 8.0


class Torturer:
    """Kills one daemon at random moments.

    Parameters
    ----------
    house
        The daemon and its folders.
    arrive
        Sends some more studies.
    chance
        Source of the random times.
    startup
        Seconds that a start takes.
    """

    def __init__(self, house: House, arrive: Callable[[], None], chance: random.Random, startup: float) -> None:
        self._house, self._arrive, self._chance, self._startup = house, arrive, chance, startup
        self.kills = self.workers_killed = 0
        self.ended_unkilled: Counter[int] = Counter()
        self.was_at: Counter[str] = Counter()
        self.last_said: Counter[str] = Counter()

    def one_life(self) -> None:
        """Start the daemon, and kill it."""
        house, chance = self._house, self._chance
        moments = {
            self._starting: 20,
            self._reading: 15,
            self._some_time: 30,
            self._delivering: 20,
            self._committing: 15,
        }
        (moment,) = chance.choices(list(moments), list(moments.values()))
        if moment != self._reading:
            self._arrive()
        house.start()
        if chance.random() < WORKER_ROUNDS:
            self._kill_workers()
        moment()
        status = house.ended()
        house.kill()
        if status is not None:
            self.ended_unkilled[status] += 1
            return
        self.kills += 1
        self.was_at[house.autopsy()] += 1
        self.last_said[(house.said() or ["none yet"])[-1]] += 1

    def _await_changes(self, path: Path, count: int) -> None:
        """Wait until a file or folder has changed `count` times, while the daemon runs, at most one start's time."""
        deadline, last = time.monotonic() + self._startup, _stamp(path)
        while count and time.monotonic() < deadline and self._house.ended() is None:
            time.sleep(0.0005)
            stamp = _stamp(path)
            count -= stamp != last
            last = stamp

    def _kill_workers(self) -> None:
        for _ in range(self._chance.randint(1, WORKER_KILLS)):
            time.sleep(self._chance.uniform(0, self._startup))
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                self._chance.choice(self._house.workers()).kill()
                self.workers_killed += 1

    def _starting(self) -> None:
        time.sleep(self._chance.uniform(0, self._startup))

    def _reading(self) -> None:
        self._house.ready(60)
        self._arrive()
        time.sleep(self._chance.uniform(0.2, 0.5))

    def _some_time(self) -> None:
        self._house.ready(60)
        time.sleep(self._chance.uniform(0, self._startup / 2))

    def _delivering(self) -> None:
        self._house.ready(60)
        self._await_changes(self._house.outbox, self._chance.randint(1, 4))
        time.sleep(self._chance.uniform(0, 0.003))

    def _committing(self) -> None:
        self._house.ready(60)
        self._await_changes(self._house.state / "ledger.sqlite-wal", self._chance.randint(1, 20))
        time.sleep(self._chance.uniform(0, 0.002))


def _stamp(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return None


def main() -> None:
    """Print what was done and the results; end with status 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="lungstage-torture-") as name:
        root = Path(name)
        bundle = make_bundle(root / "bundle")
        samples = make_many(root / "store", given.studies, SHARE_REFUSED, chance)
        house = House(root / "house", bundle)
        started = time.monotonic()
        house.start()
        assert house.ready(120), "the daemon does not start"
        startup = time.monotonic() - started
        house.stop()
        sender = Sender(house.inbox, samples, random.Random(chance.random()))
        sender.start()
        torturer = Torturer(
            house, lambda: sender.release_up_to((torturer.kills + 1) / given.kills), chance, 1.2 * startup
        )
        while torturer.kills < given.kills:
            torturer.one_life()
            if torturer.kills % 10 == 0:
                print(
                    f"{time.monotonic() - started:6.0f} s, {torturer.kills} kills, {dict(house.states())}", flush=True
                )
        house.start()
        sender.release_all()
        assert until(sender.idle, 60), "not all was sent"
        until(lambda: len(house.answered()) >= len(samples), END_SECONDS)
        time.sleep(REST_SECONDS)  # long enough for a second report to appear
        status = house.stop()
        seconds = time.monotonic() - started
        verdict = judge(house.root, samples, bundle, sender.ways["junk"])
        said = Counter(house.said(ever=True))
    if status != 0:
        verdict.faults["wrong"].append(f"the last daemon ended with status {status}")
    ended = ", ".join(f"{count} with status {code}" for code, count in sorted(torturer.ended_unkilled.items()))
    parts = [
        f"{len(samples)} studies, {torturer.kills} kills of the daemon, {torturer.workers_killed} kills of single "
        f"worker processes, in {seconds / 60:.0f} minutes; seed {given.seed}. {page.machine()} A start took "
        f"{startup:.1f} s. Daemons that ended without a kill, because a process was killed during their start: "
        f"{ended or 'none'}.",
        "How the studies were sent: " + ", ".join(f"{way} {count}" for way, count in sender.ways.items()) + ".",
        page.counts(["activity when killed", "kills"], torturer.was_at),
        page.counts(["last event in the log of that run", "kills"], torturer.last_said),
        f"Results: {verdict}",
        f"Events in all logs: {', '.join(f'{event} {count}' for event, count in sorted(said.items()))}.",
    ]
    print("\n\n".join(parts))
    if verdict.faults:
        sys.exit(1)
    page.write("torture", parts)


if __name__ == "__main__":
    main()
