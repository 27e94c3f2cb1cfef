"""Checks of the folders: whether they exist, have the right permissions, and have enough free space."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lungstage.appliance.config.disks import file_system, free_mb, is_networked, place_of, prove_writable
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.daemon.folder_guard import remembered
from lungstage.appliance.doctor.finding import Finding, ok, problem, warning

_SAMPLE = 1000  # number of the inbox's subfolders that are checked
_LEAST_FILES = 1000


def user(_: Settings) -> Iterator[Finding]:
    """Check that the command runs as the right user, because it checks the permissions of this user."""
    if os.geteuid() == 0:
        yield warning(
            "user", "This runs as root, so the permissions of the daemon's user are not checked.",
            "Run it as the daemon's user, for example with sudo -u lungstage.",
        )  # fmt: skip
    else:
        yield ok("user", f"Permissions are checked for user {os.geteuid()}, group {os.getegid()}.")


def inbox(settings: Settings) -> Iterator[Finding]:
    """Check that studies can be found and read."""
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
            "Set the sender's umask or a default ACL, so the daemon's user can read new folders.",
        )  # fmt: skip
    else:
        yield ok("inbox", f"{folder} can be read.")


def outbox(settings: Settings) -> Iterator[Finding]:
    """Check that reports can be written."""
    fault = _fault("outbox", settings.outbox, os.R_OK | os.W_OK | os.X_OK, "read and write")
    yield fault or _unmounted("outbox", settings.outbox, settings) or _probe("outbox", settings.outbox)


def state(settings: Settings) -> Iterator[Finding]:
    """Check that the ledger is safe: on a local disk, writable, and not readable by other users."""
    folder = settings.state
    if is_networked(kind := file_system(folder)):
        yield problem(
            "state", f"{folder} is on {kind}, which is not a local disk; a ledger can be damaged there.",
            "Set state to a folder on a local disk.",
        )  # fmt: skip
        return
    if not folder.exists() and os.access(_nearest(folder), os.W_OK | os.X_OK):
        yield ok("state", f"{folder} does not exist yet; the daemon makes it.")
        return
    fault = _fault("state", folder, os.R_OK | os.W_OK | os.X_OK, "read and write")
    yield fault or _probe("state", folder)
    if folder.is_dir() and folder.stat().st_mode & 0o077:
        yield warning(
            "state", f"{folder} contains data of patients, and other users can open it.",
            f"chmod 700 {folder}",
        )  # fmt: skip


def space(settings: Settings) -> Iterator[Finding]:
    """Check that there is enough free space for reports and ledger."""
    for name in ("outbox", "state"):
        there = _nearest(getattr(settings, name))
        free, status = free_mb(there), os.statvfs(there)
        if free is None or free < settings.min_free_mb:
            yield problem(
                "space", f"The disk of the {name} has {free} MB left, less than min_free_mb = {settings.min_free_mb}.",
                "Free some space. While the disk is full, studies wait; none is lost.",
            )  # fmt: skip
        elif status.f_files and status.f_favail < _LEAST_FILES:
            yield problem(
                "space", f"The disk of the {name} has room for {status.f_favail} more files only.",
                "Remove files, or make a file system with more inodes.",
            )  # fmt: skip
        else:
            yield ok("space", f"The disk of the {name} has {free} MB left.")


def _fault(check: str, folder: Path, access: int, words: str) -> Finding | None:
    """Return what is wrong with existence and permissions of a folder; None if nothing is."""
    if not folder.exists():
        parent = _nearest(folder)
        if check == "inbox":
            return problem(
                check, f"{folder} does not exist.",
                "Correct the path, mount the folder, or make it with write permission for its senders.",
            )  # fmt: skip
        if os.access(parent, os.W_OK | os.X_OK):
            remedy = "Make it with read permission for its receivers, or let the daemon make it."
            return warning(check, f"{folder} does not exist yet.", remedy)
        return problem(
            check, f"{folder} does not exist, and this user may not make it in {parent}.",
            "Make it, and make the daemon's user its owner.",
        )  # fmt: skip
    if not folder.is_dir():
        return problem(check, f"{folder} is not a folder.", f"Set {check} to a folder.")
    if not os.access(folder, access):
        return problem(
            check, f"This user may not {words} in {folder}.",
            "Give the daemon's user or group access: chown, chmod, or setfacl.",
        )  # fmt: skip
    return None


def _unmounted(check: str, folder: Path, settings: Settings) -> Finding | None:
    """Return a finding if a share or disk that the daemon has used there is not mounted now."""
    known = remembered(check, folder, settings.state)
    if known is None or not known.is_unmounted_at(place_of(folder)):
        return None
    return problem(
        check, f"{folder} was mounted ({known.kind}) when the daemon last used it, and is not mounted now.",
        f"Mount it again. If another folder is correct, remove {check}-place.json from the state folder.",
    )  # fmt: skip


def _probe(check: str, folder: Path) -> Finding:
    try:
        prove_writable(folder)
    except OSError as error:
        return problem(
            check, f"No file can be written in {folder}: {error.strerror}.",
            "Check the mount (read-only?), the quota and the disk.",
        )  # fmt: skip
    return ok(check, f"{folder} can be written.")


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
