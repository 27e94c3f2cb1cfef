"""Frames: how a message lies in a pipe, as eight bytes of length and that many of content."""

from __future__ import annotations

import os
import select
import time

MOST_BYTES = 256 * 1024**2
"""Of one frame. The largest are a segmentation, of 32 kB for a slice of the tumour, and a bundle, of at most 43 MB."""

_LENGTH = 8
_CHUNK = 1024**2


class FrameTooLargeError(Exception):
    """A frame says that it is larger than any may be."""


class FrameReader:
    """Takes one frame after another from a pipe, as it comes; nothing is set aside for what has not come.

    Parameters
    ----------
    descriptor
        The pipe's end. Where it does not block, neither does :meth:`advance`.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._received = bytearray()

    def advance(self) -> bool:
        """Read what has come of a frame, and no more; True once it is there whole.

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
        """Return the content of a frame that is there whole, and go on to the next."""
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
        What the frame holds.
    until
        How long to wait for the other side to read, on the monotonic clock, where the descriptor does not block.

    Returns
    -------
    bool
        Whether all of it was written by then.

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
    """Wait until a pipe's end is ready for an event of :func:`select.poll`; False where it is not in time."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(1000 * max(0.0, until - time.monotonic())))
