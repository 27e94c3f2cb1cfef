"""A worker under a file's control: nothing that it sends runs in the daemon, and nothing waits for it."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from lungstage.appliance.contract.errors import DefectError, ExhaustedError, Unavailable
from lungstage.appliance.workers import frames, process
from lungstage.appliance.workers.confinement import Confinement
from lungstage.appliance.workers.messages import ReadHeaders, Setting, WritePhantom
from lungstage.appliance.workers.process import Limits, WorkerProcess

PATH = Path("/in/file")
REQUEST = ReadHeaders(PATH)
SETTING = Setting({}, "compiled", Path("/nowhere"))

PLAYED = """
import os, sys, time
requests, answers = int(sys.argv[1]), int(sys.argv[2])
def hear():
    content, missing = b"", 8
    while missing:
        got = os.read(requests, missing)
        if not got:
            sys.exit()
        content += got
        missing = 8 + int.from_bytes(content[:8], "big") - len(content) if len(content) >= 8 else 8 - len(content)
    return content[8:]
def say(content):
    while content:
        content = content[os.write(answers, content):]
def frame(content):
    return len(content).to_bytes(8, "big") + content
hear()
say(frame({set_up!r}))
{then}
"""
SET_UP = SETTING.answered(Confinement())
NOTHING = REQUEST.answered(())


class Bomb:
    """Makes a folder in the process that unpickles it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self._path),)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WorkerProcess]]:
    """Makes workers that run another program: it answers the set-up, then runs `then`."""
    made: list[WorkerProcess] = []

    def one(then: str, seconds: float = 60.0, set_up: bytes = SET_UP) -> WorkerProcess:
        monkeypatch.setattr(process, "PROGRAM", PLAYED.format(set_up=set_up, then=then))
        made.append(WorkerProcess(SETTING, Limits(seconds=seconds)))
        return made[-1]

    yield one
    for each in made:
        each.end()


def saying(content: bytes) -> str:
    return f"while True:\n    hear()\n    say({content!r})"


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(8, "big") + content


def test_the_one_that_is_played_can_be_honest(play: Callable[..., WorkerProcess]) -> None:
    assert play(saying(framed(NOTHING))).call(REQUEST) == ()


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "noise": bytes(range(256)) * 9,
    "neither an answer nor an error": b"?" + NOTHING[1:],
    "no JSON": b"+" + framed(b"nonsense"),
    "JSON without end": b"+" + framed(b"[" * 100_000),
    "a length beyond the frame": b"+" + (2**63).to_bytes(8, "big") + b"[[]]",
    "another request's answer": WritePhantom(PATH, "").answered("1.2.3"),
    "an unknown reason code": b"-" + framed(b'[{"kind":"refused","message":"","code":"because"}]'),
    "a document elsewhere": b"+" + framed(b'[{"outcome":{},"documents":[{"name":"../SR-1.dcm"}]}]'),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_ends_the_worker_and_is_told_as_a_defect(name: str, play: Callable[..., WorkerProcess]) -> None:
    worker = play(saying(framed(GARBAGE[name])))
    worker.set_up()
    pid = worker.pid
    assert pid is not None
    with pytest.raises(DefectError) as caught:
        worker.call(REQUEST)
    assert caught.value.defect == {"error": "MalformedAnswer", "frames": "ReadHeaders"}
    assert caught.value.__suppress_context__  # a context would quote the answer in a traceback
    assert worker.pid is None
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("form", ["a frame", "an answer", "a connection's message"])
def test_a_pickle_is_not_opened(form: str, play: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    bomb = pickle.dumps((True, Bomb(tmp_path / "ran")))
    said = {
        "a frame": framed(bomb), "an answer": framed(b"+" + framed(bomb)),
        "a connection's message": len(bomb).to_bytes(4, "big") + bomb,  # the format of multiprocessing
    }  # fmt: skip
    with pytest.raises((DefectError, ExhaustedError)):
        play(saying(said[form]), seconds=0.5).call(REQUEST)
    assert not (tmp_path / "ran").exists()
    pickle.loads(bomb)  # it works when it is unpickled
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [frames.MOST_BYTES + 1, 2**63, 2**64 - 1])
def test_a_frame_that_is_too_large_is_not_waited_for(size: int, play: Callable[..., WorkerProcess]) -> None:
    worker = play(saying(size.to_bytes(8, "big")))
    worker.ask(REQUEST)
    until(worker.has_answered)
    with pytest.raises(ExhaustedError, match="more than 256 MB"):
        worker.answer(REQUEST)
    assert worker.pid is None


