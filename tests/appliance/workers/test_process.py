"""The processes that read the files: their faults and crashes never reach the daemon."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import connection
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import (
    DefectError,
    ExhaustedError,
    Held,
    KilledError,
    ReasonCode,
    Refused,
    Unavailable,
)
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.model.bundle_files import read_files
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers.messages import Prepare, ReadHeaders, Setting, Stage
from lungstage.appliance.workers.pool import WorkerPool
from lungstage.appliance.workers.process import Limits, WorkerProcess

MEGABYTE = 1024**2


@pytest.fixture
def setting(shipped_bundle: Path, tmp_path: Path) -> Setting:
    few = RobustnessOptions(perturbations=3)
    return Setting(read_files(shipped_bundle), "compiled", tmp_path, robustness=few, rehearses=False)


@pytest.fixture
def make(setting: Setting) -> Iterator[Callable[..., WorkerProcess]]:
    """Makes processes, and ends them."""
    made: list[WorkerProcess] = []

    def one(**limits: Any) -> WorkerProcess:
        made.append(WorkerProcess(setting, Limits(**limits)))
        return made[-1]

    yield one
    for process in made:
        process.end()


@pytest.fixture(scope="module")
def shared(shipped_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A process for tests without their own limits; after an end, it starts again with the next request."""
    few = RobustnessOptions(perturbations=3)
    scratch = tmp_path_factory.mktemp("scratch")
    process = WorkerProcess(
        Setting(read_files(shipped_bundle), "compiled", scratch, robustness=few, rehearses=False), Limits()
    )
    yield process
    process.end()


