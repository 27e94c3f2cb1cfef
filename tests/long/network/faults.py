"""``make network-faults``: hundreds of studies over the network while gateway, daemon and archive are killed by turns.

The archive is an Orthanc that commits itself, and is away for the middle third. In the end each study must be one
report in it, byte for byte the one that lies in the outbox, and each document must have been stored there once.
Writes its section of ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from pathlib import Path

import psutil

from lungstage.appliance.contract.arrival import FOLDER
from tests.long.network.check import of_orthanc
from tests.long.network.peers import PROGRAMS, Orthanc, storescu
from tests.long.network.site import Site, data_set
from tests.long.reliability import page
from tests.long.reliability.house import make_bundle, until
from tests.long.reliability.studies import Sample, make_many
from tests.long.viewers import peers as viewers
from tests.long.viewers.site import enter_namespace

END_SECONDS, REST_SECONDS = 1800.0, 15.0
VICTIMS = {"gateway": 6, "daemon": 2, "archive": 2}


class Sender(threading.Thread):
    """Sends studies by storescu; like a scanner's queue, it repeats each until all of it is acknowledged."""

    def __init__(self, samples: list[Sample], port: int) -> None:
        super().__init__(daemon=True)
        self._left, self._port = deque(samples), port
        self._released = threading.Semaphore(0)
        self.again = 0

    def release(self, count: int) -> None:
        """Allow `count` more studies to be sent."""
        for _ in range(count):
            self._released.release()

    def left(self) -> int:
        """Number of studies that are not sent yet."""
        return len(self._left)

    def run(self) -> None:
        while self._left:
            self._released.acquire()
            while True:
                try:
                    storescu(self._left[0].files, self._port)
                    break
                except subprocess.CalledProcessError:
                    self.again += 1
                    time.sleep(0.3)
            self._left.popleft()


class Run:
    """One run: the running processes, and the count of kills."""

    def __init__(self, root: Path, bundle: Path, chance: random.Random) -> None:
        self.orthanc = Orthanc(root / "orthanc")
        self.site = Site(root / "site", bundle, ["dicom://ORTHANC@localhost:4242"])
        self._chance = chance
        self.kills: Counter[str] = Counter()
        self.most_memory = 0

    def start(self) -> None:
        self.orthanc.start()
        self.site.house.start()
        assert self.site.house.ready(120)
        self.site.start_gateway()

    def kill(self, *, archive_is_away: bool) -> None:
        """Kill one of the processes at a random moment, and start it again."""
        names = [name for name in VICTIMS if name != "archive" or not archive_is_away]
        (victim,) = self._chance.choices(names, [VICTIMS[name] for name in names])
        time.sleep(self._chance.uniform(0.0, 1.5))
        self.kills[victim] += 1
        if victim == "gateway":
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = psutil.Process(self.site.gateway_pid).memory_info().rss
                self.most_memory = max(self.most_memory, memory)
            self.site.end_gateway(signal.SIGKILL)
            time.sleep(self._chance.uniform(0.0, 0.5))
            self.site.start_gateway()
        elif victim == "daemon":
            self.site.house.kill()
            self.site.house.start()
            assert self.site.house.ready(120)
        else:
            self.orthanc.stop(signal.SIGKILL)
            time.sleep(self._chance.uniform(0.0, 1.0))
            self.orthanc.start()

    def end(self) -> tuple[int, int]:
        statuses = self.site.end_gateway(), self.site.house.stop()
        self.orthanc.stop()
        return statuses


