"""Reading of the audit log: its entries, and the check of its chain of hashes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.state.audit import GENESIS, LOCK, RECOVERED, Entry, numbered, unseal
from lungstage.appliance.state.job import Job, JobState

_NO_ENTRY = "this line is not an entry, or it was changed after it was written"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log: its file, its number, its bytes, and whether it ends with a line break."""

    path: Path
    number: int
    content: bytes
    is_ended: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """The first fault of the chain: file, line number, and the reason as a sentence."""

    file: str
    line: int
    why: str


@dataclass(slots=True)
class Verdict:
    """The result of the check of the chain.

    Attributes
    ----------
    files, entries
        Number of files and of entries.
    first, last
        Numbers of the first and of the last entry; earlier entries may be in an archive.
    sha256
        Hash of the last entry. If you note it elsewhere, a later check shows that no entry up to it was changed.
    recovered
        For each incomplete line that a crash left: number of the `recovered` entry after it, and its bytes.
    torn
        Bytes of an incomplete last line without a `recovered` entry; the next start writes one.
    jobs
        Number of delivered jobs of the ledger that were checked; None without a ledger.
    fault
        The first fault; None if the chain is complete.
    """

    files: int = 0
    entries: int = 0
    first: int = 0
    last: int = 0
    sha256: str = GENESIS
    recovered: list[tuple[int, int]] = field(default_factory=list)
    torn: int = 0
    jobs: int | None = None
    fault: Fault | None = None


