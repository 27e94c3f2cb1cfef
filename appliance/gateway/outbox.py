"""The outbox for the gateway: each new document is read once, and queued for its destinations."""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset

from lungstage.appliance.config.logs import logger
from lungstage.appliance.config.text import path_hash
from lungstage.appliance.gateway.contexts import SENT
from lungstage.appliance.gateway.head import is_uid
from lungstage.appliance.gateway.queue import Document, Queue
from lungstage.appliance.gateway.settings import Route

_NAME: Final = re.compile(r"(SR|SEG|PDF|SC)-([0-9.]{1,64})\.dcm")
_LONGEST: Final = 2**28  # bytes; a SEG of 400 slices has a sixteenth of this
_SCHEME: Final = "99LUNGSTAGE"
_LOOKS: Final = 4  # at a folder with an unchanged date, because a date may not change for some milliseconds


class UnreadableError(Exception):
    """A file in the outbox is not a document that can be sent."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A document, and the data that decide on its destinations."""

    document: Document
    report: str | None  # UID of the SR that it belongs to
    refers_to: frozenset[str]  # for an SR: the objects that it refers to
    outcome: tuple[str, ...]  # for an SR: code values and meanings of its answer


class Outbox:
    """One outbox.

    Parameters
    ----------
    folder
        Folder of the outbox.
    routes
        Routes of the documents.
    queue
        Queue of the deliveries.
    """

    def __init__(self, folder: Path, routes: Sequence[Route], queue: Queue) -> None:
        self._folder, self._routes, self._queue = folder, routes, queue
        self._known = set(queue.known())
        self._outcomes: dict[str, tuple[str, ...]] = {}  # by UID of a report, and of the SEGs that it refers to
        self._by_outcome = any(route.when.outcome for route in routes)
        self._waiting: dict[str, _Seen] = {}
        self._stamp, self._looks = 0, 0

    def look(self) -> int:
        """Queue the documents that are new since the last look; return their number.

        Raises
        ------
        OSError
            The outbox cannot be listed.
        Unavailable
            The queue cannot be used.
        """
        stamp = self._folder.stat().st_mtime_ns
        self._looks = self._looks + 1 if stamp == self._stamp else 0
        self._stamp = stamp
        if self._looks > _LOOKS and not self._waiting:
            return 0
        new = self._new()
        if any(name.startswith("SR-") for name in new):
            new = self._new()  # a report's SEG is written before the report, but maybe after the first listing
        count = 0
        for name in sorted(new, key=lambda name: (not name.startswith("SR-"), name)):
            if (seen := self._read(name)) is not None:
                self._waiting[name] = seen
        for name, seen in sorted(self._waiting.items(), key=lambda item: (item[1].document.kind != "seg", item[0])):
            destinations = self._destinations(seen)
            if destinations is not None:
                self._queue.put(seen.document, destinations)
                self._known.add(name)
                del self._waiting[name]
                count += 1
        return count

    def _new(self) -> list[str]:
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
        return [name for name in names if name not in self._known and name not in self._waiting]

    def _read(self, name: str) -> _Seen | None:
        path = self._folder / name
        try:
            seen = _look_at(path)
        except FileNotFoundError:
            return None
        except UnreadableError:
            self._known.add(name)  # the next start of the gateway reads it again
            logger.warning("document_unreadable", extra={"file": path_hash(str(path))})
            return None
        if seen.document.kind == "sr" and self._by_outcome:
            for uid in (seen.document.sop_instance_uid, *seen.refers_to):
                self._outcomes[uid] = seen.outcome
        return seen

    def _destinations(self, seen: _Seen) -> list[str] | None:
        """Return the destinations of a document; None while they are unknown because its report is missing."""
        document = seen.document
        routes = [route for route in self._routes if document.kind in route.what]
        outcome: tuple[str, ...] | None = ()
        if any(route.when.outcome for route in routes):
            outcome = self._outcome_of(seen)
            if outcome is None:
                return None
        senders = None
        found = []
        for route in routes:
            if route.when.received_from:
                senders = self._queue.senders(document.study_instance_uid) if senders is None else senders
                if not senders.intersection(route.when.received_from):
                    continue
            if route.when.outcome and not _fits(route.when.outcome, outcome or ()):
                continue
            found.append(route.to)
        return list(dict.fromkeys(found))

    def _outcome_of(self, seen: _Seen) -> tuple[str, ...] | None:
        document = seen.document
        if document.kind == "sr":
            return seen.outcome
        if document.kind in ("pdf", "sc") and seen.report is None:
            return ("refused",)  # a page about a refusal, without a report
        return self._outcomes.get(seen.report or document.sop_instance_uid)


def _fits(wanted: Sequence[str], outcome: Sequence[str]) -> bool:
    """Whether an answer is one of a route's: by its code, its meaning, or the first word of either."""
    said = {word for text in outcome for word in (text.casefold(), re.split(r"[\s(-]", text.casefold())[0])}
    return any(word.casefold() in said for word in wanted)


def read_document(path: Path) -> bytes:
    """Read a document of the outbox; follow no link, and wait for no pipe.

    Raises
    ------
    UnreadableError
        It is not a file, or far larger than any document.
    FileNotFoundError
        It is missing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST:
            raise UnreadableError
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _look_at(path: Path) -> _Seen:
    content = read_document(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values of the file
            return _seen(path.name, dcmread(io.BytesIO(content), stop_before_pixels=True))
    except Exception as error:  # any exception of the parser means that the file is faulty
        raise UnreadableError from error


def _seen(name: str, dataset: Dataset) -> _Seen:
    matched = _NAME.fullmatch(name)
    assert matched is not None
    kind, uid = matched[1].lower(), str(dataset.SOPInstanceUID)
    if uid != matched[2] or dataset.SOPClassUID != SENT[kind] or not is_uid(str(dataset.StudyInstanceUID)):
        raise UnreadableError
    document = Document(name, kind, str(dataset.SOPClassUID), uid, str(dataset.StudyInstanceUID))
    if kind == "sr":
        evidence = frozenset(str(item.ReferencedSOPInstanceUID) for item in _evidence(dataset))
        return _Seen(document, uid, evidence, _answer(dataset))
    sources: Any = dataset.get("SourceInstanceSequence", ())
    reports = [str(item.ReferencedSOPInstanceUID) for item in sources if item.ReferencedSOPClassUID == SENT["sr"]]
    return _Seen(document, reports[0] if reports else None, frozenset(), ())


def _evidence(dataset: Dataset) -> Iterator[Dataset]:
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", ()):
        for series in study.ReferencedSeriesSequence:
            yield from (item for item in series.ReferencedSOPSequence if item.ReferencedSOPClassUID == SENT["seg"])


def _answer(dataset: Dataset) -> tuple[str, ...]:
    """Return code values and meanings of lungstage's own coding scheme in a report."""
    found: list[str] = []
    waiting = [dataset]
    while waiting:
        item = waiting.pop()
        waiting += item.get("ContentSequence", ())
        if item.get("ValueType") == "CODE" and item.ConceptCodeSequence[0].CodingSchemeDesignator == _SCHEME:
            code = item.ConceptCodeSequence[0]
            found += [str(code.CodeValue), str(code.CodeMeaning)]
    return tuple(found)
