"""Journal of measurements: one JSON line per study, so that an interrupted run can continue.

Each line contains the study as in the list, a digest of the method, and a fingerprint of its files. A line is ignored
if the study, the extraction spec or the software has changed since. So a journal can stay after its run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lungstage.training.long_runs.journal import Lines, open_lines

Key = tuple[str, str, str]
"""Patient, path and region as in the list; for NIfTI: patient, image, and mask with label."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The result of a study.

    Attributes
    ----------
    files
        Fingerprint of its files, taken before they were read.
    code, message
        Why there are no features; empty if there are.
    features
        Values in the spec's order, None for one that could not be computed; None if the study was not measured.
    warnings
        Warnings of the measurement.
    """

    files: str
    code: str = ""
    message: str = ""
    features: tuple[float | None, ...] | None = None
    warnings: tuple[str, ...] = ()


class Journal:
    """The entries of one method; see :func:`open_journal`."""

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
        """Return the newest entry of a study; None without one."""
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
        See :func:`training.long_runs.journal.open_lines`, also for the errors.
    method
        Digest of the current method; lines of other methods are ignored.
    """
    with open_lines(path, fresh=fresh) as lines:
        yield Journal(lines, method)
