"""The outbox: each document appears completely or not at all, once, and is never overwritten.

Other users who may write to the folder can block a name, but cannot do more: nothing outside the folder is changed, and
no step waits forever.
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
_REPORT_BYTES = 2**24  # much larger than any report of lungstage
_NAME = re.compile(r"[A-Z]{2,16}-[0-9.]{1,64}\.dcm")
_NO_FILES = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe"}
_MOMENT = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d( UTC[+-]\d\d:\d\d)?")
_DRAWN = frozenset({"EncapsulatedDocument", "EncapsulatedDocumentLength", "PixelData"})
_KINDS = {EncapsulatedPDFStorage: "PDF", SecondaryCaptureImageStorage: "SC"}  # clearer than their Modality


@dataclass(frozen=True, slots=True)
class Document:
    """A document for the outbox.

    Attributes
    ----------
    name
        File name: ``<KIND>-<SOPInstanceUID>.dcm`` with SR, SEG, PDF or SC; ``HTML-<UID>.html``.
    sop_instance_uid, series_instance_uid
        UIDs of the document and its series.
    content
        The bytes of the file.
    """

    name: str
    sop_instance_uid: str
    series_instance_uid: str
    content: Content

    @property
    def kind(self) -> str:
        """Beginning of the name in lower case: ``sr``, ``seg``, ``pdf``, ``sc``, ``html``."""
        return self.name.partition("-")[0].lower()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


class OutboxConflictError(Held):
    """Another file has the name of a document; `path` is the file.

    The case is not the cause. Delivery continues when the other file has been moved away.
    """

    def __init__(self, path: Path, what: str) -> None:
        sentence = (
            f"A document cannot be written: {path} {what}. lungstage does not change it. Move it to another folder."
        )
        super().__init__(ReasonCode.OUTBOX_OCCUPIED, sentence)
        self.path = path


def encode(dataset: Dataset) -> Document:
    """Encode a complete dataset, with file meta information, as a file.

    Raises
    ------
    ValueError
        Its Modality or SOP Instance UID cannot be part of a file name.
    """
    name = f"{_KINDS.get(dataset.SOPClassUID, dataset.Modality)}-{dataset.SOPInstanceUID}.dcm"
    if not _NAME.fullmatch(name):
        raise ValueError("a document's Modality or SOP Instance UID cannot be part of a file name")
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return Document(name, str(dataset.SOPInstanceUID), str(dataset.get("SeriesInstanceUID", "")), buffer.getvalue())


def deliver(documents: Sequence[Document], folder: Path) -> tuple[Path, ...]:
    """Write documents under their names, in the given order.

    Each document is written under an unpredictable temporary name that begins with a dot. It is flushed to the disk and
    then renamed, so no reader sees an incomplete document. If the document already exists, with the same bytes or with
    another creation time, it is left unchanged, so a repetition changes nothing. If two writers finish at the same
    time, the complete document of one of them stays.

    Parameters
    ----------
    documents
        The SR last: when it appears, everything that it refers to is there.
    folder
        The outbox.

    Returns
    -------
    tuple of Path
        The documents' files, in the same order.

    Raises
    ------
    OSError
        The folder is missing, full or not writable. The same call may be repeated.
    OutboxConflictError
        A file of this name has other content, or is a link, a pipe or a folder. It is left unchanged.
    """
    paths = tuple(_deliver(document, folder) for document in documents)
    flush(folder)
    return paths


def digests(documents: Sequence[Document], folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the delivered files by name: an older file may have another creation time.

    If a file has been removed already, it is the SHA-256 of the written bytes.
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
            with contextlib.suppress(OSError):  # some file systems do not support locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # clean() then leaves this file alone
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
    """Whether the document exists already, possibly with another creation time.

    Raises
    ------
    OutboxConflictError
        Something else has this name.
    """
    try:
        there = _read(target, _longest(content))
    except FileNotFoundError:
        return False
    if there != content and not _differs_in_time_alone(there, content):
        raise OutboxConflictError(target, "is a file with other content")
    return True


def _longest(content: bytes) -> int:
    """Return how many bytes the same document may have: with another creation time it is hardly longer."""
    return 2 * len(content)


def _read(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes, without following a link or waiting for a pipe."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise OutboxConflictError(path, f"is {_NO_FILES.get(stat.S_IFMT(mode), 'not a file')}")
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            content = file.read(limit + 1) or b""  # None from a pipe that was created after lstat
    except PermissionError as error:  # of the file: lstat just worked, so the folder is accessible
        raise OutboxConflictError(path, "is a file that this account may not read") from error
    if len(content) > limit:
        raise OutboxConflictError(path, "is a file with other content")
    return content


def _differs_in_time_alone(there: bytes, content: bytes) -> bool:
    """Whether the existing document has the same content and only another creation time.

    Its UID depends on everything except the time. The time is not known after a lost ledger, or to a one-shot command.
    A page shows the time, so for pages everything except the drawing is compared.
    """
    if _is_deflated(there):
        return False
    if content.startswith(b"<!doctype html>"):
        return _MOMENT.sub(b"", there) == _MOMENT.sub(b"", content)
    try:
        old, new = (_timeless(dcmread(io.BytesIO(document))) for document in (there, content))
        return bool(old == new)
    except Exception:  # the existing file cannot be read, so it is not the same
        return False


def _is_deflated(content: bytes) -> bool:
    """Whether the file may grow a thousandfold when it is read; lungstage writes no deflated files."""
    return DeflatedExplicitVRLittleEndian.encode() in content


def reports(folder: Path, before: datetime) -> Iterator[tuple[Path, bytes]]:
    """Give the readable structured reports that are older than `before`, with their bytes.

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
    """Remove incomplete files of a crash and return their number. Files that others are writing stay."""
    return sum(_remove_leftover(path) for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name))


def _remove_leftover(path: Path) -> bool:
    """Remove a temporary file if its writer, and with it the lock, is gone; return whether it was removed."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                return True
    return False
