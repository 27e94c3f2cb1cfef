"""``make soak``: thousands of studies at full rate, and an inbox of 100,000 files: what grows, and how fast.

Answered studies stay in the inbox, because originals are never changed, so the daemon's memory grows with them. The
second part removes them, as a site would. It shows whether anything else grows, for instance the time for a study with
the length of the ledger.
Writes its section of ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.intake.inbox import Inbox
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileTable
from tests.long.benchmarks.extraction import table
from tests.long.reliability import page
from tests.long.reliability.crowd import fill_crowd
from tests.long.reliability.house import House, make_bundle, until
from tests.long.reliability.studies import Sample, make, make_many
from tests.long.reliability.verdict import judge

OUTSTANDING = 24  # studies sent and not answered yet: the queue is never empty
WINDOWS = 8
WARM_UP = 0.25  # of a part, before slopes are fitted
MEGABYTE = 1024**2
MOST_GROWTH = 5.0  # MB, or file descriptors, after the warm-up, that still count as no growth
# The same for all three processes together, in MB: the heap of each rises and falls a little without growing.
# In 5,500 studies one alone grew by 3.6 early, once shrank by 1.8, and did not change by a page in the last 3,500.
MOST_OF_PROCESSES = 10.0
MOST_PER_FILE = 2.0  # kB of the daemon's memory for a file that stays in the inbox
MOST_EXPONENT = 1.25  # for the daemon's own time for a study as a power of the files in the inbox; 1 is linear
MOST_MILLISECONDS = 0.75  # growth of the daemon's time for a study in 1000 studies, if no file stays


@dataclass(frozen=True)
class Reading:
    """Values of a running daemon at one time."""

    seconds: float
    answered: int
    files: int
    daemon: float  # resident memory, MB
    workers: float  # memory of all its worker processes
    descriptors: int
    processor: float  # seconds that the daemon itself has used
    ledger: float  # MB
    scan: float  # seconds that one scan of the inbox takes


def scan_seconds(folder: Path) -> float:
    """Measure the daemon's own scan, in a process that does nothing else."""
    with tempfile.TemporaryDirectory() as name, Database(Path(name) / "ledger.sqlite") as database:
        files = FileTable(database, "")
        inbox = Inbox(folder, files, StudyIndex(files, assemble), 1e9)
        inbox.look()  # no file is unchanged for long enough, so nothing is read
        inbox.look()
        return inbox.scan_cost


def read(house: House, started: float, *, scan: bool = False) -> Reading:
    """Take one reading; measure the time of a scan only with `scan`."""
    daemon = psutil.Process(house.pid)
    times = daemon.cpu_times()
    return Reading(
        time.monotonic() - started,
        len(house.answered()),
        house.files_read(),
        daemon.memory_info().rss / MEGABYTE,
        sum(child.memory_info().rss for child in daemon.children()) / MEGABYTE,
        daemon.num_fds(),
        times.user + times.system,
        sum(path.stat().st_size for path in house.state.glob("ledger.sqlite*")) / MEGABYTE,
        scan_seconds(house.inbox) if scan else 0.0,
    )


def pour(house: House, samples: Sequence[Sample], *, take_away: bool) -> list[Reading]:
    """Send studies as fast as they are answered; return readings at the end of each window, and some between."""
    started, waiting, lying = time.monotonic(), list(reversed(samples)), []
    readings, marks = [read(house, started, scan=True)], 1
    while readings[-1].answered < len(samples):
        answered = house.answered()
        if take_away:
            for sample in [one for one in lying if one.series_instance_uid in answered]:
                shutil.rmtree(house.inbox / sample.folder.name)
                lying.remove(sample)
        while waiting and len(samples) - len(waiting) < len(answered) + OUTSTANDING:
            lying.append(waiting.pop())
            aside = house.root / "aside"
            shutil.copytree(lying[-1].folder, aside)
            aside.rename(house.inbox / lying[-1].folder.name)
        time.sleep(0.2)
        passed = len(house.answered()) * WINDOWS // len(samples) >= marks
        marks += passed
        readings.append(read(house, started, scan=passed))
        if house.ended() is not None or readings[-1].seconds > 7200:
            raise RuntimeError(f"{house.states()}: {house.said()[-5:]}")
        if readings[-1].scan:
            print(readings[-1], flush=True)
    return readings


