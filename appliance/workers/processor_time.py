"""How much processor time another process has used, and a limit to it that the kernel keeps."""

from __future__ import annotations

import math
import resource
import time

_SCHEDULED = 2  # linux/posix-timers.h: the precise one of a process's three clocks


def used(pid: int) -> float:
    """Return the processor seconds of a process, of all its threads together; a zombie's count until it is reaped.

    Raises
    ------
    OSError
        There is no such process.
    """
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def allow(pid: int, seconds: float) -> None:
    """Have the kernel end a process (SIGXCPU) once it has used `seconds` more; it counts in whole seconds, rounded up.

    Raises
    ------
    OSError
        There is no such process, or it is another user's.
    """
    _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
    most = math.ceil(used(pid) + seconds)
    resource.prlimit(pid, resource.RLIMIT_CPU, (most if hard < 0 else min(most, hard), hard))