def snapshot(folder: Path) -> tuple[tuple[int, Path, int], ...]:
    """Return the log's files with their sizes at a time when no process writes."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):  # a copy of the log; no process writes to it
            fcntl.flock(stack.enter_context((folder / LOCK).open("rb")), fcntl.LOCK_SH)
        return tuple((number, path, path.stat().st_size) for number, path in numbered(folder))


def _lines(path: Path, size: int) -> Iterator[Line]:
    """Give the lines within the first `size` bytes of a file."""
    left, number = size, 0
    with path.open("rb") as file:
        while left > 0 and (content := file.readline(left)):
            left -= len(content)
            number += 1
            yield Line(path, number, content.removesuffix(b"\n"), content.endswith(b"\n"))


def _files_of(folder: Path) -> tuple[tuple[int, Path, int], ...]:
    try:
        return snapshot(folder)
    except FileNotFoundError as error:
        raise Unavailable(f"There is no state folder {folder}. Give the daemon's state folder with --state.") from error


def entries(folder: Path, having: str = "") -> Iterator[Entry]:
    """Give every entry whose line contains the text `having`, oldest first, also if the chain has a fault.

    Raises
    ------
    Unavailable
        There is no state folder.
    """
    files = _files_of(folder)
    needle = having.encode("ascii")
    for _, path, size in files:
        for line in _lines(path, size):
            if needle in line.content and (entry := unseal(line.content)):
                yield entry


Place = tuple[int, int]
"""A position in the log: number of the file, bytes of it."""


def entries_from(folder: Path, place: Place | None) -> Iterator[tuple[Entry | None, Place]]:
    """Give the entries after a position, each with the position after it; without a position, only the log's end.

    An incomplete line is left for the next call. If the log has become shorter, for example after a restore, reading
    starts at its end.

    Raises
    ------
    Unavailable
        There is no state folder.
    """
    files = _files_of(folder)
    end = (files[-1][0], files[-1][2]) if files else (1, 0)
    if place is None or place > end:
        yield None, end
        return
    for number, path, size in files:
        at = place[1] if number == place[0] else 0
        if number < place[0] or at >= size:
            continue
        with path.open("rb") as file:
            file.seek(at)
            while at < size and (line := file.readline(size - at)).endswith(b"\n"):
                at += len(line)
                yield unseal(line.removesuffix(b"\n")), (number, at)


def verify(folder: Path, jobs: Iterable[Job] | None = None, *, expected: str | None = None) -> Verdict:
    """Check the chain from the first available entry to the last.

    Parameters
    ----------
    folder
        The state folder, or another folder with the log's files.
    jobs
        The ledger's jobs, read before the log. Each job delivered since the first entry must have its entry.
    expected
        Hash of an entry that must be in the log.

    Raises
    ------
    Unavailable
        There is no audit log.
    """
    files = snapshot(folder) if folder.is_dir() else ()
    if not files:
        raise Unavailable(f"There is no audit log in {folder}. Give the daemon's state folder with --state.")
    walk = _Walk(expected)
    for (number, path, size), before in zip(files, (None, *files), strict=False):
        if before is not None and number != before[0] + 1:
            walk.stop(Line(path, 1, b""), f"the file before it is {before[1].name}: a file between them is missing")
        for line in _lines(path, size):
            if walk.verdict.fault is not None:
                break
            walk.on(line)
        walk.verdict.files += 1
    walk.end(jobs)
    return walk.verdict


class _Walk:
    """The state of a check of the chain."""

    def __init__(self, expected: str | None) -> None:
        self.verdict = Verdict()
        self._expected = expected
        self._torn: list[Line] = []
        self._told: set[tuple[int, str]] = set()  # delivered according to the log: job, UID of the report
        self._since: datetime | None = None

    def stop(self, line: Line, why: str) -> None:
        if self.verdict.fault is None:
            self.verdict.fault = Fault(line.path.name, line.number, f"{why[0].upper()}{why[1:]}.")

    def on(self, line: Line) -> None:
        entry = unseal(line.content)
        if entry is None:
            self._torn.append(line)
        elif why := self._misfit(entry):
            self.stop(self._torn[0] if self._torn else line, why)
        else:
            self._torn = []
            self._take(entry)

    def _misfit(self, entry: Entry) -> str | None:
        """Return why an entry cannot follow the lines before it; None if it can."""
        verdict = self.verdict
        if (self._torn or entry.event == RECOVERED) and not self._closes_over(entry):
            return _NO_ENTRY if self._torn else "the incomplete line that this entry names is missing"
        if not verdict.entries:
            if entry.seq == 1 and entry.previous != GENESIS:
                return "the first entry names an entry before it, and that entry is missing"
        elif entry.previous != verdict.sha256 or entry.seq != verdict.last + 1:
            return f"entry {entry.seq} does not follow entry {verdict.last}: entries were changed, removed or added"
        return None

    def _closes_over(self, entry: Entry) -> bool:
        """Whether an entry names the bytes of the incomplete lines before it, with or without a last line break."""
        torn = b"".join(line.content + b"\n" for line in self._torn)
        ways = {hashlib.sha256(bytes_).hexdigest(): len(bytes_) for bytes_ in (torn, torn.removesuffix(b"\n"))}
        digest = str(entry.fields.get("torn_sha256"))
        return entry.event == RECOVERED and bool(torn) and ways.get(digest) == entry.fields.get("torn_bytes")

    def _take(self, entry: Entry) -> None:
        verdict = self.verdict
        if not verdict.entries:
            verdict.first, self._since = entry.seq, datetime.fromisoformat(entry.time)
        verdict.entries += 1
        verdict.last, verdict.sha256 = entry.seq, entry.sha256
        if entry.event == RECOVERED:
            verdict.recovered.append((entry.seq, entry.fields["torn_bytes"]))
        if self._expected == entry.sha256:
            self._expected = None
        if entry.event == "job_delivered":
            self._told.add((entry.fields.get("job", 0), entry.fields.get("sr", "")))

    def end(self, jobs: Iterable[Job] | None) -> None:
        verdict = self.verdict
        if verdict.fault is not None:
            return
        if self._torn and self._torn[-1].is_ended:  # a crash would leave a line without an end
            self.stop(self._torn[0], _NO_ENTRY)
        verdict.torn = sum(len(line.content) for line in self._torn)
        last = Line(Path("audit"), 0, b"")
        if jobs is not None and self._since is not None:
            delivered = [job for job in jobs if job.state is JobState.DELIVERED and job.updated_at >= self._since]
            verdict.jobs = len(delivered)
            for job in delivered:
                if (job.id, job.sr_sop_instance_uid) not in self._told:
                    self.stop(last, f"job {job.id} is delivered in the ledger, but the log has no entry about that")
        if self._expected is not None:
            self.stop(last, f"no entry has the expected hash {self._expected}")
