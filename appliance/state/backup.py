"""A backup of the state folder while the daemon is running: the ledger and the audit log.

It is a plain tar archive with a list of checksums, so lungstage is not needed to restore it. The next start makes the
rest of the state folder (lock, heartbeat, scratch) again. ``docs/maintenance.md`` describes how to restore.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lungstage.appliance.contract.errors import LungstageError, Unavailable
from lungstage.appliance.state.chain import snapshot
from lungstage.appliance.state.database import damaged, in_own_words

LEDGER = "ledger.sqlite"
CHECKSUMS = "SHA256SUMS"

_BUSY_MILLISECONDS = 30_000
_BLOCK = 1024 * 1024  # bytes

Part = tuple[str, Path, int]
"""A member of the archive: its name, its path, and how many of its bytes belong to the backup."""


class BackupError(LungstageError):
    """The backup would overwrite a file, or would be inside the state folder."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup: the archive, its members with their sizes in bytes, and the number of jobs in the ledger."""

    path: Path
    members: tuple[tuple[str, int], ...]
    jobs: int


def back_up(state: Path, to: Path) -> Backup:
    """Write a complete backup of a state folder, or nothing.

    First SQLite copies the ledger in its state at one time, and the copy is checked. Then the audit log is copied.
    Every change is written to the audit log before the ledger, so the log contains at least the ledger's changes.

    Parameters
    ----------
    state
        The state folder; its daemon may be running.
    to
        The archive. It contains paths and UIDs of studies, so only its owner may read it.

    Raises
    ------
    BackupError
        `to` exists already, or would be inside the state folder.
    Unavailable
        There is no ledger, it cannot be read, or it is damaged.
    OSError
        `to` cannot be written.
    """
    if to.resolve().is_relative_to(state.resolve()):
        raise BackupError(
            "The backup must not be inside the state folder: it would be lost with it. Choose another place with --to."
        )
    _prove_free(to)
    # The archive's folder needs room for it anyway; a container's /tmp is small.
    with tempfile.TemporaryDirectory(prefix=".lungstage-backup-", dir=to.parent) as scratch:
        unfinished = Path(scratch) / to.name
        copy, jobs = _copy_ledger(state, Path(scratch))
        parts = [(LEDGER, copy, copy.stat().st_size), *((path.name, path, size) for _, path, size in snapshot(state))]
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            _write(parts, file)
            file.flush()
            os.fsync(file.fileno())
        _prove_free(to)
        unfinished.rename(to)
    return Backup(to, tuple((name, size) for name, _, size in parts), jobs)


def _prove_free(to: Path) -> None:
    if to.exists():
        raise BackupError(f"The file {to} exists already. A backup overwrites no file: choose another name with --to.")


def _write(parts: Sequence[Part], file: BinaryIO) -> None:
    sums = []
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, path, size in parts:
            with path.open("rb") as source:
                sums.append(f"{_sha256(source, size)}  {name}\n")
                source.seek(0)
                archive.addfile(_member(name, size), source)
        text = "".join(sums).encode()
        archive.addfile(_member(CHECKSUMS, len(text)), io.BytesIO(text))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    return member


def _sha256(source: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size and (block := source.read(min(size, _BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def _copy_ledger(state: Path, folder: Path) -> tuple[Path, int]:
    """Copy the ledger in its state at one time, without migration; return the copy's path and the number of jobs."""
    ledger, copy = state / LEDGER, folder / LEDGER
    if not ledger.is_file():
        raise Unavailable(f"There is no ledger in {state}. Give the daemon's state folder with --state.")
    with (
        in_own_words(ledger),
        contextlib.closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=rw", uri=True)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        source.backup(target)  # all pages in one step: a state at one time, and the daemon does not have to wait
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without a second file for the log
        sound = target.execute("PRAGMA integrity_check").fetchone()[0]
        jobs = target.execute("SELECT count(*) FROM jobs").fetchone()[0]
    if sound != "ok":
        raise damaged(ledger)
    return copy, int(jobs)
