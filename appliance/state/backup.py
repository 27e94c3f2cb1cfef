"""A backup of the state folder, taken while the daemon works: the ledger, and the audit log beside it.

It is a plain tar archive with a list of checksums in it, so that restoring it takes nothing of ours. The rest of the
state folder (lock, heartbeat, scratch) is made anew by the next start. How to restore is in ``docs/maintenance.md``.
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
"""A member of the archive: its name, where it lies, and how many of its bytes belong to the backup."""


class BackupError(LungstageError):
    """The backup that was asked for would overwrite something."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was kept: the archive, its members with their sizes in bytes, and how many jobs the ledger holds."""

    path: Path
    members: tuple[tuple[str, int], ...]
    jobs: int


def back_up(state: Path, to: Path) -> Backup:
    """Write a backup of a state folder, whole or not at all.

    The ledger is copied first, at one moment, by SQLite itself, and proven to be sound; then the audit log, which is
    told of everything before the ledger is and so knows at least as much.

    Parameters
    ----------
    state
        The state folder; its daemon may be at work.
    to
        The archive; it holds paths and UIDs of studies, so only its owner may read it.

    Raises
    ------
    BackupError
        `to` is there already, or would lie in the state folder.
    Unavailable
        There is no ledger, it cannot be read, or it is damaged.
    OSError
        `to` cannot be written.
    """
    if to.resolve().is_relative_to(state.resolve()):
        raise BackupError("A backup within the state folder would be lost with it.")
    _prove_free(to)
    # Beside the archive, where there must be room for it anyway; a container's /tmp is small.
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
        raise BackupError(f"{to} is there already; a backup never takes another's place.")


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
    """Copy the ledger as it is at one moment, its schema as it is; return the copy's path and the number of jobs."""
    ledger, copy = state / LEDGER, folder / LEDGER
    if not ledger.is_file():
        raise Unavailable(f"There is no ledger in {state}; --state names the state folder of the daemon.")
    with (
        in_own_words(ledger),
        contextlib.closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=rw", uri=True)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        source.backup(target)  # all pages in one step: one moment, and the daemon need not wait
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        sound = target.execute("PRAGMA integrity_check").fetchone()[0]
        jobs = target.execute("SELECT count(*) FROM jobs").fetchone()[0]
    if sound != "ok":
        raise damaged(ledger)
    return copy, int(jobs)
