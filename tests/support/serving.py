"""A command that serves until it is stopped, such as the daemon and the page."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.system.test_run import ENVIRONMENT, RUN

SECONDS = 60.0
"""Longest time for something that answers at once on an idle machine."""


class process:  # noqa: N801  (a context manager, read as one)
    """Run a command until the block ends; the block starts when the command is ready."""

    def __init__(self, *arguments: str, log: Path) -> None:
        self._arguments, self._log = arguments, log

    def __enter__(self) -> subprocess.Popen[str]:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*RUN, *self._arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", self._log.read_text()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0, self._log.read_text()
