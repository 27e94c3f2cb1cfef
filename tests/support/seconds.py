"""Time limits: a test fails instead of hanging if it waits for something that does not happen."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

PATIENCE: Final = 60.0
"""The time after which something counts as hanging; it is long, because the machine may be busy with other work."""


@contextlib.contextmanager
def within_seconds(seconds: float = PATIENCE) -> Iterator[None]:
    """Fail instead of hanging."""

    def fail(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
