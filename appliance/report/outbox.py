"""The outbox: documents appear in it whole or not at all, once, and are never overwritten."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from lungstage.appliance.contract.plain import Content

_TEMPORARY = re.compile(r"\.[A-Z]{2,16}-[0-9.]{1,64}\.dcm\.part")
_NAME = re.compile(r"[A-Z]{2,16}-[0-9.]{1,64}\.dcm")


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it will lie in the outbox.

    Attributes
    ----------
    name
        ``<Modality>-<SOPInstanceUID>.dcm``.
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
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


class OutboxConflictError(Exception):
    """Another document already bears the name: a defect of ours, or two ledgers write to one outbox."""


def encode(dataset: Dataset) -> Document:
    """Encode a complete dataset, with file meta information, as a file.

    Raises
    ------
    ValueError
        When its Modality or SOP Instance UID cannot stand in a file name.
    """
    name = f"{dataset.Modality}-{dataset.SOPInstanceUID}.dcm"
    if not _NAME.fullmatch(name):
        raise ValueError("a document's Modality or SOP Instance UID cannot stand in a file name")
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return Document(name, str(dataset.SOPInstanceUID), str(dataset.get("SeriesInstanceUID", "")), buffer.getvalue())


def deliver(documents: Sequence[Document], folder: Path) -> tuple[Path, ...]:
    """Write documents, each under its name, in the order given.

    Each is written under a temporary dot-name, flushed to the disk and renamed, so a reader never meets half of
    one; a document that is already there, with the same bytes or made at another time, is left alone, so a repetition
    changes nothing.

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
        When a file of that name says something else; it is left as it is.
    """
    paths = tuple(_deliver(document, folder) for document in documents)
    _sync_folder(folder)
    return paths


def digests(documents: Sequence[Document], folder: Path) -> dict[str, str]:
    """SHA-256 by name of delivered documents as they lie: one that was there before may have been made at another time.

    Of a document that somebody has taken away already, it is that of the bytes that were written.
    """
    lying = {}
    for document in documents:
        lying[document.name] = document.sha256
        with contextlib.suppress(OSError):
            lying[document.name] = hashlib.sha256((folder / document.name).read_bytes()).hexdigest()
    return lying


def _deliver(document: Document, folder: Path) -> Path:
    name, content = document.name, document.content
    target = folder / name
    if target.exists():
        if target.read_bytes() != content and not _differs_in_time_alone(target, content):
            raise OutboxConflictError(f"{name} is there already with other content")
        return target
    temporary = folder / f".{name}.part"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return target


def _differs_in_time_alone(target: Path, content: bytes) -> bool:
    """Whether the document that is there says the same and merely was made at another time.

    Its UID follows from everything but the time, which a ledger that was lost, or a one-shot command, does not know.
    """
    try:
        there, new = (_timeless(dcmread(source)) for source in (target, io.BytesIO(content)))
    except Exception:  # what is there cannot be read, so it is not the same
        return False
    return there == new


def _timeless(dataset: Dataset) -> Dataset:
    for item in dataset:
        if item.VR in ("DA", "DT", "TM"):
            del dataset[item.tag]
        elif item.VR == "SQ":
            for child in item.value:
                _timeless(child)
    return dataset


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems know no sync of folders
            raise
    finally:
        os.close(descriptor)


def clean(folder: Path) -> int:
    """Remove what a crash left half-written; returns how many files that were."""
    leftovers = [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name) and not path.is_symlink()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
