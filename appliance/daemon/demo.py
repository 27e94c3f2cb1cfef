"""``lungstage demo``: one run of the real daemon on the phantom study."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd

from lungstage.appliance.contract.errors import Refused, Unavailable
from lungstage.appliance.staging import phantom
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import Jobs

_TIMEOUT = 60.0  # seconds; the daemon needs about two


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The study's result in the ledger, the title of the report after reading it back, and the duration."""

    outcome: dict[str, Any]
    title: str
    seconds: float


@contextmanager
def _daemon(inbox: Path, outbox: Path, state: Path, bundle: Path) -> Iterator[subprocess.Popen[str]]:
    """Run ``lungstage run`` until the block ends; return when it has printed ``ready``."""
    command = [sys.executable, "-P", "-m", "lungstage.appliance.cli.main", "run"]
    command += ["--inbox", str(inbox), "--outbox", str(outbox), "--state", str(state), "--bundle", str(bundle)]
    quiet = os.environ | {"LUNGSTAGE_LOG_LEVEL": "WARNING"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet) as process:  # noqa: S603  (our own command)
        try:
            if process.stdout is None or process.stdout.readline().strip() != "ready":
                raise Unavailable("The daemon did not start. Its messages above say why.")
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=_TIMEOUT)


def run_demo(bundle: Path, folder: Path) -> DemoResult:
    """Send the phantom study through the daemon and read the report back.

    Parameters
    ----------
    bundle
        The model bundle.
    folder
        Afterwards it contains ``inbox``, ``outbox`` and ``state``.

    Raises
    ------
    Unavailable
        The daemon does not start, or no report appears.
    Refused
        The study was refused, for the reason given.
    """
    inbox, outbox, state = (folder / name for name in ("inbox", "outbox", "state"))
    for path in (inbox, outbox, state):
        path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = phantom.write_study(Path(scratch))
        with _daemon(inbox, outbox, state, bundle) as process:
            for file in files:
                shutil.copy(file, inbox / file.name)
            start = time.monotonic()
            while (job := _finished(state)) is None:
                if process.poll() is not None or time.monotonic() - start > _TIMEOUT:
                    raise Unavailable(
                        f"No structured report appeared. Run `lungstage jobs --state {state}` to see why."
                    )
                time.sleep(0.05)
            seconds = time.monotonic() - start
    if job.sr_path is None or job.outcome is None:
        raise (
            Refused(job.reason.code, job.reason.message)
            if job.reason
            else Unavailable("No structured report appeared.")
        )
    report = hd.sr.srread(job.sr_path)
    delivered = {path.name.partition("-")[0].lower(): str(path) for path in sorted(Path(job.sr_path).parent.iterdir())}
    told = dict(job.outcome) | {"sr": job.sr_path, "documents": delivered | {"sr": job.sr_path}}
    return DemoResult(told, str(report.ConceptNameCodeSequence[0].CodeMeaning), seconds)


def _finished(state: Path) -> Job | None:
    """Return the phantom's job when it is delivered or refused."""
    with DatabaseReader(state / "ledger.sqlite") as database:
        jobs = Jobs(database).find()
    return next((job for job in jobs if job.state in (JobState.DELIVERED, JobState.REFUSED)), None)
