"""What a received file says it is: the elements at its front by which it is named and placed."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lungstage.appliance.gateway.contexts import is_taken

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID: Final = 64
_STUDY: Final = 0x0020000D  # the last element that is looked at
_FRONT: Final = 1024 * 1024  # bytes in which it must stand where they are deflated
_BLOCK: Final = 1024 * 1024

CANNOT_UNDERSTAND: Final = 0xC000
CONTRADICTS: Final = 0xA900
NO_SUCH_CLASS: Final = 0x0122
NO_SPACE: Final = 0xA700


class NotTakenError(Exception):
    """An object is not taken; `status` is that of C-STORE (PS3.4 B.2.3), `why` says nothing of what the object says."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Head:
    """Who an object is.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, study_instance_uid, transfer_syntax_uid
        All of digits and points alone.
    begins
        Where the data set begins in the file, in bytes.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    begins: int


def read_head(path: Path) -> Head:
    """Read a file's front.

    Raises
    ------
    NotTakenError
        It is not whole so far, a UID is none, meta information and data set contradict each other, or what it is of is
        of no use here.
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote what they mind
        try:
            read_preamble(file, False)
            meta = read_dataset(file, False, True, stop_when=_behind_meta)
            begins = file.tell()
            syntax = UID(_text(meta, "TransferSyntaxUID"))
            front = _front(file, syntax)
        except OSError:
            raise
        except Exception as error:  # hostile bytes: whatever the parser raises, the file is at fault
            raise NotTakenError(CANNOT_UNDERSTAND, "its front is no DICOM data set") from error
    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
    sop_class, instance, study = (_text(front, name) for name in names)
    if not all(is_uid(uid) for uid in (sop_class, instance, study)):
        raise NotTakenError(CONTRADICTS, "a UID is missing or is none")
    if (sop_class, instance) != (_text(meta, "MediaStorageSOPClassUID"), _text(meta, "MediaStorageSOPInstanceUID")):
        raise NotTakenError(CONTRADICTS, "its UIDs are not those that it was announced by")
    if not is_taken(sop_class, str(syntax)):
        raise NotTakenError(NO_SUCH_CLASS, "its SOP Class or transfer syntax is of no use here")
    return Head(sop_class, instance, study, str(syntax), begins)


def digest(path: Path, begins: int) -> str:
    """SHA-256 of a file's data set, which does not change with whose meta information stands before it."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(begins)
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def is_uid(text: str) -> bool:
    """Whether a text may be a UID, and so is fit to name a file."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def _behind_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _behind_study(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > _STUDY


def _front(file: BinaryIO, syntax: UID) -> Dataset:
    source: Any = file
    if syntax == DeflatedExplicitVRLittleEndian:  # never more of it than a front, however much it would grow to
        source = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(_FRONT), _FRONT))
    return read_dataset(source, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=_behind_study)


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return value.rstrip("\0 ") if isinstance(value, str) else ""