def slope(readings: Sequence[Reading], what: Callable[[Reading], float]) -> float:
    """Growth per 1000 studies, after the warm-up."""
    warm = [r for r in readings if r.answered >= WARM_UP * readings[-1].answered]
    return 1000 * float(np.polyfit([r.answered for r in warm], [what(r) for r in warm], 1)[0])


def windows(readings: Sequence[Reading]) -> list[tuple[Reading, Reading]]:
    """First and last reading of each window."""
    return list(itertools.pairwise(reading for reading in readings if reading.scan))


def own_times(parts: Sequence[tuple[Reading, Reading]]) -> list[float]:
    """The daemon's own time for a study in each window, in milliseconds."""
    return [1000 * (b.processor - a.processor) / (b.answered - a.answered) for a, b in parts]


def exponent(parts: Sequence[tuple[Reading, Reading]]) -> float:
    """Exponent of the daemon's own time for a study as a power of the number of files, over the later half."""
    later = parts[len(parts) // 2 :]
    return float(np.polyfit(np.log([(a.files + b.files) / 2 for a, b in later]), np.log(own_times(later)), 1)[0])


def milliseconds(parts: Sequence[tuple[Reading, Reading]]) -> float:
    """Growth of the daemon's own time for a study in 1000 studies, after the warm-up."""
    warm = parts[int(WARM_UP * len(parts)) :]
    return 1000 * float(np.polyfit([(a.answered + b.answered) / 2 for a, b in warm], own_times(warm), 1)[0])


def windows_table(parts: Sequence[tuple[Reading, Reading]]) -> str:
    """Table of the values in each window."""
    headings = [
        "studies answered", "files on record", "studies/s", "daemon, MB", "its processes, MB", "descriptors",
        "ledger, MB", "one scan, ms", "daemon's own time for a study, ms",
    ]  # fmt: skip
    rows = [
        [
            str(b.answered), str(b.files), f"{(b.answered - a.answered) / (b.seconds - a.seconds):.1f}",
            f"{b.daemon:.0f}", f"{b.workers:.0f}", str(b.descriptors), f"{b.ledger:.1f}", f"{1000 * b.scan:.0f}",
            f"{own:.0f}",
        ]
        for (a, b), own in zip(parts, own_times(parts), strict=True)
    ]  # fmt: skip
    return table(headings, rows)


def stream(root: Path, bundle: Path, count: int, *, take_away: bool) -> tuple[list[str], list[str]]:
    """Send studies to a new daemon; return paragraphs for the page, and broken promises."""
    samples = make_many(root / ("store-tidy" if take_away else "store"), count, 0.0, random.Random(1))
    house = House(root / ("tidy" if take_away else "house"), bundle)
    house.start()
    assert house.ready(120), "the daemon does not start"
    readings = pour(house, samples, take_away=take_away)
    status = house.stop()
    verdict = judge(house.root, samples, bundle, 0)
    parts, last = windows(readings), readings[-1]
    daemon, workers = slope(readings, lambda r: r.daemon), slope(readings, lambda r: r.workers)
    descriptors = slope(readings, lambda r: r.descriptors)
    grows, per_file = f"The daemon's memory grows by {daemon:.1f} MB per 1000 studies", 0.0
    if not take_away:
        per_file = daemon * 1.024 / (last.files / count)
        grows += f", {per_file:.1f} kB for each file that stays in the inbox"
    paragraphs = [
        f"{count} studies in {last.seconds / 60:.0f} minutes, **{count / last.seconds:.1f} studies/s**; "
        + ("each is removed from the inbox when it is answered:" if take_away else "all stay in the inbox:"),
        windows_table(parts),
        f"{grows}. The memory of its processes grows by {workers:.1f} MB, the number of its open descriptors by "
        f"{descriptors:.2f}. All are fitted after the first quarter. {verdict}",
    ]
    broken = [str(verdict)] if verdict.faults else []
    broken += [f"{per_file:.1f} kB for each file"] if per_file > MOST_PER_FILE else []
    flat = [
        ("its processes' memory", workers, MOST_OF_PROCESSES),
        ("the number of descriptors", descriptors, MOST_GROWTH),
    ]
    if take_away:
        flat.append(("the daemon's memory", daemon, MOST_GROWTH))
        more = milliseconds(parts)
        paragraphs.append(f"Its own time for a study grows by {more:.2f} ms in 1000 studies, after the first quarter.")
        broken += [f"time for a study grows by {more:.2f} ms in 1000 studies"] if more > MOST_MILLISECONDS else []
    else:
        power = exponent(parts)
        paragraphs.append(
            f"The daemon's own time for a study grows with the files in the inbox to the power of {power:.2f} over the "
            "later half, because each scan covers all of them."
        )
        broken += [f"time for a study grows with power {power:.2f}"] if power > MOST_EXPONENT else []
    broken += [
        f"{what} grows by {much:.1f} per 1000 studies"
        for what, much, most in flat
        if much * (1 - WARM_UP) * count / 1000 > most
    ]
    broken += [f"the daemon ended with status {status}"] if status else []
    return paragraphs, broken


def crowd(root: Path, bundle: Path, count: int) -> tuple[list[str], list[str]]:
    """Start with an inbox full of files that give no report, then send studies; return as :func:`stream` does."""
    house = House(root / "crowd", bundle)
    fill_crowd(house.inbox, count)
    started = time.monotonic()
    house.start()
    assert house.ready(120), "the daemon does not start"
    readings = [read(house, started)]
    while readings[-1].files < count:
        time.sleep(0.5)
        readings.append(read(house, started))
        if len(readings) % 60 == 0:
            print(readings[-1], flush=True)
    time.sleep(20)
    rest = [read(house, started, scan=True)]
    time.sleep(20)
    rest.append(read(house, started, scan=True))
    busy = (rest[1].processor - rest[0].processor) / (rest[1].seconds - rest[0].seconds)
    waits, samples = [], [make(root / "late" / str(n), f"late-{n}", roi=n) for n in range(5)]
    for n, sample in enumerate(samples, start=1):
        shutil.copytree(sample.folder, house.inbox / f"late-{n}")
        sent = time.monotonic()
        assert until(lambda n=n: len(house.answered()) == n, 300, poll=0.05), "a study was not answered"
        waits.append(time.monotonic() - sent)
    house.stop()
    shutil.copytree(make(root / "late" / "again", "late-again").folder, house.inbox / "late-again")
    started = time.monotonic()
    house.start()
    assert until(lambda: len(house.answered()) == len(samples) + 1, 600), "a study was not answered"
    again = time.monotonic() - started
    house.stop()
    quarters = [next(r for r in readings if r.files >= share * count / 4) for share in range(1, 5)]
    rows = [
        [f"{r.files:,}", f"{r.seconds:.0f}", f"{r.daemon:.0f}", f"{r.workers:.0f}"] for r in (readings[0], *quarters)
    ]
    per_file = (rest[1].daemon - readings[0].daemon) * 1024 / count
    paragraphs = [
        f"{count:,} files are in the inbox when the daemon starts: half are CT slices without a region of interest, "
        "half are not DICOM.",
        table(["files read", "after, s", "daemon, MB", "its processes, MB"], rows),
        f"{per_file:.1f} kB of the daemon's memory for each file; ledger {rest[1].ledger:.0f} MB. Without work one "
        f"scan takes **{rest[1].scan:.2f} s**, and the daemon {100 * busy:.0f} % of one core. A study that arrives "
        f"then has its report after {', '.join(f'{wait:.1f}' for wait in waits)} s. A study that is in the inbox at "
        f"a new start has its report {again:.0f} s after the start.",
    ]
    return paragraphs, [f"{per_file:.1f} kB for each file"] if per_file > MOST_PER_FILE else []


def main() -> None:
    """Print what was measured; end with status 1 if something grows that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--taken-away", type=int, default=4000)
    parser.add_argument("--files", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lungstage-soak-") as name:
        root = Path(name)
        bundle = make_bundle(root / "bundle")
        results = [
            stream(root, bundle, given.studies, take_away=False),
            stream(root, bundle, given.taken_away, take_away=True),
            crowd(root, bundle, given.files),
        ]
    parts = [page.machine(), *(paragraph for paragraphs, _ in results for paragraph in paragraphs)]
    broken = [fault for _, faults in results for fault in faults]
    print("\n\n".join([*parts, *broken]))
    if broken:
        sys.exit(1)
    page.write("soak", parts)


if __name__ == "__main__":
    main()
