"""``make network-receiving``: how fast the gateway receives, by turns with storescp whose files are flushed.

Twenty studies of 200 slices over four associations. storescp does not flush by itself, so a library that is loaded
before the C library has it do so when it closes a file (flush.c); the gateway flushes file and folder before it
acknowledges. Both take PDUs of 128 KB.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from pydicom.uid import generate_uid

from lungstage.appliance.radiomics.phantom import make
from lungstage.appliance.staging.phantom import ct_datasets
from tests.long.network import peers
from tests.long.network.peers import PROGRAMS
from tests.long.network.site import COMMAND
from tests.long.reliability import page
from tests.long.viewers import peers as viewers
from tests.long.viewers.site import enter_namespace

ASSOCIATIONS = 4


def studies(folder: Path, count: int, slices: int) -> list[list[Path]]:
    """Write studies of 512 × 512 slices."""
    volume = make()[0]
    plane = np.tile(volume.array[len(volume.array) // 2], (3, 3))[:512, :512]
    written = []
    for number in range(count):
        (template,) = ct_datasets(volume[:1], f"receiving-{number}")
        template.Rows, template.Columns = 512, 512
        template.PixelData = (plane - int(template.RescaleIntercept)).astype(np.int16).tobytes()
        (folder / str(number)).mkdir(parents=True)
        for index in range(slices):
            template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            template.InstanceNumber = index + 1
            template.save_as(folder / str(number) / f"{index:04}", enforce_file_format=True)
        written.append(sorted((folder / str(number)).iterdir()))
    return written


def send_all(given: list[list[Path]], called: str, port: int) -> None:
    """Send every study, four at a time."""
    left, lock = list(given), threading.Lock()

    def one() -> None:
        while True:
            with lock:
                if not left:
                    return
                files = left.pop()
            command = ["storescu", "-R", "-aet", "CT1", "-aec", called, "localhost", str(port), *map(str, files)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    threads = [threading.Thread(target=one) for _ in range(ASSOCIATIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_storescp(given: list[list[Path]], folder: Path, flush: Path) -> float:
    """Return the seconds that storescp takes; it flushes each file when it closes it."""
    process = peers.storescp(folder, 4243, {"LD_PRELOAD": str(flush)})
    began = time.monotonic()
    send_all(given, "STORESCP", 4243)
    seconds = time.monotonic() - began
    peers.end(process)
    assert sum(1 for _ in folder.iterdir()) == sum(map(len, given))
    return seconds


def by_gateway(given: list[list[Path]], folder: Path) -> tuple[float, float]:
    """Return the seconds that the gateway takes, and its peak memory in MB."""
    for name in ("inbox", "outbox"):
        (folder / name).mkdir(parents=True)
    config = folder / "gateway.toml"
    config.write_text(
        f'inbox = "{folder / "inbox"}"\noutbox = "{folder / "outbox"}"\nstate = "{folder / "state"}"\n'
        '[receive]\nbind = "127.0.0.1:11112"\nmin_free_mb = 100\n'
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*COMMAND, "gateway", "--config", config], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            most[0] = max(most[0], psutil.Process(process.pid).memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    send_all(given, "LUNGSTAGE", 11112)
    seconds = time.monotonic() - began
    over.set()
    watcher.join()
    process.terminate()
    assert process.wait(60) == 0
    there = sum(1 for path in (folder / "inbox").rglob("*.dcm"))
    assert there == sum(map(len, given)), there
    return seconds, most[0] / 1024**2


def main() -> int:
    """Print both throughputs, their ratio and the gateway's memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    if missing := sorted(set(viewers.missing(PROGRAMS))):
        raise SystemExit(f"Install first: apt-get install {' '.join(missing)}")
    enter_namespace("tests.long.network.receiving")
    with tempfile.TemporaryDirectory(prefix="lungstage-receiving-") as name:
        root = Path(name)
        given = studies(root / "store", options.studies, options.slices)
        size = sum(path.stat().st_size for files in given for path in files) / 1024**2
        theirs, ours, memory = [], [], []
        flush = root / "flush.so"
        source = Path(__file__).with_name("flush.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", flush, source, "-ldl"], check=True)
        for turn in range(options.turns):
            theirs.append(by_storescp(given, root / f"storescp-{turn}", flush))
            seconds, most = by_gateway(given, root / f"gateway-{turn}")
            ours.append(seconds)
            memory.append(most)
            print(f"storescp {size / theirs[-1]:.0f} MB/s, gateway {size / ours[-1]:.0f} MB/s", flush=True)
    ratio = median(theirs) / median(ours)
    parts = [
        f"{options.studies} studies of {options.slices} slices ({size:.0f} MB) over {ASSOCIATIONS} associations, "
        f"{options.turns} turns. {page.machine()} storescp --fork, each file flushed: "
        f"{size / median(theirs):.0f} MB/s; the gateway: {size / median(ours):.0f} MB/s, {ratio:.2f} times as much. "
        f"Most memory of the gateway: {max(memory):.0f} MB."
    ]
    print(parts[0])
    page.write("network-receiving", parts)
    return 0 if ratio >= 0.5 and max(memory) <= 200 else 1


if __name__ == "__main__":
    raise SystemExit(main())