def test_a_length_alone_takes_no_memory(play: Callable[..., WorkerProcess]) -> None:
    worker = play(saying(frames.MOST_BYTES.to_bytes(8, "big") + b"+"), seconds=0.1)
    before = psutil.Process().memory_info().rss
    with pytest.raises(ExhaustedError, match=r"longer than 0\.4 s"):
        worker.call(REQUEST)
    assert psutil.Process().memory_info().rss < before + 64 * 1024**2


@pytest.mark.parametrize("part", [b"", framed(NOTHING)[:3], framed(NOTHING)[:-1]])
def test_half_a_frame_keeps_nobody(part: bytes, play: Callable[..., WorkerProcess]) -> None:
    worker = play(saying(part), seconds=0.1)
    worker.ask(REQUEST)
    if part:
        assert worker.descriptor is not None
        assert connection.wait([worker.descriptor], 60)
    started = time.monotonic()
    has_answered = worker.has_answered()
    assert time.monotonic() - started < 0.5
    assert not has_answered or time.monotonic() >= worker.due
    with pytest.raises(ExhaustedError, match=r"longer than 0\.4 s"):
        worker.answer(REQUEST)
    assert worker.pid is None


def test_a_frame_without_its_end_is_a_death(play: Callable[..., WorkerProcess]) -> None:
    worker = play(f"hear(); say({framed(NOTHING)[:-1]!r}); sys.exit(3)")
    worker.ask(REQUEST)
    until(worker.has_answered)
    with pytest.raises(ExhaustedError, match="ended with status 3"):
        worker.answer(REQUEST)


def test_an_answer_byte_by_byte_is_one(play: Callable[..., WorkerProcess]) -> None:
    slowly = "hear()\nfor byte in " + repr(framed(NOTHING)) + ":\n    say(bytes([byte])); time.sleep(0.005)\nhear()"
    assert play(slowly).call(REQUEST) == ()


def test_who_does_not_listen_keeps_nobody(play: Callable[..., WorkerProcess]) -> None:
    worker = play("time.sleep(60)", seconds=0.1)
    worker.set_up()
    started = time.monotonic()
    with pytest.raises(ExhaustedError, match=r"longer than 0\.4 s"):
        worker.call(WritePhantom(PATH, "x" * 5_000_000))
    assert time.monotonic() - started < 30
    assert worker.pid is None


def test_who_is_busy_without_end_is_ended_by_the_kernel(
    play: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "WALL_FACTOR", 1000.0)
    worker = play("hear()\nwhile True: pass", seconds=0.2)
    with pytest.raises(ExhaustedError, match=r"more than 0\.2 s of processor time"):
        worker.call(REQUEST)
    assert worker.pid is None


def test_who_does_not_heed_that_limit_meets_the_other(play: Callable[..., WorkerProcess]) -> None:
    busy = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nhear()\nwhile True: pass"
    worker = play(busy, seconds=0.2)
    with pytest.raises(ExhaustedError, match=r"longer than 0\.8 s"):
        worker.call(REQUEST)
    assert worker.pid is None


def test_what_was_said_unasked_is_no_answer(play: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    """Otherwise every answer would count as that to the next request."""
    unasked = REQUEST.failed(Unavailable("unasked"))
    first = f"os.mkdir({str(tmp_path / 'spoken')!r}); say({framed(unasked)!r})"
    worker = play(
        f"if not os.path.exists({str(tmp_path / 'spoken')!r}):\n    {first}\n" + saying(framed(NOTHING)),
    )
    worker.set_up()
    pid = worker.pid
    assert worker.descriptor is not None
    assert connection.wait([worker.descriptor], 60)
    assert worker.call(REQUEST) == ()
    assert worker.pid != pid


def test_garbage_at_the_start_makes_no_worker(play: Callable[..., WorkerProcess]) -> None:
    worker = play(saying(b""), set_up=b"garbage")
    with pytest.raises(DefectError):
        worker.set_up()
    with pytest.raises(Unavailable):
        worker.call(REQUEST)
    assert worker.pid is None


def test_one_that_has_ended_reads_from_nobody_else_s_file(play: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    worker = play(saying(b""))
    worker.set_up()
    worker.end()
    (tmp_path / "file").write_bytes(framed(NOTHING))
    others = [os.open(tmp_path / "file", os.O_RDONLY) for _ in range(64)]  # among them the worker's former numbers
    try:
        assert worker.has_answered()
        with pytest.raises(ExhaustedError):
            worker.answer(REQUEST)
    finally:
        for other in others:
            os.close(other)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)
