"""Frames: the format of a message in a pipe, as eight bytes of length and the content."""

from __future__ import annotations

import os
import select
import time

MOST_BYTES = 256 * 1024**2
"""Largest frame. Segmentations (32 kB for each slice of the tumour) and bundles (at most 43 MB) are the largest."""

_LENGTH = 8
_CHUNK = 1024**2


class FrameTooLargeError(Exception):
    """A frame gives a length above the limit."""


class FrameReader:
    """Reads frames from a pipe one after the other; it uses memory only for bytes that have arrived.

    Parameters
    ----------
    descriptor
        The pipe's end. If it does not block, :meth:`advance` does not block.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._received = bytearray()

    def advance(self) -> bool:
        """Read the bytes of the present frame that have arrived; True when the frame is complete.

        Raises
        ------
        EOFError
            The other side has ended.
        FrameTooLargeError
            The frame is larger than :data:`MOST_BYTES`.
        """
        while missing := self._missing():
            try:
                chunk = os.read(self.descriptor, min(missing, _CHUNK))
            except BlockingIOError:
                return False
            if not chunk:
                raise EOFError
            self._received += chunk
        return True

    def _missing(self) -> int:
        if len(self._received) < _LENGTH:
            return _LENGTH - len(self._received)
        size = int.from_bytes(self._received[:_LENGTH], "big")
        if size > MOST_BYTES:
            raise FrameTooLargeError
        return _LENGTH + size - len(self._received)

    def take(self) -> bytes:
        """Return the content of a complete frame, and begin the next frame."""
        content = bytes(memoryview(self._received)[_LENGTH:])
        self._received = bytearray()
        return content


def write(descriptor: int, content: bytes, until: float | None = None) -> bool:
    """Write a frame.

    Parameters
    ----------
    descriptor
        The pipe's end.
    content
        Content of the frame.
    until
        Time limit on the monotonic clock for the other side to read, if the descriptor does not block.

    Returns
    -------
    bool
        Whether all bytes were written in time.

    Raises
    ------
    OSError
        The other side has ended.
    """
    for piece in (len(content).to_bytes(_LENGTH, "big"), content):
        left = memoryview(piece)
        while left:
            if until is not None and not is_ready(descriptor, select.POLLOUT, until):
                return False
            left = left[os.write(descriptor, left) :]
    return True


def is_ready(descriptor: int, event: int, until: float) -> bool:
    """Wait until a pipe's end is ready for an event of :func:`select.poll`; False if it is not ready in time."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(1000 * max(0.0, until - time.monotonic())))
