"""Facts about the machine and its folders, from the system; :mod:`doctor` checks them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
from pathlib import Path

_STA_UNSYNC = 0x0040  # <linux/timex.h>


def memory_limit(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory in bytes for lungstage's processes: the least of the machine's and its cgroups' (v2)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                own = root / line.removeprefix("0::/")
                for folder in (own, *own.parents):
                    if folder.is_relative_to(root):
                        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                            limits.append(int((folder / "memory.max").read_text(encoding="utf-8")))
    return min(limits)


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2), up to the last field that is read here, and space for the rest."""

    _fields_ = [
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_char * 256),
    ]  # fmt: skip


def clock_is_synchronised() -> bool | None:
    """Whether NTP or another service keeps the kernel's clock correct (adjtimex(2)); None if that is not known."""
    state = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))  # without modes it only reads
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else not state.status & _STA_UNSYNC


def time_zone_is_known(
    zone: str | None, default: Path = Path("/etc/localtime"), zones: Path = Path("/usr/share/zoneinfo")
) -> bool:
    """Whether the C library knows the local time zone. If not, it uses UTC without a message.

    Parameters
    ----------
    zone
        Value of the environment variable ``TZ``.
    default
        The file that is used if TZ is not set.
    zones
        Folder of the time zones.
    """
    if zone is None:
        return default.exists()
    name = zone.removeprefix(":")
    is_posix = re.match(r"([A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?\d", name) is not None  # CET-1CEST
    return not name or is_posix or (zones / name).is_file()


def is_locked(lock: Path) -> bool | None:
    """Whether a daemon has locked a state folder; None if this user may not check."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