def verdict(run: Run, samples: list[Sample]) -> dict[str, list[str]]:
    """Compare archive, outbox and inbox with the expected results of the studies."""
    found: dict[str, list[str]] = {"lost": [], "twice": [], "damaged": [], "left over": []}
    made, there = run.site.documents(), of_orthanc(run.orthanc)
    answered = run.site.house.answered()
    for sample in samples:
        if answered.get(sample.series_instance_uid) != ("refused" if sample.end else "delivered"):
            found["lost"].append(f"{sample.folder.name}: {answered.get(sample.series_instance_uid)}")
        sent = {path.name for path in (run.site.house.inbox / sample.study_instance_uid).glob("*.dcm")}
        if len(sent) != len(sample.files):
            found["lost" if len(sent) < len(sample.files) else "twice"].append(f"{sample.folder.name}: {len(sent)}")
    found["lost"] += sorted(set(made) - set(there))
    found["twice"] += sorted(set(there) - set(made))
    found["damaged"] += [uid for uid in sorted(set(made) & set(there)) if data_set(made[uid]) != data_set(there[uid])]
    stored = Counter(run.orthanc.changes())
    found["twice"] += [f"{name} was stored {count} times" for name, count in stored.items() if count > 1]
    reports = [uid for uid in made if (run.site.house.outbox / f"SR-{uid}.dcm").exists()]
    if len(reports) != sum(sample.end is None for sample in samples):
        found["twice"].append(f"{len(reports)} reports")
    found["left over"] += [
        path.name for path in (run.site.house.inbox / FOLDER).iterdir() if path.name != "lock"
    ]  # fmt: skip
    return found


def main() -> None:
    """Print what was done and the results; end with status 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    if missing := sorted(set(viewers.missing(PROGRAMS))):
        raise SystemExit(f"Install first: apt-get install {' '.join(missing)}")
    enter_namespace("tests.long.network.faults")
    print(f"seed {given.seed}", flush=True)
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="lungstage-network-") as name:
        root = Path(name)
        bundle = make_bundle(root / "bundle")
        samples = make_many(root / "store", given.studies, 0.1, chance)
        run = Run(root, bundle, chance)
        run.start()
        sender = Sender(samples, run.site.port)
        sender.start()
        started, released, is_away = time.monotonic(), 0, False
        for kill in range(given.kills):
            share = kill / given.kills
            if (1 / 3 <= share < 2 / 3) != is_away:
                is_away = not is_away
                if is_away:
                    run.orthanc.stop(signal.SIGKILL)
                else:
                    run.orthanc.start()
            wanted = round((kill + 1) / given.kills * given.studies)
            sender.release(wanted - released)
            released = wanted
            run.kill(archive_is_away=is_away)
            if kill % 10 == 9:
                print(f"{time.monotonic() - started:6.0f} s, {dict(run.kills)}, {run.site.counts()}", flush=True)
        if is_away:
            run.orthanc.start()
        assert until(lambda: not sender.left(), END_SECONDS), f"{sender.left()} studies were not taken"
        assert until(lambda: len(run.site.house.answered()) >= len(samples), END_SECONDS), "not all were answered"
        until(lambda: set(run.site.counts()) == {"delivered"}, END_SECONDS)
        time.sleep(REST_SECONDS)  # long enough for a second copy to appear
        counts, seconds = run.site.counts(), time.monotonic() - started
        orthanc_says = verdict(run, samples)
        statuses = run.end()
    if set(counts) != {"delivered"}:
        orthanc_says["lost"].append(f"deliveries: {counts}")
    if statuses != (0, 0):
        orthanc_says["left over"].append(f"ended with {statuses}")
    told = ", ".join(f"{sort} {len(which)}" for sort, which in orthanc_says.items())
    parts = [
        f"{len(samples)} studies, {sum(run.kills.values())} kills, the archive away for the middle third, in "
        f"{seconds / 60:.0f} minutes; seed {given.seed}. {page.machine()} Studies that the sender had to send again, "
        f"because an association died under them: {sender.again}. Most memory of the gateway: "
        f"{run.most_memory / 1024**2:.0f} MB.",
        page.counts(["killed", "times"], run.kills),
        f"Deliveries committed: {counts.get('delivered', 0)}. Results: {told}.",
    ]
    print("\n\n".join(parts))
    if any(orthanc_says.values()):
        print({sort: which[:5] for sort, which in orthanc_says.items() if which})
        sys.exit(1)
    page.write("network-faults", parts)


if __name__ == "__main__":
    main()