def test_a_study_goes_through_a_process_as_it_does_without(
    shared: WorkerProcess, tmp_path: Path, shipped_bundle: Path
) -> None:
    process = shared
    paths = phantom.write_study(tmp_path / "study")
    (case,) = assemble(header for path in paths for header in process.call(ReadHeaders(path)))
    plan = process.call(Prepare(case, settled=True, roi_name=None, match_by_geometry=False))
    created = datetime(2026, 3, 4, tzinfo=UTC)
    stage = Stage(plan, created, Site().of_study(""), beyond=plan.beyond)
    answers = [process.call(stage) for _ in range(2)]
    assert answers[0].documents == answers[1].documents
    command = ["stage", str(tmp_path / "study"), "--json", "--bundle", str(shipped_bundle), "--perturbations=3"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")], catch_exceptions=False)
    outcome = json.loads(done.stdout)
    for what in ("features", "robustness", "descriptors"):
        assert outcome[what] == answers[0].outcome[what]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {d.name for d in answers[0].documents}


def test_errors_come_through_as_what_they_are(shared: WorkerProcess, tmp_path: Path) -> None:
    process = shared
    process.set_up()
    pid = process.pid
    (tmp_path / "text").write_text("this is no DICOM")
    with pytest.raises(Refused) as refused:
        process.call(ReadHeaders(tmp_path / "text"))
    assert refused.value.reason.code is ReasonCode.DICOM_UNREADABLE
    with pytest.raises(FileNotFoundError):
        process.call(ReadHeaders(tmp_path / "nowhere"))
    paths = phantom.write_study(tmp_path / "study")[1:]
    (case,) = assemble(header for path in paths for header in process.call(ReadHeaders(path)))
    with pytest.raises(Held):
        process.call(Prepare(case, settled=True, roi_name=None, match_by_geometry=False))
    with pytest.raises(DefectError) as defect:
        process.call(ReadHeaders(tmp_path / "DOE^JANE\0"))
    assert defect.value.defect["error"] == "ValueError"
    assert "DOE" not in json.dumps(defect.value.defect)
    assert process.pid == pid  # the process is still the same


def test_a_kernel_short_of_memory_takes_a_process_at_work_before_the_daemon(shared: WorkerProcess) -> None:
    shared.set_up()
    theirs, ours = (Path(f"/proc/{who}/oom_score_adj").read_text() for who in (shared.pid, "self"))
    assert int(theirs) > int(ours)


def test_a_process_killed_at_work_or_at_rest_is_made_anew(shared: WorkerProcess, tmp_path: Path) -> None:
    process = shared
    path = phantom.write_study(tmp_path / "study")[1]
    headers = process.call(ReadHeaders(path))
    at_work = process.pid
    assert at_work is not None
    os.kill(at_work, signal.SIGSTOP)
    process.ask(ReadHeaders(path))
    os.kill(at_work, signal.SIGKILL)
    with pytest.raises(KilledError, match="SIGKILL"):
        process.answer(ReadHeaders(path))
    assert process.call(ReadHeaders(path)) == headers
    at_rest = process.pid
    assert at_rest is not None
    assert at_rest != at_work
    os.kill(at_rest, signal.SIGKILL)
    os.waitid(os.P_PID, at_rest, os.WEXITED | os.WNOWAIT)
    assert process.call(ReadHeaders(path)) == headers
    assert process.pid != at_rest


def test_what_waits_for_too_long_is_ended(
    shared: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = phantom.write_study(tmp_path / "study")[1]
    shared.set_up()
    stuck = shared.pid
    assert stuck is not None
    os.kill(stuck, signal.SIGSTOP)
    monkeypatch.setattr("lungstage.appliance.workers.process.WALL_FACTOR", 0.004)
    started = time.monotonic()
    with pytest.raises(ExhaustedError, match=r"longer than 0\.48 s"):
        shared.call(ReadHeaders(path))
    assert 0.48 <= time.monotonic() - started < 10
    assert not psutil.pid_exists(stuck)


def test_what_computes_for_too_long_is_ended(
    make: Callable[..., WorkerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lungstage.appliance.workers.process.WALL_FACTOR", 1000.0)
    process = make(seconds=0.2)
    path = phantom.write_study(tmp_path / "study")[1]
    bomb = tmp_path / "bomb"
    content = path.read_bytes()
    pixels = content.rindex(b"\xe0\x7f\x10\x00OW\0\0") + 8
    with bomb.open("wb") as file:  # pixels of 4 GB as a hole in the file; all are read for the digest
        file.write(content[:pixels] + (2**32 - 2).to_bytes(4, "little"))
        file.truncate(file.tell() + 2**32 - 2)
    process.set_up()
    busy = process.pid
    assert busy is not None
    with pytest.raises(ExhaustedError, match=r"more than 0\.2 s of processor time"):
        process.call(ReadHeaders(bomb))
    assert not psutil.pid_exists(busy)
    assert process.call(ReadHeaders(path))


def test_what_takes_too_much_memory_is_given_up(make: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    path = phantom.write_study(tmp_path / "study")[1]
    content = path.read_bytes()
    meta = content[: 144 + int.from_bytes(content[140:144], "little")]
    size = 1024 * MEGABYTE
    bomb = tmp_path / "bomb"
    with bomb.open("wb") as file:  # a private element of 1 GB, as a hole in the file
        file.write(meta + b"\x09\x00\x01\x10OB\0\0" + size.to_bytes(4, "little"))
        file.truncate(file.tell() + size)
    process = make(memory=600 * MEGABYTE)
    assert process.call(ReadHeaders(path))
    with pytest.raises((Refused, ExhaustedError)):
        process.call(ReadHeaders(bomb))
    assert process.call(ReadHeaders(path))


def test_a_process_without_room_to_start_is_no_file_s_fault(make: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        make(memory=20 * MEGABYTE).call(ReadHeaders(tmp_path))


def test_a_bundle_that_does_not_prove_itself_is_refused(setting: Setting) -> None:
    files = dict(setting.files)
    files["model.onnx"] = files["model.onnx"][:-1] + b"?"
    process = WorkerProcess(Setting(files, "compiled", setting.scratch), Limits())
    with pytest.raises(Refused) as caught:
        process.set_up()
    assert caught.value.reason.code is ReasonCode.BUNDLE_HASH_MISMATCH
    with pytest.raises(Unavailable):  # a request about a file does not make the file at fault
        process.call(ReadHeaders(Path("nowhere")))
    process.end()


def test_a_process_that_cannot_be_started_leaks_no_descriptor(
    make: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fail)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(OSError, match="unavailable"):
            make().start()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def wait_until_set_up(process: WorkerProcess) -> None:
    until = time.monotonic() + 60
    while not process.is_set_up():
        assert time.monotonic() < until
        assert process.descriptor is not None
        connection.wait([process.descriptor], 1)


def test_setting_up_can_be_waited_for_from_afar(make: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    process = make()
    process.start()
    assert not process.is_set_up()
    wait_until_set_up(process)
    pid = process.pid
    with pytest.raises(FileNotFoundError):
        process.call(ReadHeaders(tmp_path / "nowhere"))
    assert process.is_set_up()
    assert process.pid == pid


def test_what_comes_of_setting_up_is_told_from_afar_too(setting: Setting) -> None:
    files = dict(setting.files)
    files["MODEL_CARD.md"] += b"?"
    process = WorkerProcess(Setting(files, "compiled", setting.scratch), Limits())
    process.start()
    with pytest.raises(Refused):
        wait_until_set_up(process)
    process.end()


def test_a_process_killed_in_setting_up_is_not_made_anew_unasked(make: Callable[..., WorkerProcess]) -> None:
    process = make()
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ExhaustedError, match="SIGKILL"):
        wait_until_set_up(process)
    assert process.pid is None


def test_the_rehearsal_leaves_nothing_behind(setting: Setting, tmp_path: Path) -> None:
    report = DocumentOptions(formats=("sr",))
    process = WorkerProcess(replace(setting, rehearses=True, documents=report), Limits())
    process.set_up()
    process.end()
    assert list(tmp_path.iterdir()) == []


def test_who_rehearses_finds_out_that_no_study_can_be_written(setting: Setting) -> None:
    no_room = Limits(file_size=1000)
    rehearsing = WorkerProcess(replace(setting, rehearses=True), no_room)
    with pytest.raises(OSError, match="too large"):
        rehearsing.set_up()
    reading = WorkerProcess(setting, no_room)
    reading.set_up()
    reading.end()


def test_processes_end_with_their_parent(setting: Setting) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            process = WorkerProcess(setting, Limits())
            process.set_up()
            os.write(write, f"{process.pid}\n".encode())
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(write)
    with open(read) as told:
        child = psutil.Process(int(told.readline()))
    child.suspend()  # so that it cannot notice the end by itself
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone


def test_several_processes_work_side_by_side_and_nobody_waits_for_another_to_come_up(
    make: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    path = phantom.write_study(tmp_path / "study")[1]
    made: list[WorkerProcess] = []
    pool: WorkerPool[str, tuple[Header, ...]] = WorkerPool(lambda: made.append(make()) or made[-1], 2)  # type: ignore[func-returns-value]
    became: dict[str, Any] = {}

    def have_finished(*keys: str) -> bool:
        became.update(pool.finished())
        return set(keys) <= set(became)

    until(pool.free)
    pool.ask("first", ReadHeaders(path))
    assert not pool.free()  # the other process is still starting
    (other,) = (process for process in made if process.is_coming_up())
    assert other.descriptor in pool.descriptors()
    until(lambda: have_finished("first"))
    assert pool.free()  # also if the other has not started yet
    until(lambda: not other.is_coming_up())
    assert pool.descriptors() == []

    pool.ask("second", ReadHeaders(path))
    until(pool.free)
    pool.ask("third", ReadHeaders(tmp_path / "nowhere"))
    assert not pool.free()
    until(lambda: have_finished("second", "third"))
    assert [header.path for header in became["second"].result()] == [path]
    assert isinstance(became["third"].exception(), FileNotFoundError)
    assert pool.free()
    assert pool.next_due() is None
    assert pool.descriptors() == []

    (first,) = (process for process in made if process is not other)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    assert pool.free()  # the other process is free
    pool.ask("fourth", ReadHeaders(path))
    until(lambda: have_finished("fourth"))
    assert [header.path for header in became["fourth"].result()] == [path]
    pool.end()


def test_a_process_that_does_not_come_up_is_told_to_whoever_asks(setting: Setting, tmp_path: Path) -> None:
    pool: WorkerPool[str, tuple[Header, ...]] = WorkerPool(
        lambda: WorkerProcess(setting, Limits(memory=20 * MEGABYTE)), 1
    )
    until(pool.free)
    with pytest.raises(Unavailable):
        pool.ask("first", ReadHeaders(tmp_path))
    assert pool.keys == frozenset()
    pool.end()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)
