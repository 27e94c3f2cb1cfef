"""``make faults``: every write, fsync, rename and the like of the daemon fails once, with each of three errnos.

The real daemon runs with :file:`faults.c` preloaded. Its calls are counted once over a handful of studies. Then, for
each call, a fault is armed and a handful of studies is sent. All must be answered as without the fault: by the same
daemon, or by the next one if it ended. At the end the disk is full, or the outbox closed, for five seconds.
Writes its section of ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lungstage.appliance.contract.errors import ReasonCode
from tests.long.benchmarks.extraction import table
from tests.long.reliability import page
from tests.long.reliability.house import House, make_bundle
from tests.long.reliability.injector import FUNCTIONS, PLACES, Calls, Faults, Site, between, bits, sites
from tests.long.reliability.studies import Sample, make
from tests.long.reliability.verdict import judge

ERRNOS = (errno.ENOSPC, errno.EACCES, errno.EIO)
HANDFUL: tuple[tuple[ReasonCode | None, int], ...] = ((None, 0), (None, 1), (ReasonCode.CONTOURS_OVERLAP, 0))
FAST = {
    "RETRY_SECONDS": "0.1",
    "SETTLE_SECONDS": "0.1",
    "CASE_SETTLE_SECONDS": "0.3",
    "REPORT_AFTER_SECONDS": "1",
    "HEARTBEAT_SECONDS": "0.3",
}
ANSWER_SECONDS, QUIET_SECONDS, OUTAGE_SECONDS = 300.0, 2.0, 5.0


class Trial:
    """One daemon, and the handfuls of studies that it gets while faults occur.

    Attributes
    ----------
    samples
        All studies that were sent.
    struck
        Injected faults that took effect, by function and place.
    ended
        Daemons that ended because of a fault, by exit status.
    broken
        Promises that were broken.
    """

    def __init__(self, root: Path, bundle: Path, faults: Faults, environment: Mapping[str, str]) -> None:
        self.house, self.faults = House(root, bundle, {**environment, **faults.environment}), faults
        self.samples: list[Sample] = []
        self.struck: Counter[tuple[int, int]] = Counter()
        self.ended: Counter[int] = Counter()
        self.broken: list[str] = []
        faults.watch(self.house)

    def start(self) -> None:
        self.house.start()
        assert self.house.ready(120), "the daemon does not start"

    def send(self) -> None:
        """Send the next handful."""
        for end, roi in HANDFUL:
            name = f"{len(self.samples):05}"
            self.samples.append(
                make(self.house.root / "store" / name, f"{self.house.root.name}-{name}", end=end, roi=roi)
            )
            for path in self.samples[-1].files:
                os.link(path, self.house.inbox / f"{name}-{path.name}")

    def all_answered(self) -> bool:
        return len(self.house.answered()) == len(self.samples)

    def settle(self, what: str) -> None:
        """Wait until everything is answered, by a new daemon if this one has ended."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self.all_answered():
            if self.house.ended() is not None:
                self.faults.disarm()
                self.note_end(what)
                self.house.start()
            if time.monotonic() > deadline:
                self.broken.append(f"{what}: {dict(self.house.states())} after {ANSWER_SECONDS:g} s")
                self.house.kill()
                self.start()
                return
            time.sleep(0.02)

    def note_end(self, what: str) -> None:
        """Stop the daemon and note its exit status. Only 0 (done) and 4 (unavailable) keep the promise."""
        status = self.house.stop()
        self.ended[status] += status != 0
        if status not in (0, 4):
            self.broken.append(f"{what}: the daemon ended with status {status}")

    def counted(self, *, starting: bool) -> Calls:
        """Count the calls of a handful of studies, or of a start and a stop."""
        before = self.faults.calls()
        if starting:
            self.start()
            self.house.stop()
        else:
            self.send()
            self.settle("counting")
            time.sleep(QUIET_SECONDS)
        return between(before, self.faults.calls())

    def inject(self, site: Site, error: int, *, starting: bool) -> None:
        """Let one call fail while a handful of studies is served."""
        what = f"{'starting, ' if starting else ''}{site}: {errno.errorcode[error]}"
        self.faults.arm(1 << site.function, 1 << site.place, site.number, error)
        self.send()
        if starting:
            self.house.start()
        self.settle(what)
        if starting:
            self.note_end(what)
        hit = self.faults.disarm()
        self.struck[site.function, site.place] += hit
        print(f"{what}: {'took effect' if hit else 'not reached'}", flush=True)


