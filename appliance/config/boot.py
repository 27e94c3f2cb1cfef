"""A clock that nobody can set, and the name of the machine's boot that it counts from."""

from __future__ import annotations

import time
from pathlib import Path


def boot_id() -> str:
    """Return the identifier of this boot of the machine; empty when the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def boot_seconds() -> float:
    """Return the seconds since the machine was booted, suspend included; the same for every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
