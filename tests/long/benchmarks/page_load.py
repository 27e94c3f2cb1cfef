"""Compare the daemon's throughput with ten browsers that poll the page, and without, alternately within one run.

``python -m tests.long.benchmarks.page_load [MINUTES]``: as many turns of about fifteen seconds as there is time for.
Each pair of turns has the opposite order of the pair before, so a slow change of the machine favours neither. The page
is served all the time; only the browsers are added.
"""

from __future__ import annotations

import argparse
import http.client
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from lungstage.appliance.staging import phantom
from tests.support.studies import Study, contour, structure_set

BROWSERS, POLL_SECONDS = 10, 4.0  # as page.js has it
TURN_SECONDS = 15.0  # duration of a turn: several polls of each browser
WARM_UP = 12  # studies
COMMAND = (sys.executable, "-m", "lungstage.appliance.cli.main")


def write(folder: Path, name: str) -> None:
    slices = phantom.ct_datasets(phantom.make()[0][7:25, 48:144, 48:144], name)
    square = [(20.0, 20.0), (20.0, 75.0), (75.0, 75.0), (75.0, 20.0)]
    drawn = {"GTV-1": [contour(image, square) for image in slices[3:-3]]}
    Study(slices, [structure_set(slices, drawn, slices)]).write(folder / name)


@contextmanager
def serving(*arguments: str, log: Path) -> Iterator[psutil.Process]:
    with log.open("w") as stderr:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", log.read_text()
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def watched(address: str) -> Iterator[list[int]]:
    """Let browsers log in and poll like the page's own script, until the block ends; count their answers."""
    host, token = re.findall(r"//([^/]+)/login\?token=(\S+)", address)[0]
    over, counts = threading.Event(), [0] * BROWSERS

    def browse(number: int) -> None:
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", f"/login?token={token}")
        answer = connection.getresponse()
        answer.read()
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        tag = ""
        while not over.wait(POLL_SECONDS):
            connection.request("GET", "/rows?", headers={"Cookie": cookie, "If-None-Match": tag})
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 304), answer.status
            tag = answer.headers["ETag"]
            counts[number] += 1

    threads = [threading.Thread(target=browse, args=(number,)) for number in range(BROWSERS)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor seconds of a process and its child processes."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def seconds_for(root: Path, studies: Path) -> float:
    """Send prepared studies, and wait until each has a report."""
    wanted = len([*(root / "outbox").glob("SR-*")]) + len([*studies.iterdir()])
    started = time.monotonic()
    shutil.move(studies, root / "inbox" / studies.name)
    while len([*(root / "outbox").glob("SR-*")]) < wanted:
        time.sleep(0.02)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=6.0)
    until = time.monotonic() + 60 * parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("inbox", "outbox", "state", "written"):
            (root / name).mkdir()
        folders = [f"--{name}={root / name}" for name in ("inbox", "outbox", "state")]

        def write_turn(name: str, count: int) -> Path:
            for n in range(count):
                write(root / "written" / name, f"{name}-{n}")
            return root / "written" / name

        with (
            serving("run", *folders, "--bundle=lung1-stage", log=root / "run.log"),
            serving("page", *folders, "--bind=127.0.0.1:0", log=root / "page.log") as page,
        ):
            address = (root / "page.log").read_text()
            count = max(10, round(TURN_SECONDS * WARM_UP / seconds_for(root, write_turn("warm", WARM_UP))))
            rates: dict[bool, list[float]] = {False: [], True: []}
            answers, polled, spent, took = 0, 0.0, 0.0, 0.0
            while not rates[True] or time.monotonic() + 2 * took < until:
                started = time.monotonic()
                order = (False, True) if len(rates[True]) % 2 == 0 else (True, False)
                for is_polled in order:
                    studies = write_turn(f"turn{sum(map(len, rates.values()))}", count)
                    if not is_polled:
                        rates[False].append(count / seconds_for(root, studies))
                        continue
                    with watched(address) as counts:
                        before = processor_seconds(page)
                        seconds = seconds_for(root, studies)
                        polled, spent = polled + seconds, spent + processor_seconds(page) - before
                    rates[True].append(count / seconds)
                    answers += sum(counts)
                took = (time.monotonic() - started) / 2
    alone, watched_by = median(rates[False]), median(rates[True])
    ratio = watched_by / alone
    print(f"alone {alone:.2f}, polled by {BROWSERS} browsers {watched_by:.2f} studies/s: ratio {ratio:.2f}")
    print(f"the page used {100 * spent / polled:.1f} % of one core while it was polled, {answers} answers")
    print(f"turns of {count} studies: {[round(x, 2) for x in rates[False]]} {[round(x, 2) for x in rates[True]]}")


if __name__ == "__main__":
    main()