LEDGER = bits("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")
OUTAGES = {
    "the disk is full (ENOSPC)": (bits("write", "ftruncate", "mkdir"), bits(*PLACES), errno.ENOSPC),
    "the outbox is read-only (EACCES)": (
        bits("open", "rename", "unlink"), bits("outbox/.part", "outbox/document"), errno.EACCES,
    ),
    "every fsync fails (EIO)": (bits("fsync"), bits(*PLACES), errno.EIO),
    "the ledger's disk fails (EIO)": (bits("open", "write", "fsync", "ftruncate", "unlink"), LEDGER, errno.EIO),
}  # fmt: skip


def outages(trial: Trial) -> list[list[str]]:
    """Let each fault last for five seconds; return a row of the table for each."""
    house, faults = trial.house, trial.faults
    trial.start()
    trial.send()
    trial.settle("warming up")
    rows = []
    for name, (functions, places, error) in OUTAGES.items():
        pid, said = house.pid, len(house.said())
        faults.arm(functions, places, 1, error, lasting=True)
        trial.send()
        time.sleep(OUTAGE_SECONDS)
        if trial.all_answered():
            trial.broken.append(f"{name}: everything was answered in spite of it")
        failed, over = faults.disarm(), time.monotonic()
        trial.settle(name)
        rows.append([name, str(failed), f"{time.monotonic() - over:.1f}"])
        if house.pid != pid:
            trial.broken.append(f"{name}: the daemon ended")
        if "unavailable" not in house.said()[said:]:
            trial.broken.append(f"{name}: the log has no event for it")
        print(*rows[-1], flush=True)
    trial.note_end("the last end")
    return rows


def main() -> None:
    """Print what was done and the results; end with status 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=24, help="sites of one function in one place, while serving")
    parser.add_argument("--most-starting", type=int, default=3, help="the same, while starting and stopping")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lungstage-faults-") as name:
        root = Path(name)
        bundle = make_bundle(root / "bundle")
        faults = Faults(root)
        fast = Trial(root / "fast", bundle, faults, {f"LUNGSTAGE_{key}": value for key, value in FAST.items()})
        fast.start()
        fast.send()
        fast.settle("warming up")
        time.sleep(QUIET_SECONDS)
        calls = {"serving": fast.counted(starting=False)}
        chosen = {"serving": sites(calls["serving"], given.most)}
        for site, error in itertools.product(chosen["serving"], ERRNOS):
            fast.inject(site, error, starting=False)
        struck = {"serving": fast.struck.copy()}
        fast.note_end("serving")
        calls["starting"] = fast.counted(starting=True)
        chosen["starting"] = sites(calls["starting"], given.most_starting)
        for site, error in itertools.product(chosen["starting"], ERRNOS):
            fast.inject(site, error, starting=True)
        struck["starting"] = fast.struck - struck["serving"]
        usual = Trial(root / "usual", bundle, faults, {})
        rows = outages(usual)
        trials = (fast, usual)
        verdicts = [judge(trial.house.root, trial.samples, bundle, 0) for trial in trials]
        said = sum((Counter(trial.house.said(ever=True)) for trial in trials), Counter())
    broken = [
        *fast.broken,
        *usual.broken,
        *(f"{said[event]} {event}" for event in ("defect", "job_defect") if said[event]),
    ]
    ended = ", ".join(f"{count} with status {code}" for code, count in sorted(fast.ended.items()) if count)
    parts = [
        f"{sum(map(len, chosen.values())) * len(ERRNOS)} faults ({', '.join(errno.errorcode[e] for e in ERRNOS)} at "
        f"each site), {len(fast.samples) + len(usual.samples)} studies, in {(time.monotonic() - began) / 60:.0f} "
        f"minutes. {page.machine()}",
        *(_sites(phase, calls[phase], chosen[phase], struck[phase]) for phase in calls),
        f"Daemons that ended because of a fault and were started again: {ended or 'none'}.",
        f"Faults that lasted {OUTAGE_SECONDS:g} s, at the usual settings. No daemon ended, and the log has an event "
        "for each:",
        table(["fault", "calls that failed", "seconds from the end of the fault to the last of three answers"], rows),
        f"Results of the studies: {verdicts[0]}\n{verdicts[1]}",
        f"Events in the log: {', '.join(f'{event} {count}' for event, count in sorted(said.items()))}.",
    ]
    print("\n\n".join([*parts, *broken]))
    if broken or any(verdict.faults for verdict in verdicts):
        sys.exit(1)
    page.write("faults", parts)


def _sites(phase: str, calls: Calls, chosen: list[Site], struck: Counter[tuple[int, int]]) -> str:
    """Make a table of the calls and of those that were made to fail."""
    tried = Counter((site.function, site.place) for site in chosen)
    rows = [
        [f"`{FUNCTIONS[f]}`", PLACES[p], str(count), str(tried[f, p]), str(struck[f, p])]
        for (f, p), count in calls.items()
    ]
    return table([f"while {phase}", "on", "calls", "sites tested", "faults that took effect"], rows)


if __name__ == "__main__":
    main()
