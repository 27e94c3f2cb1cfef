"""The outbox: documents appear in it whole or not at all, once, and are never overwritten.

Whoever else may write to the folder can put things in the way, and no more: nothing outside is touched, and no wait is
without end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from lungstage.appliance.config.disks import flush
from lungstage.appliance.contract.errors import Held, ReasonCode
from lungstage.appliance.contract.plain import Content

_TEMPORARY = re.compile(r"\.[A-Z]{2,16}-[0-9.]{1,64}\.(dcm|html)(\.[0-9a-f]{16})?\.part")
_REPORT_BYTES = 2**24  # far more than any report of ours
_NAME = re.compile(r"[A-Z]{2,16}-[0-9.]{1,64}\.dcm")
_NO_FILES = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe"}
_MOMENT = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d( UTC[+-]\d\d:\d\d)?")
_DRAWN = frozenset({"EncapsulatedDocument", "EncapsulatedDocumentLength", "PixelData"})
_KINDS = {EncapsulatedPDFStorage: "PDF", SecondaryCaptureImageStorage: "SC"}  # whose Modality says less


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it will lie in the outbox.

    Attributes
    ----------
    name
        ``<KIND>-<SOPInstanceUID>.dcm``: SR, SEG, PDF or SC; ``HTML-<UID>.html``.
    sop_instance_uid, series_instance_uid
        Its own, and its series'.
    content
        The bytes of the file.
    """

    name: str
    sop_instance_uid: str
    series_instance_uid: str
    content: Content

    @property
    def kind(self) -> str:
        """What its name begins with, in small letters: ``sr``, ``seg``, ``pdf``, ``sc``, ``html``."""
        return self.name.partition("-")[0].lower()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


class OutboxConflictError(Held):
    """Something else already bears a document's name; `path` is where.

    No case is at fault for it, and no other document: it goes on once somebody has moved that away.
    """

    def __init__(self, path: Path, what: str) -> None:
        sentence = (
            f"A document of the report cannot be put into the outbox, for its name is taken: {path} {what}. lungstage "
            "leaves that as it is. Move it elsewhere."
        )
        super().__init__(ReasonCode.OUTBOX_OCCUPIED, sentence)
        self.path = path


def encode(dataset: Dataset) -> Document:
    """Encode a complete dataset, with file meta information, as a file.

    Raises
    ------
    ValueError
        When its Modality or SOP Instance UID cannot stand in a file name.
    """
    name = f"{_KINDS.get(dataset.SOPClassUID, dataset.Modality)}-{dataset.SOPInstanceUID}.dcm"
    if not _NAME.fullmatch(name):
        raise ValueError("a document's Modality or SOP Instance UID cannot stand in a file name")
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return Document(name, str(dataset.SOPInstanceUID), str(dataset.get("SeriesInstanceUID", "")), buffer.getvalue())


def deliver(documents: Sequence[Document], folder: Path) -> tuple[Path, ...]:
    """Write documents, each under its name, in the order given.

    Each is written under a temporary dot-name that nobody can foresee, flushed to the disk and renamed, so a reader
    never meets half of one; a document that is already there, with the same bytes or made at another time, is left
    alone, so a repetition changes nothing. Of two writers who finish at the same instant, one's whole document stays.

    Parameters
    ----------
    documents
        The SR last: once it is seen, all it refers to is there.
    folder
        The outbox.

    Returns
    -------
    tuple of Path
        The documents' files, in the same order.

    Raises
    ------
    OSError
        When the folder is not there, is full or cannot be written to; the same call may be repeated.
    OutboxConflictError
        When a file of that name says something else, or is none: a link, a pipe, a folder. It is left as it is.
    """
    paths = tuple(_deliver(document, folder) for document in documents)
    flush(folder)
    return paths


