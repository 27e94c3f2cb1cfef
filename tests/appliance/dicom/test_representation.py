"""A value under a wrong value representation becomes the same number or text, or stays unchanged."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lungstage.appliance.dicom.representation import in_its_own

FORMS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}


def _read(vr: str, value: bytes, little: bool) -> list[float]:
    if vr in FORMS:
        size = struct.calcsize(FORMS[vr])
        return list(struct.unpack(f"{'<' if little else '>'}{len(value) // size}{FORMS[vr]}", value))
    return [float(part) for part in value.split(b"\\")] if value else []


@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["DS", "IS", *sorted(FORMS), "US or SS"]),
    st.binary(max_size=32),
    st.booleans(),
)
@example("FD", "FL", struct.pack("<d", 1e300), True)  # too large for a float
def test_a_number_is_the_same_number_or_untouched(vr: str, expected: str, value: bytes, little: bool) -> None:
    if len(value) % struct.calcsize(FORMS[vr]):
        assert in_its_own(expected, vr, value, little=little)[1] == value
        return
    now, written = in_its_own(expected, vr, value, little=little)
    if now == vr:
        assert written == value
        return
    assert now in expected.split(" or ")
    before, after = _read(vr, value, little), _read(now, written, little)
    assert before == after or all(math.isnan(one) for one in before if one != one)


@pytest.mark.parametrize(
    ("expected", "vr", "value", "result"),
    [
        ("CS", "LO", b"CHEST ", ("CS", b"CHEST ")),
        ("DS", "FD", struct.pack("<d", 0.1), ("DS", b"0.1")),
        ("DS", "FD", struct.pack("<2d", 3, 0.9765625), ("DS", b"3\\0.9765625")),
        ("DS", "LT", b"1\\2", ("DS", b"1\\2")),
        ("US", "IS", b"512 ", ("US", b"\0\2")),
        ("US", "DS", b"512.0 ", ("US", b"\0\2")),
        ("US", "SS", b"\xff\xff", ("SS", b"\xff\xff")),
        ("US", "UL", b"\0\0\1\0", ("UL", b"\0\0\1\0")),
        ("US", "IS", b"1_0 ", ("IS", b"1_0 ")),
        ("US or SS", "SL", struct.pack("<i", -2000), ("SS", struct.pack("<h", -2000))),
        ("US or SS", "UL", struct.pack("<I", 63536), ("US", struct.pack("<H", 63536))),
        ("IS", "FD", struct.pack("<d", 34.5), ("FD", struct.pack("<d", 34.5))),
        ("DS", "OB", b"1.5 ", ("OB", b"1.5 ")),
        ("IS", "US", b"", ("IS", b"")),
    ],
)
def test_examples(expected: str, vr: str, value: bytes, result: tuple[str, bytes]) -> None:
    assert in_its_own(expected, vr, value, little=True) == result
