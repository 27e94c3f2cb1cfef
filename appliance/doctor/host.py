"""Checks of the machine: file events, clock, memory, and confinement of processes."""

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
_OWN_MB = 256  # for the daemon itself; 80 MB were measured
_LEAST_WORK_MB = 512  # of work_memory_mb


def watcher(settings: Settings) -> Iterator[Finding]:
    """Check that the setting watch fits the inbox's file system."""
    kind, every = file_system(settings.inbox), f"it is checked every {settings.scan_seconds:g} s"
    if settings.watch == "events" and is_networked(kind):
        yield warning(
            "watcher", f"The inbox is on {kind}, which gives no event for files from another machine; {every}.",
            "Set watch to auto, or to poll.",
        )  # fmt: skip
    elif settings.watch == "poll" or is_networked(kind):
        yield ok("watcher", f"The inbox is on {kind or 'an unknown file system'}; {every}.")
    else:
        yield ok(
            "watcher", f"The inbox is on {kind or 'an unknown file system'}; new files give an event, and {every}."
        )


def clock(_: Settings) -> Iterator[Finding]:
    """Check that reports would contain the right date and time."""
    now = datetime.now(UTC)
    if now.year not in _YEARS:
        yield problem(
            "clock", f"The clock of this machine shows the year {now.year}.", "Set the clock: timedatectl set-time."
        )
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(_MEASURED_SECONDS)
    skew = (time.time() - wall) - (time.monotonic() - monotonic)
    if abs(skew) > _TOLERATED_SECONDS:
        yield warning(
            "clock", f"The clock jumped by {skew:+.2f} s within {_MEASURED_SECONDS} s.",
            "Find out what sets it, for example two time services or a hypervisor.",
        )  # fmt: skip
    if not machine.time_zone_is_known(os.environ.get("TZ")):
        yield warning(
            "clock", "The time zone is not known, so reports contain UTC as local time.",
            "Set TZ, for example to Europe/Berlin, and install tzdata.",
        )  # fmt: skip
    kept = machine.clock_is_synchronised()
    local = f"It is {now.astimezone():%Y-%m-%d %H:%M %Z} here"
    if kept is False:
        yield warning(
            "clock", f"{local}, and no time service keeps the clock correct.",
            "Start one: timedatectl set-ntp true, or chrony with the hospital's time server.",
        )  # fmt: skip
    else:
        yield ok(
            "clock",
            f"{local}; {'a time service keeps the clock correct' if kept else 'who sets the clock is not known'}.",
        )


def memory(settings: Settings) -> Iterator[Finding]:
    """Check that all processes fit into memory at their limits. Otherwise the kernel may kill one during a study."""
    processes = settings.workers + 1  # one process reads files and plans
    limit = machine.memory_limit() // 1024**2
    needed = processes * settings.work_memory_mb + _OWN_MB
    told = f"{processes} processes of up to {settings.work_memory_mb} MB can need {needed} MB; there are {limit} MB"
    if needed <= limit:
        yield ok("memory", f"{told}.")
        return
    fits = (limit - _OWN_MB) // processes
    if fits >= _LEAST_WORK_MB:
        yield warning(
            "memory", f"{told}. The kernel may stop a process before it reaches its limit.",
            f"Set work_memory_mb to {fits}, set fewer workers, or raise the memory limit.",
        )  # fmt: skip
    else:
        yield problem(
            "memory", f"{told}, which is not enough.",
            f"Set workers to {max((limit - _OWN_MB) // _LEAST_WORK_MB - 1, 1)} or less, or raise the memory limit.",
        )  # fmt: skip


def confinement(_: Settings) -> Iterator[Finding]:
    """Check that this machine can confine the processes that read files, by confining one."""
    program = "from lungstage.appliance.workers.confinement import confine; print(*confine([]).gaps)"
    tried = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    gaps = tried.stdout.strip() if tried.returncode == 0 else "No process could be confined."
    if gaps:
        yield warning("confinement", gaps, "docs/reliability.md lists what Linux and a container must allow.")
    else:
        yield ok("confinement", "Processes that read files cannot write files, open connections or start programs.")
