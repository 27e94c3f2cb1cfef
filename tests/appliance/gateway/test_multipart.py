"""A multipart body gives its parts, whatever the size of the received pieces."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.gateway.multipart import Begin, Data, End, MultipartError, Parts, boundary_of

BOUNDARY = "b0undary"


def body_of(parts: Iterable[bytes]) -> bytes:
    head = b"Content-Type: application/dicom\r\n\r\n"
    return b"".join(b"--b0undary\r\n" + head + part + b"\r\n" for part in parts) + b"--b0undary--\r\n"


def parsed(body: bytes, cuts: Iterable[int]) -> tuple[list[bytes], bool]:
    parts, found = Parts(BOUNDARY), list[bytes]()
    last = 0
    for cut in [*sorted(min(cut, len(body)) for cut in cuts), len(body)]:
        for piece in parts.feed(body[last:cut]):
            match piece:
                case Begin(kind):
                    assert kind == "application/dicom"
                    current = b""
                case Data(content):
                    current += content
                case End():
                    found.append(current)
        last = cut
    return found, parts.is_closed


@given(
    st.lists(st.binary(max_size=200).filter(lambda part: b"--b0undary" not in part), max_size=4),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_parts_come_out_as_they_went_in(parts: list[bytes], cuts: list[int]) -> None:
    assert parsed(body_of(parts), cuts) == (parts, True)


@given(st.lists(st.binary(max_size=50).filter(lambda part: b"--b0undary" not in part), min_size=1), st.data())
def test_a_body_that_was_cut_short_is_known_by_it(parts: list[bytes], data: st.DataObject) -> None:
    whole = body_of(parts)
    end = data.draw(st.integers(0, len(whole) - len("--\r\n")))
    found, is_closed = parsed(whole[:end], [])
    assert not is_closed or end >= len(whole) - 4
    assert found == parts[: len(found)]


def test_a_head_without_end_is_not_gathered_for_ever() -> None:
    with pytest.raises(MultipartError, match="too long"):
        list(Parts(BOUNDARY).feed(b"--b0undary\r\n" + b"a" * 100_000))


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/related", 'multipart/related; type="text/xml"; boundary=a',
             f"multipart/related; boundary={'a' * 71}"],
)  # fmt: skip
def test_other_bodies_are_refused(kind: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(kind)


def test_a_boundary_may_be_quoted() -> None:
    assert boundary_of('Multipart/Related; type="application/dicom"; boundary="a b"') == "a b"
