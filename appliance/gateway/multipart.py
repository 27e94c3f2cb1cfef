"""The parts of a ``multipart/related`` body as they arrive, without keeping them in memory (RFC 2387, RFC 2046)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Final

_LONGEST_HEAD: Final = 16 * 1024  # bytes
_LONGEST_BOUNDARY: Final = 70


class MultipartError(ValueError):
    """The body is no valid multipart body; the message says why in a sentence."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A part begins; `kind` is its media type."""

    kind: str


@dataclass(frozen=True, slots=True)
class Data:
    """Some bytes of the part."""

    content: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The part is complete."""


Piece = Begin | Data | End


def boundary_of(content_type: str) -> str:
    """Return the boundary between the parts.

    Raises
    ------
    MultipartError
        The type is not ``multipart/related`` with DICOM parts.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() != "multipart/related":
        raise MultipartError("The body must be multipart/related.")
    kind = header.get_param("type", "application/dicom")
    if str(kind).lower() != "application/dicom":
        raise MultipartError('The type of the parts must be "application/dicom".')
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise MultipartError("The content type contains no valid boundary.")
    return boundary


class Parts:
    """Splits a body into its parts.

    Parameters
    ----------
    boundary
        The text between the parts.
    """

    def __init__(self, boundary: str) -> None:
        self._mark = b"\r\n--" + boundary.encode("latin-1")
        self._left = b"\r\n"  # the body may begin with the first boundary
        self._state = "preamble"
        self.is_closed = False
        """Whether the last boundary has been read."""

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """Read the next bytes; give the pieces that are complete.

        Raises
        ------
        MultipartError
            The header of a part is not valid, or too long.
        """
        self._left += chunk
        while True:
            if self._state in ("preamble", "body"):
                at = self._left.find(self._mark)
                if at < 0:
                    keep = len(self._mark) - 1
                    content, self._left = self._left[:-keep], self._left[-keep:]
                    if self._state == "body" and content:
                        yield Data(content)
                    return
                if self._state == "body":
                    if at:
                        yield Data(self._left[:at])
                    yield End()
                self._left, self._state = self._left[at + len(self._mark) :], "boundary"
            elif self._state == "boundary":
                line, found, rest = self._left.partition(b"\r\n")
                if self._left.startswith(b"--"):
                    self.is_closed, self._state = True, "epilogue"
                elif not found:
                    self._prove_short()
                    return
                elif line.strip(b" \t"):
                    raise MultipartError("There is text after a boundary.")
                else:
                    self._left, self._state = b"\r\n" + rest, "head"
            elif self._state == "head":
                head, found, rest = self._left.partition(b"\r\n\r\n")
                if not found:
                    self._prove_short()
                    return
                yield Begin(_kind(head))
                self._left, self._state = rest, "body"
            else:
                self._left = b""
                return

    def _prove_short(self) -> None:
        if len(self._left) > _LONGEST_HEAD:
            raise MultipartError("The header of a part is too long.")


def _kind(head: bytes) -> str:
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type":
            return value.partition(";")[0].strip().lower()
    return "application/dicom"
