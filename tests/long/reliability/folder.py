"""Damaged studies in the inbox of a real daemon: it continues, and answers a sound study afterwards.

``python -m tests.long.reliability.folder`` drops 300 of them (part of ``make fuzz``).
"""

from __future__ import annotations

import argparse
import hashlib
import re
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lungstage.export.bundle import build
from tests.export.conftest import make_run, without_limits
from tests.long.reliability import page
from tests.long.reliability.corpus import Files, generated_studies
from tests.long.reliability.fuzz import Source
from tests.system.test_run import running

_OWN_UID = re.compile(rb"1\.2\.826\.0\.1\.3680043\.(?:8\.498|10\.511\.3)\.[0-9]{20,}|1\.2\.826\.0\.1\.77(?![0-9.])")
_STUDY = re.compile(rb"\x20\x00\x0d\x00UI..([0-9.]+)", re.DOTALL)


def _anew(content: bytes, name: str) -> bytes:
    """Return the file with new UIDs of the same length, so that nothing else changes."""

    def rename(match: re.Match[bytes]) -> bytes:
        old = match.group()
        digits = str(int(hashlib.sha256(name.encode() + old).hexdigest(), 16))
        keep = min(10, len(old) - 2)
        return old[:keep] + digits[: len(old) - keep].encode()

    return _OWN_UID.sub(rename, content)


def drop(inbox: Path, seed: str, numbers: Iterable[int], *, damaged: bool = True) -> list[str]:
    """Write one study for each number into a separate folder; return their Study Instance UIDs."""
    studies = generated_studies()
    uids = []
    for number in numbers:
        name = f"{seed}-{number}"
        renamed = {k: {f: _anew(c, name) for f, c in files.items()} for k, files in studies.items()}
        files: Files = renamed["contours"]
        if damaged:
            source = Source(name, renamed, {}, ())
            one = next(one for one in _inputs(source) if one.study in renamed)
            files = {k: v for k, v in (renamed[one.study] | one.changes).items() if v is not None}
        folder = inbox / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        match = _STUDY.search(files.get("ct-00", b""))
        uids.append(match.group(1).decode() if match else "")
    return uids


def _inputs(source: Source) -> Iterator[object]:
    number = 0
    while True:
        yield source.input(number)
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="folder-") as folder:
        root = Path(folder)
        build(without_limits(make_run()), root / "bundle")
        with running(root, root / "bundle") as one:
            log: list[str] = []
            # If the pipe is not read, it fills, and the daemon waits.
            reader = threading.Thread(target=lambda: log.extend(one.process.stderr or ()))
            reader.start()
            started = time.monotonic()
            drop(one.inbox, given.seed, range(given.count))
            (sound,) = drop(one.inbox, "sound", [0], damaged=False)
            one.until(
                lambda: any(j["study_instance_uid"] == sound and j["state"] == "delivered" for j in one.jobs()), 1800
            )
            answered = time.monotonic() - started
            one.until(lambda: all(j["state"] in ("delivered", "refused", "held") for j in one.jobs()), 600)
            jobs = one.jobs()
            one.process.send_signal(signal.SIGTERM)
            assert one.process.wait(60) == 0
            reader.join()
    ends = Counter(f"{j['state']}{' ' + j['reason']['code'] if j['reason'] else ''}" for j in jobs)
    defects = len(re.findall(r"event=\w*defect", "".join(log)))
    told = [
        f"{given.count} damaged studies of seed {given.seed} in the inbox of a running daemon, and a sound one after "
        f"them, which was answered {answered:.0f} s after the first file. The daemon stopped on request; "
        f"internal errors in its log: {defects}. {page.machine()}",
        page.counts(("result of a job", "jobs"), ends),
    ]
    print(*told, sep="\n")
    page.write("fuzz-folder", told)
    raise SystemExit(bool(defects))


if __name__ == "__main__":
    main()
