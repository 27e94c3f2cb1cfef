"""What the page costs the daemon: its throughput with ten browsers that poll, and without, in turns within one run.

``python -m tests.long.benchmarks.page_load [STUDIES]``
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

from lungstage.appliance.staging import phantom
from tests.support.studies import Study, contour, structure_set

BROWSERS, POLL_SECONDS, TURNS = 10, 4.0, 3
COMMAND = (sys.executable, "-m", "lungstage.appliance.cli.main")


def write(folder: Path, name: str) -> None:
    slices = phantom.ct_datasets(phantom.make()[0][7:25, 48:144, 48:144], name)
    square = [(20.0, 20.0), (20.0, 75.0), (75.0, 75.0), (75.0, 20.0)]
    drawn = {"GTV-1": [contour(image, square) for image in slices[3:-3]]}
    Study(slices, [structure_set(slices, drawn, slices)]).write(folder / name)


@contextmanager
def serving(*arguments: str, log: Path) -> Iterator[None]:
    with log.open("w") as stderr:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", log.read_text()
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def watched(address: str) -> Iterator[list[int]]:
    """Have browsers log in and poll as the page's own script does, until the block ends; count their answers."""
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


def seconds_for(root: Path, turn: str, studies: int) -> float:
    """Send studies that were written before, and wait until each has a report."""
    fresh = root / "written" / turn
    for n in range(studies):
        write(fresh, f"{turn}-{n}")
    have = len([*(root / "outbox").glob("SR-*")])
    started = time.monotonic()
    shutil.move(fresh, root / "inbox" / turn)
    while len([*(root / "outbox").glob("SR-*")]) < have + studies:
        time.sleep(0.02)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="?", type=int, default=60)
    studies = parser.parse_args().studies
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("inbox", "outbox", "state", "written"):
            (root / name).mkdir()
        folders = [f"--{name}={root / name}" for name in ("inbox", "outbox", "state")]
        with (
            serving("run", *folders, "--bundle=lung1-stage", log=root / "run.log"),
            serving("page", *folders, "--bind=127.0.0.1:0", log=root / "page.log"),
        ):
            seconds_for(root, "warm", 3)
            alone, polled, answers = [], [], 0
            address = (root / "page.log").read_text()
            for turn in range(TURNS):
                alone.append(studies / seconds_for(root, f"alone{turn}", studies))
                with watched(address) as counts:
                    polled.append(studies / seconds_for(root, f"polled{turn}", studies))
                answers += sum(counts)
    ratio = median(polled) / median(alone)
    print(f"alone {median(alone):.2f}, polled by {BROWSERS} browsers {median(polled):.2f} studies/s: ratio {ratio:.2f}")
    print(f"{answers} answers to the browsers; turns: {[round(x, 2) for x in alone]} {[round(x, 2) for x in polled]}")


if __name__ == "__main__":
    main()
