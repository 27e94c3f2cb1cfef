"""The processor time of another process, and the limit to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lungstage.appliance.workers import processor_time

BUSY = """
import hashlib, threading
def work():
    while True:
        hashlib.sha256(bytes(1 << 20))
threading.Thread(target=work).start()
work()
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        yield process
        process.kill()


def test_what_works_uses_it_up_and_is_ended(busy: subprocess.Popen[bytes]) -> None:
    while processor_time.used(busy.pid) < 0.3:
        time.sleep(0.02)
    before = processor_time.used(busy.pid)
    processor_time.allow(busy.pid, 0.5)
    assert os.waitid(os.P_PID, busy.pid, os.WEXITED | os.WNOWAIT)
    assert 0.5 <= processor_time.used(busy.pid) - before < 2
    assert busy.wait() == -signal.SIGXCPU
    with pytest.raises(OSError, match="Invalid argument"):
        processor_time.used(busy.pid)


def test_what_waits_uses_none(busy: subprocess.Popen[bytes]) -> None:
    while processor_time.used(busy.pid) < 0.05:
        time.sleep(0.02)
    busy.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, busy.pid, os.WSTOPPED | os.WNOWAIT)
    before = processor_time.used(busy.pid)
    processor_time.allow(busy.pid, 0.5)
    time.sleep(0.5)
    assert processor_time.used(busy.pid) - before < 0.1
    assert busy.poll() is None
