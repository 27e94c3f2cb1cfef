"""A clock that nobody sets, and which start of the machine it counts from."""

from __future__ import annotations

import time
from pathlib import Path


def boot_id() -> str:
    """Return the name of this start of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def boot_seconds() -> float:
    """Return the seconds since the machine was started, sleep included; the same for every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
