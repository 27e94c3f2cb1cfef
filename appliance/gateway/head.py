"""The first elements of a received file: they give its type, its name and its study."""

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
_STUDY: Final = 0x0020000D  # the last element that is read
_FRONT: Final = 1024 * 1024  # bytes that must contain it in a deflated data set
_BLOCK: Final = 1024 * 1024

CANNOT_UNDERSTAND: Final = 0xC000
CONTRADICTS: Final = 0xA900
NO_SUCH_CLASS: Final = 0x0122
NO_SPACE: Final = 0xA700


class NotTakenError(Exception):
    """An object is not accepted; `status` is that of C-STORE (PS3.4 B.2.3), `why` quotes nothing from the object."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Head:
    """The identity of an object.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, study_instance_uid, transfer_syntax_uid
        UIDs that contain only digits and points.
    begins
        Start of the data set in the file, in bytes.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    begins: int


def read_head(path: Path) -> Head:
    """Read the first elements of a file.

    Raises
    ------
    NotTakenError
        They are incomplete, a UID is not valid, meta information and data set contradict each other, or the SOP Class
        or transfer syntax is not accepted.
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values of the file
        try:
            read_preamble(file, False)
            meta = read_dataset(file, False, True, stop_when=_behind_meta)
            begins = file.tell()
            syntax = UID(_text(meta, "TransferSyntaxUID"))
            front = _front(file, syntax)
        except OSError:
            raise
        except Exception as error:  # any exception of the parser means that the file is faulty
            raise NotTakenError(CANNOT_UNDERSTAND, "it does not begin with a DICOM data set") from error
    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
    sop_class, instance, study = (_text(front, name) for name in names)
    if not all(is_uid(uid) for uid in (sop_class, instance, study)):
        raise NotTakenError(CONTRADICTS, "a UID is missing or not valid")
    if (sop_class, instance) != (_text(meta, "MediaStorageSOPClassUID"), _text(meta, "MediaStorageSOPInstanceUID")):
        raise NotTakenError(CONTRADICTS, "its UIDs differ from those in the command or the file meta information")
    if not is_taken(sop_class, str(syntax)):
        raise NotTakenError(NO_SUCH_CLASS, "its SOP Class or transfer syntax is not accepted")
    return Head(sop_class, instance, study, str(syntax), begins)


def digest(path: Path, begins: int) -> str:
    """Return the SHA-256 of a file's data set, without its file meta information."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(begins)
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def is_uid(text: str) -> bool:
    """Whether a text has the form of a UID, and so can be used as a file name."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def _behind_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _behind_study(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > _STUDY


def _front(file: BinaryIO, syntax: UID) -> Dataset:
    source: Any = file
    if syntax == DeflatedExplicitVRLittleEndian:  # inflate at most _FRONT bytes
        source = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(_FRONT), _FRONT))
    return read_dataset(source, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=_behind_study)


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return value.rstrip("\0 ") if isinstance(value, str) else ""
