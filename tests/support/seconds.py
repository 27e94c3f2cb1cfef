"""Time that a test gives to something that may never come: it fails instead of hanging."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def within_seconds(seconds: float = 20.0) -> Iterator[None]:
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


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
