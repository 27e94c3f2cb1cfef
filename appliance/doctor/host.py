"""The machine: whether its file events, its clock and its memory are what a daemon relies on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from lungstage.appliance.config.disks import file_system, is_networked
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.doctor import machine
from lungstage.appliance.doctor.finding import Finding, ok, problem, warning

_YEARS = range(2026, 2100)
_MEASURED_SECONDS, _TOLERATED_SECONDS = 0.2, 0.05
_OWN_MB = 256  # the daemon itself; 80 were measured
_LEAST_WORK_MB = 512  # of work_memory_mb


def watcher(settings: Settings) -> Iterator[Finding]:
    """Whether new files are noticed in the way that the inbox's file system allows."""
    kind, every = file_system(settings.inbox), f"it is looked at every {settings.scan_seconds:g} s"
    if settings.watch == "events" and is_networked(kind):
        yield warning(
            "watcher", f"The inbox lies on {kind}, which tells of no file that comes from another machine; {every}.",
            "Set watch to auto, or to poll.",
        )  # fmt: skip
    elif settings.watch == "poll" or is_networked(kind):
        yield ok("watcher", f"The inbox lies on {kind or 'what is not told'}; {every}.")
    else:
        yield ok("watcher", f"The inbox lies on {kind or 'what is not told'}; new files are told of, and {every}.")


def clock(_: Settings) -> Iterator[Finding]:
    """Whether reports would bear the right date and time."""
    now = datetime.now(UTC)
    if now.year not in _YEARS:
        yield problem("clock", f"It cannot be the year {now.year}.", "Set the clock: timedatectl set-time.")
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(_MEASURED_SECONDS)
    skew = (time.time() - wall) - (time.monotonic() - monotonic)
    if abs(skew) > _TOLERATED_SECONDS:
        yield warning(
            "clock", f"The time of day moved by {skew:+.2f} s while {_MEASURED_SECONDS} s passed.",
            "See what sets it: two time services, or a hypervisor.",
        )  # fmt: skip
    if not machine.time_zone_is_known(os.environ.get("TZ")):
        yield warning(
            "clock", "The time zone is not known, so that reports bear UTC as local time.",
            "Set TZ, for instance to Europe/Berlin, and install tzdata.",
        )  # fmt: skip
    kept = machine.clock_is_synchronised()
    local = f"It is {now.astimezone():%Y-%m-%d %H:%M %Z} here"
    if kept is False:
        yield warning(
            "clock", f"{local}, and no time service keeps the clock right.",
            "timedatectl set-ntp true, or chrony with the hospital's time server.",
        )  # fmt: skip
    else:
        yield ok("clock", f"{local}; {'a time service keeps it right' if kept else 'who keeps it is not told'}.")


def memory(settings: Settings) -> Iterator[Finding]:
    """Whether all processes fit at once, each at its limit: else the kernel ends one, and a study is tried again."""
    processes = settings.workers + 1  # one of them reads and plans
    limit = machine.memory_limit() // 1024**2
    needed = processes * settings.work_memory_mb + _OWN_MB
    told = f"{processes} processes of at most {settings.work_memory_mb} MB may take {needed} MB; there are {limit} MB"
    if needed <= limit:
        yield ok("memory", f"{told}.")
        return
    fits = (limit - _OWN_MB) // processes
    if fits >= _LEAST_WORK_MB:
        yield warning(
            "memory", f"{told}, so the kernel may end one before its own limit does.",
            f"Set work_memory_mb to {fits}, or fewer workers, or raise the limit.",
        )  # fmt: skip
    else:
        yield problem(
            "memory", f"{told}, too few for so many processes.",
            f"Set workers to {max((limit - _OWN_MB) // _LEAST_WORK_MB - 1, 1)} or less, or raise the limit.",
        )  # fmt: skip


def confinement(_: Settings) -> Iterator[Finding]:
    """Whether this machine can confine the processes that meet files; one is confined to see."""
    program = "from lungstage.appliance.workers.confinement import confine; print(*confine([]).gaps)"
    tried = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    gaps = tried.stdout.strip() if tried.returncode == 0 else "No process could be confined."
    if gaps:
        yield warning("confinement", gaps, "docs/reliability.md says what Linux and a container must allow for that.")
    else:
        yield ok("confinement", "Processes that meet files can write, connect and start nothing.")
