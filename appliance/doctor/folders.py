"""The folders: whether they are there, whether this user may do in them what a daemon must, and how full they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lungstage.appliance.config.disks import file_system, free_mb, is_networked, place_of, prove_writable
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.daemon.folder_guard import remembered
from lungstage.appliance.doctor.finding import Finding, ok, problem, warning

_SAMPLE = 1000  # subfolders of the inbox that are looked at
_LEAST_FILES = 1000


def user(_: Settings) -> Iterator[Finding]:
    """Whether what is said of permissions is said for the right user."""
    if os.geteuid() == 0:
        yield warning(
            "user", "This runs as root, whom no permission stops.",
            "Run it as the daemon's own user, for instance with sudo -u lungstage.",
        )  # fmt: skip
    else:
        yield ok("user", f"Permissions are looked at for user {os.geteuid()}, group {os.getegid()}.")


def inbox(settings: Settings) -> Iterator[Finding]:
    """Whether studies can be found and read."""
    folder = settings.inbox
    fault = _fault("inbox", folder, os.R_OK | os.X_OK, "read and search") or _unmounted("inbox", folder, settings)
    if fault is not None:
        yield fault
        return
    with os.scandir(folder) as entries:
        inner = [entry.path for entry in islice(entries, _SAMPLE) if entry.is_dir(follow_symlinks=False)]
    closed = sum(not os.access(path, os.R_OK | os.X_OK) for path in inner)
    if closed:
        yield warning(
            "inbox", f"{folder} can be read, but {closed} of the folders in it cannot.",
            "Have the sender's umask or a default ACL let the daemon's user read what it makes.",
        )  # fmt: skip
    else:
        yield ok("inbox", f"{folder} can be read.")


def outbox(settings: Settings) -> Iterator[Finding]:
    """Whether reports can be written."""
    fault = _fault("outbox", settings.outbox, os.R_OK | os.W_OK | os.X_OK, "read and write")
    yield fault or _unmounted("outbox", settings.outbox, settings) or _probe("outbox", settings.outbox)


def state(settings: Settings) -> Iterator[Finding]:
    """Whether the ledger is safe: on a local disk, writable, and closed to others."""
    folder = settings.state
    if is_networked(kind := file_system(folder)):
        yield problem(
            "state", f"{folder} lies on {kind}, which is no local disk, where a ledger can be damaged.",
            "Set state to a folder on a local disk.",
        )  # fmt: skip
        return
    if not folder.exists() and os.access(_nearest(folder), os.W_OK | os.X_OK):
        yield ok("state", f"{folder} is not there yet; a daemon makes it.")
        return
    fault = _fault("state", folder, os.R_OK | os.W_OK | os.X_OK, "read and write")
    yield fault or _probe("state", folder)
    if folder.is_dir() and folder.stat().st_mode & 0o077:
        yield warning(
            "state", f"{folder} is open to others, and holds what the files say of patients.",
            f"chmod 700 {folder}",
        )  # fmt: skip


def space(settings: Settings) -> Iterator[Finding]:
    """Whether there is room for reports and ledger."""
    for name in ("outbox", "state"):
        there = _nearest(getattr(settings, name))
        free, status = free_mb(there), os.statvfs(there)
        if free is None or free < settings.min_free_mb:
            yield problem(
                "space", f"The disk of the {name} has {free} MB left, less than min_free_mb = {settings.min_free_mb}.",
                "Make room; studies wait while the disk is full, and none is lost.",
            )  # fmt: skip
        elif status.f_files and status.f_favail < _LEAST_FILES:
            yield problem(
                "space", f"The disk of the {name} has room for {status.f_favail} more files only.",
                "Remove files, or make a file system with more inodes.",
            )  # fmt: skip
        else:
            yield ok("space", f"The disk of the {name} has {free} MB left.")


def _fault(check: str, folder: Path, access: int, words: str) -> Finding | None:
    """Say what is wrong with a folder, seen from outside; None where nothing is."""
    if not folder.exists():
        parent = _nearest(folder)
        if check == "inbox":
            return problem(
                check, f"{folder} is not there.",
                "Correct the path, mount it, or make it with the permissions that its senders need.",
            )  # fmt: skip
        if os.access(parent, os.W_OK | os.X_OK):
            remedy = "Make it with the permissions that its receivers need, or let the daemon do so."
            return warning(check, f"{folder} is not there yet.", remedy)
        return problem(
            check, f"{folder} is not there, and this user may not make it in {parent}.",
            "Make it, and give it to the daemon's user.",
        )  # fmt: skip
    if not folder.is_dir():
        return problem(check, f"{folder} is no folder.", f"Set {check} to a folder.")
    if not os.access(folder, access):
        return problem(
            check, f"This user may not {words} in {folder}.",
            "Give it to the daemon's user or group: chown, chmod, or setfacl.",
        )  # fmt: skip
    return None


def _unmounted(check: str, folder: Path, settings: Settings) -> Finding | None:
    """Say where a share or disk that a daemon knew there is not mounted."""
    known = remembered(check, folder, settings.state)
    if known is None or not known.is_unmounted_at(place_of(folder)):
        return None
    return problem(
        check, f"{folder} was mounted ({known.kind}) when a daemon last saw it, and now is not.",
        f"Mount it; where another folder is meant, remove {check}-place.json from the state folder.",
    )  # fmt: skip


def _probe(check: str, folder: Path) -> Finding:
    try:
        prove_writable(folder)
    except OSError as error:
        return problem(
            check, f"No file can be written in {folder}: {error.strerror}.",
            "Look at the mount (read-only?), the quota and the disk.",
        )  # fmt: skip
    return ok(check, f"{folder} can be written.")


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
