"""The real daemon as a process with its folders: start, watch and kill it, and find what it was doing."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psutil

from lungstage.export.bundle import build
from tests.export.conftest import make_run, without_limits

LUNGSTAGE = Path(sys.executable).with_name("lungstage")
_QUIET = {k: v for k, v in os.environ.items() if not k.startswith("LUNGSTAGE_")} | {"OMP_NUM_THREADS": "1"}


def make_bundle(folder: Path) -> Path:
    """Make a bundle of random weights that answers for any study, without limits of distance."""
    build(without_limits(make_run()), folder)
    return folder


class House:
    """One daemon and its folders; at most one process at a time.

    Parameters
    ----------
    root
        Folder for inbox, outbox, state and log.
    bundle
        Folder of the bundle.
    environment
        Variables beyond the usual ones.
    """

    def __init__(self, root: Path, bundle: Path, environment: Mapping[str, str] | None = None) -> None:
        self.root, self._bundle = root, bundle
        self.inbox, self.outbox, self.state, self.log = (root / n for n in ("inbox", "outbox", "state", "log"))
        for folder in (self.inbox, self.outbox, self.state):
            folder.mkdir(parents=True)
        self._environment = {**_QUIET, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def pid(self) -> int:
        """Number of the daemon's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the daemon without waiting for it."""
        options = [f"--{name}={self.root / name}" for name in ("inbox", "outbox", "state")]
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                [LUNGSTAGE, "run", *options, f"--bundle={self._bundle}"],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def ready(self, seconds: float) -> bool:
        """Wait for ``ready``; False if it is not printed within the seconds given, or if the daemon ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], max(seconds, 0.0))
        return bool(readable) and self._process.stdout.readline() == b"ready\n"

    def ended(self) -> int | None:
        """Exit status if the daemon has ended without a signal."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """Send SIGKILL, like an out-of-memory killer."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Send SIGTERM; return the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        status = process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        return status

    def workers(self) -> list[psutil.Process]:
        """Return the daemon's worker processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children()
        return []

    def said(self, *, ever: bool = False) -> list[str]:
        """Return the events that this run of the daemon has logged, or all runs, in order."""
        with self.log.open("rb") as log:
            log.seek(0 if ever else self._log_from)
            return re.findall(r"^time=\S+ level=\w+ event=(\w+)", log.read().decode(errors="replace"), re.MULTILINE)

    def states(self) -> Counter[str]:
        """Count the jobs in each state, while the daemon runs."""
        return Counter(dict(self._ask("SELECT state, count(*) FROM jobs GROUP BY state")))

    def answered(self) -> dict[str, str]:
        """Return the state of the newest finished job of each series."""
        over = "state = 'delivered' OR state = 'refused' AND reason_code != 'superseded'"
        return dict(self._ask(f"SELECT case_key, state FROM jobs WHERE {over} ORDER BY id"))

    def files_read(self) -> int:
        """Count the files in the ledger."""
        return sum(row[0] for row in self._ask("SELECT count(*) FROM files WHERE present"))

    def _ask(self, sql: str) -> list[tuple]:
        with contextlib.suppress(sqlite3.OperationalError):
            connection = sqlite3.connect(f"file:{self.state / 'ledger.sqlite'}?mode=ro", uri=True, timeout=10)
            with contextlib.closing(connection):
                return connection.execute(sql).fetchall()
        return []

    def autopsy(self) -> str:
        """Return what a killed daemon was doing, by its log, its ledger and its outbox."""
        if "started" not in self.said():
            return "starting"
        if any(path.name.endswith(".part") for path in self.outbox.iterdir()):
            return "delivering (a file partly written)"
        with tempfile.TemporaryDirectory() as name:  # a copy, so that the next daemon finds the ledger unchanged
            for path in self.state.glob("ledger.sqlite*"):
                shutil.copy(path, name)
            with contextlib.closing(sqlite3.connect(Path(name) / "ledger.sqlite")) as connection:
                states = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
                known = connection.execute("SELECT count(*) FROM files WHERE present").fetchone()[0]
        if states.get("report_ready"):
            return "delivering"
        if states.get("claimed"):
            return "staging"
        if states.get("ready"):
            return "examining"
        lying = sum(len(names) for _, _, names in os.walk(self.inbox))
        return "reading" if known < lying else "waiting"


def until(condition: object, seconds: float, poll: float = 0.2) -> bool:
    """Wait until a condition is true; False if it is not within the seconds given."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll)
    return True
