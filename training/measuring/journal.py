"""What has been measured so far: one JSON line a study, so that a run that is killed can be taken up where it ended.

Each line bears the study as its list names it, a digest of how it was measured, and a fingerprint of its files. A line
whose study, spec or software has changed since says nothing any more, so a journal may outlive its run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lungstage.training.long_runs.journal import Lines, open_lines

Key = tuple[str, str, str]
"""Patient, path and region as the list has them; of NIfTI image, and mask with its label."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a study.

    Attributes
    ----------
    files
        Fingerprint of its files, taken before they were read.
    code, message
        Why there are no features; empty where there are.
    features
        Values in the spec's order, None for one that could not be computed; None where the study was not measured.
    warnings
        What the measurement warned of.
    """

    files: str
    code: str = ""
    message: str = ""
    features: tuple[float | None, ...] | None = None
    warnings: tuple[str, ...] = ()


class Journal:
    """The entries that hold for one way of measuring; see :func:`open_journal`."""

    def __init__(self, lines: Lines, method: str) -> None:
        self._lines, self._method = lines, method
        self._entries: dict[Key, Entry] = {}
        for line in lines.found:
            with suppress(ValueError, KeyError, TypeError):
                self._recall(line)

    def _recall(self, line: dict[str, Any]) -> None:
        patient, path, roi = line["study"]
        if line["method"] == self._method:
            features = line["features"]
            self._entries[patient, path, roi] = Entry(
                line["files"],
                line["code"],
                line["message"],
                None if features is None else tuple(features),
                tuple(line["warnings"]),
            )

    def get(self, key: Key) -> Entry | None:
        """Return the newest entry of a study, if there is one."""
        return self._entries.get(key)

    def add(self, key: Key, entry: Entry) -> None:
        """Write an entry."""
        self._lines.add({"study": key, "method": self._method} | asdict(entry))


@contextmanager
def open_journal(path: Path, method: str, *, fresh: bool) -> Iterator[Journal]:
    """Open a journal of measurements.

    Parameters
    ----------
    path, fresh
        See :func:`training.long_runs.journal.open_lines`, also for what it raises.
    method
        Digest of how is measured now; lines of another one are left alone.
    """
    with open_lines(path, fresh=fresh) as lines:
        yield Journal(lines, method)
