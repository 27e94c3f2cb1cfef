"""Processor time of another process, and a limit on it that the kernel enforces."""

from __future__ import annotations

import math
import resource
import time

_SCHEDULED = 2  # linux/posix-timers.h: the precise one of a process's three clocks


def used(pid: int) -> float:
    """Return the processor seconds of a process with all its threads; also for a zombie that has not been reaped.

    Raises
    ------
    OSError
        There is no such process.
    """
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def allow(pid: int, seconds: float) -> None:
    """Let the kernel end a process (SIGXCPU) when it has used `seconds` more, rounded up to whole seconds.

    Raises
    ------
    OSError
        There is no such process, or it belongs to another user.
    """
    _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
    most = math.ceil(used(pid) + seconds)
    resource.prlimit(pid, resource.RLIMIT_CPU, (most if hard < 0 else min(most, hard), hard))
