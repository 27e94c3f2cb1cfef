"""Run commands as in a shell, but without a process for each."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest

from lungstage.appliance.cli import main as cli
from tests.system.test_run import ENVIRONMENT


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Return what ``lungstage`` prints, and its exit status."""
    words, out, err = ["lungstage", *map(str, arguments)], io.StringIO(), io.StringIO()
    with mock.patch.dict("os.environ", ENVIRONMENT, clear=True), mock.patch.object(sys, "argv", words):
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
                cli.main()
        finally:
            gc.enable()  # a command switches it off
    return subprocess.CompletedProcess(words, int(left.value.code or 0), out.getvalue(), err.getvalue())