def digests(documents: Sequence[Document], folder: Path) -> dict[str, str]:
    """SHA-256 by name of delivered documents as they lie: one that was there before may have been made at another time.

    Of a document that somebody has taken away already, it is that of the bytes that were written.
    """
    lying = {}
    for document in documents:
        lying[document.name] = document.sha256
        with contextlib.suppress(OSError, OutboxConflictError):
            there = _read(folder / document.name, _longest(document.content))
            lying[document.name] = hashlib.sha256(there).hexdigest()
    return lying


def _deliver(document: Document, folder: Path) -> Path:
    target = folder / document.name
    if _is_there(target, document.content):
        return target
    temporary = folder / f".{document.name}.{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
        try:
            with contextlib.suppress(OSError):  # some file systems know no locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for clean() to see that this one is in work
            file.write(document.content)
            file.flush()
            os.fsync(file.fileno())
            if _is_there(target, document.content):  # another writer was faster
                temporary.unlink()
            else:
                temporary.rename(target)
        except (OSError, OutboxConflictError):
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    return target


def _is_there(target: Path, content: bytes) -> bool:
    """Whether the document lies there already, be it made at another time.

    Raises
    ------
    OutboxConflictError
        When something else lies there.
    """
    try:
        there = _read(target, _longest(content))
    except FileNotFoundError:
        return False
    if there != content and not _differs_in_time_alone(there, content):
        raise OutboxConflictError(target, "is a file with other content")
    return True


def _longest(content: bytes) -> int:
    """Return how many bytes the same document may have; one made at another time is hardly longer."""
    return 2 * len(content)


def _read(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; no link is followed and no pipe waited for."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise OutboxConflictError(path, f"is {_NO_FILES.get(stat.S_IFMT(mode), 'not a file')}")
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            content = file.read(limit + 1) or b""  # None from a pipe that came between the two looks
    except PermissionError as error:  # of the file; it has just been seen, so the folder lets us in
        raise OutboxConflictError(path, "is a file that this account may not read") from error
    if len(content) > limit:
        raise OutboxConflictError(path, "is a file with other content")
    return content


def _differs_in_time_alone(there: bytes, content: bytes) -> bool:
    """Whether the document that is there says the same and merely was made at another time.

    Its UID follows from everything but the time, which a ledger that was lost, or a one-shot command, does not know.
    On a page the time is drawn, so that of two of them the drawings are not compared, but all that stands around them.
    """
    if _is_deflated(there):
        return False
    if content.startswith(b"<!doctype html>"):
        return _MOMENT.sub(b"", there) == _MOMENT.sub(b"", content)
    try:
        old, new = (_timeless(dcmread(io.BytesIO(document))) for document in (there, content))
        return bool(old == new)
    except Exception:  # what is there cannot be read, so it is not the same
        return False


def _is_deflated(content: bytes) -> bool:
    """Whether it may grow a thousandfold when it is read; what is ours is never deflated."""
    return DeflatedExplicitVRLittleEndian.encode() in content


def reports(folder: Path, before: datetime) -> Iterator[tuple[Path, bytes]]:
    """Give the structured reports that lie there since before a moment, as far as they can be read, with their bytes.

    Raises
    ------
    OSError
        The folder cannot be listed.
    """
    for path in sorted(folder.glob("SR-*.dcm")):
        with contextlib.suppress(OSError, OutboxConflictError):
            if path.lstat().st_mtime < before.timestamp():
                content = _read(path, _REPORT_BYTES)
                if not _is_deflated(content):
                    yield path, content


def _timeless(dataset: Dataset) -> Dataset:
    for item in dataset:
        if item.VR in ("DA", "DT", "TM") or (item.keyword in _DRAWN and dataset.get("SOPClassUID") in _KINDS):
            del dataset[item.tag]
        elif item.VR == "SQ":
            for child in item.value:
                _timeless(child)
    return dataset


def clean(folder: Path) -> int:
    """Remove what a crash left half-written; returns how many files that were. Other writers' work is left alone."""
    return sum(_remove_leftover(path) for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name))


def _remove_leftover(path: Path) -> bool:
    """Remove a temporary file whose writer is gone, and its lock with it; False for anything else."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                return True
    return False
