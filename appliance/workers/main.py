"""What a worker process runs: it gives up all that no step needs, and only then loads what meets files."""

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
_OOM_SCORE = "500"  # the daemon has 0 unless somebody set another; 1000 would be the first of the whole machine


def main() -> None:
    """Serve the pipes of these numbers; then come memory and size of a file in bytes, and the folder to write to."""
    requests, answers, memory, file_size = map(int, sys.argv[1:5])
    _limit(memory, file_size)
    without_requests()
    silence = os.open(os.devnull, os.O_WRONLY)
    confinement = confine([Path(sys.argv[5])])
    from lungstage.appliance.workers.worker import serve

    os.dup2(silence, sys.stderr.fileno())  # the daemon's log, which no library's message may enter
    serve(requests, answers, confinement)


def _limit(memory: int, file_size: int) -> None:
    """Give this process its limits, leave signals and output to the daemon, and have it end when the daemon does."""
    for limit, most in (
        (resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),  # a core file would hold patients' data
    ):  # fmt: skip
        resource.setrlimit(limit, (most, most))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a kernel short of memory shall take this process, and not the daemon
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    with contextlib.suppress(OSError, AttributeError):  # Linux; elsewhere the end of the pipe alone tells
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries' messages quote what they read; see lungstage.appliance.config.logs.
    logging.disable()
    warnings.simplefilter("ignore")
