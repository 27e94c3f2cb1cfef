"""How many images a region object may name. Each is kept in memory, so there must be a limit."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import RTStructureSetStorage

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import Header, RoiHeader
from lungstage.appliance.intake.inbox import Inbox
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileTable

MOST = 20_000


def _element(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def _uid(group: int, number: int, uid: str) -> bytes:
    return _element(group, number, uid.encode() + b"\0" * (len(uid) % 2))


def _sequence(group: int, number: int, *items: bytes) -> bytes:
    return _element(group, number, b"".join(_element(0xFFFE, 0xE000, item) for item in items))


def _images(count: int) -> bytes:
    items = (_uid(0x0008, 0x1155, f"1.2.{k}") for k in range(count))
    return _sequence(0x3006, 0x0016, *items)


def _listed(count: int) -> bytes:
    series = _uid(0x0020, 0x000E, "1.9.1") + _images(count)
    study = _sequence(0x3006, 0x0014, series)
    return _sequence(0x3006, 0x0010, _sequence(0x3006, 0x0012, study))


def _of_contours(count: int) -> bytes:
    return _sequence(0x3006, 0x0039, _sequence(0x3006, 0x0040, _images(count)))


def _structure_set(path: Path, references: bytes) -> Path:
    """Write an RTSTRUCT byte by byte, as pydicom takes minutes for the largest."""
    top = _uid(0x0008, 0x0016, RTStructureSetStorage) + _uid(0x0008, 0x0018, "1.9.99")
    top += _element(0x0010, 0x0020, b"1 ") + _uid(0x0020, 0x000D, "1.8") + _uid(0x0020, 0x000E, "1.9")
    path.write_bytes(top + references)
    return path


PLACES = {"listed": (_listed, 1), "named by contours": (_of_contours, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_as_many_are_read_and_not_one_more(place: str, tmp_path: Path) -> None:
    write, series = PLACES[place]
    (header,) = read_headers(_structure_set(tmp_path / "a", write(MOST - series)))
    assert isinstance(header, RoiHeader)
    assert len(header.image_references) + sum(len(names) for _, names in header.listed) == MOST - series
    with pytest.raises(Refused) as caught:
        read_headers(_structure_set(tmp_path / "b", write(MOST - series + 1)))
    assert caught.value.reason.code is ReasonCode.LIMITS_EXCEEDED
    assert f"refers to {MOST + 1} images and series" in caught.value.reason.message


def _kept(folder: Path, read: Callable[[Path], tuple[Header, ...]]) -> int:
    """Bytes of memory that an inbox and its index keep for a folder."""
    (folder / "state").mkdir()
    with Database(folder / "state" / "ledger.sqlite") as database:
        files = FileTable(database, "reader")
        index = StudyIndex(files, lambda _: ())
        now = [0.0]
        inbox = Inbox(folder / "inbox", files, index, 0.1, read=read, clock=lambda: now[0])
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            inbox.look()
            now[0] += 1.0
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return after - before


@pytest.mark.slow
def test_a_hundred_thousand_leave_nothing_in_the_daemon(tmp_path: Path) -> None:
    """The daemon reads files in another process, so here the file is read before memory is counted."""
    (tmp_path / "inbox").mkdir()
    path = _structure_set(tmp_path / "inbox" / "a.dcm", _listed(100_000))
    answers: list[tuple[Header, ...] | Refused] = []
    try:
        answers.append(read_headers(path))
    except Refused as refused:
        answers.append(refused)

    def read(_: Path) -> tuple[Header, ...]:
        (answer,) = answers
        if isinstance(answer, Refused):
            raise answer
        return answer

    assert _kept(tmp_path, read) < 1_000_000
