"""The program of a worker process: it first drops all rights that no step needs, then loads code that reads files."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import warnings
from pathlib import Path

from lungstage.appliance.config.offline import without_requests
from lungstage.appliance.workers.confinement import confine

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "500"  # the daemon has 0 unless set otherwise; 1000 would be ended first of all programs of the machine


def main() -> None:
    """Run the worker; arguments: numbers of the two pipes, memory and file size in bytes, the folder to write to."""
    requests, answers, memory, file_size = map(int, sys.argv[1:5])
    _limit(memory, file_size)
    without_requests()
    silence = os.open(os.devnull, os.O_WRONLY)
    confinement = confine([Path(sys.argv[5])])
    from lungstage.appliance.workers.worker import serve

    os.dup2(silence, sys.stderr.fileno())  # stderr is the daemon's log: no library may write to it
    serve(requests, answers, confinement)


def _limit(memory: int, file_size: int) -> None:
    """Set the limits of this process, leave signals and output to the daemon, and end when the daemon ends."""
    for limit, most in (
        (resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),  # a core file would hold patients' data
    ):  # fmt: skip
        resource.setrlimit(limit, (most, most))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # if memory runs out, the kernel shall end this process and not the daemon
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the process ends with its pipe
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries' messages quote what they read; see lungstage.appliance.config.logs.
    logging.disable()
    warnings.simplefilter("ignore")
