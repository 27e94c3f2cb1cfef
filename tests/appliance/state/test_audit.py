"""The audit log: every change of it is noticed, a crash loses nothing silently, and it contains no names."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Reason, ReasonCode, Unavailable
from lungstage.appliance.state import audit, chain
from lungstage.appliance.state.audit import GENESIS, Audit, unseal
from lungstage.appliance.state.chain import Verdict, entries, verify
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import Ledger
from tests.conftest import ROOT
from tests.support.simulated import House, put_study, with_stop

ANSWER = {"stage": "early", "probability_advanced": 0.25, "features": {"a": 1e-300, "b": None}}


def filled(folder: Path, count: int = 6, **options: Any) -> Path:
    log = Audit(folder, **options)
    for number in range(count):
        log.write("job_report_ready", job=number, study="1.2", answer=ANSWER)
    return folder


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("audit-*.jsonl")
    return path


def is_whole(folder: Path) -> Verdict:
    verdict = verify(folder)
    assert verdict.fault is None, verdict.fault
    return verdict


def test_an_entry_says_what_was_told_and_is_chained_to_the_one_before(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    first, second = entries(tmp_path)
    assert (first.seq, first.event, dict(first.fields)) == (
        1, "job_report_ready", {"job": 0, "study": "1.2", "answer": ANSWER},
    )  # fmt: skip
    assert (first.previous, second.previous) == (GENESIS, first.sha256)
    assert is_whole(tmp_path).sha256 == second.sha256
    assert only_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_line_is_verified_with_the_tools_that_every_system_has(tmp_path: Path) -> None:
    """The command of docs/audit.md."""
    line = only_file(filled(tmp_path)).read_text().splitlines()[3]
    documented = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    command = next(text for text in documented.splitlines() if "sha256sum" in text)
    said = subprocess.run(["bash", "-c", command], input=line, capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == json.loads(line)["sha256"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_changed_byte_is_found_where_it_is(tmp_path: Path, place: float, change: int) -> None:
    """The place is a share of the log's length, because this length varies."""
    folder = tmp_path / "log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = only_file(filled(folder))
    content = bytearray(path.read_bytes())
    at = int(place * (len(content) - 1))  # not the last byte: without it the last line counts as torn
    content[at] ^= change
    line = bytes(content[:at]).count(b"\n") + 1
    path.write_bytes(content)
    fault = verify(folder).fault
    assert fault is not None
    assert fault.line == line


def test_a_last_line_without_its_end_is_torn(tmp_path: Path) -> None:
    path = only_file(filled(tmp_path))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert verify(tmp_path).torn > 0


@pytest.mark.parametrize("deed", ["remove", "repeat", "swap", "forge", "begin"])
def test_lines_cannot_be_moved_about(tmp_path: Path, deed: str) -> None:
    path = only_file(filled(tmp_path))
    lines = path.read_bytes().splitlines(keepends=True)
    if deed == "remove":
        del lines[2]
    elif deed == "repeat":
        lines.insert(2, lines[2])
    elif deed == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    elif deed == "forge":  # an entry with a correct hash of itself
        entry = unseal(lines[2].rstrip())
        assert entry is not None
        _, line = audit.seal(entry.seq, entry.event, {"job": 99}, None, entry.previous)
        lines[2] = line + b"\n"
    else:
        lines[0] = audit.seal(1, "job_report_ready", {}, None, "f" * 64)[1] + b"\n"
    path.write_bytes(b"".join(lines))
    fault = verify(tmp_path).fault
    assert fault is not None
    assert fault.line == {"remove": 3, "repeat": 4, "swap": 3, "forge": 4, "begin": 1}[deed]


def test_an_end_that_was_cut_off_is_found_by_a_hash_that_was_noted(tmp_path: Path) -> None:
    noted = verify(filled(tmp_path)).sha256
    assert verify(tmp_path, expected=noted).fault is None
    path = only_file(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    assert verify(tmp_path).fault is None, "a chain that is cut after a line looks whole"
    fault = verify(tmp_path, expected=noted).fault
    assert fault is not None
    assert noted in fault.why
    Audit(tmp_path).write("daemon_started")
    assert verify(tmp_path, expected=noted).fault is not None


# Crashes


def test_a_torn_last_line_is_closed_over_wherever_it_is_torn(tmp_path: Path) -> None:
    whole = only_file(filled(tmp_path, 3)).read_bytes()
    second = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for end in range(second, len(whole) + 1):
        folder = tmp_path / str(end)
        folder.mkdir()
        (folder / "audit-000001.jsonl").write_bytes(whole[:end])
        torn = 0 if end >= len(whole) - 1 else end - second
        assert (is_whole(folder).torn, verify(folder).entries) == (torn, 2 if end < len(whole) - 1 else 3)
        Audit(folder).write("daemon_started", software="1")
        after = is_whole(folder)
        assert (after.torn, [size for _, size in after.recovered]) == (0, [torn] if torn else [])
        assert [*entries(folder)][-1].event == "daemon_started"
        assert (folder / "audit-000001.jsonl").read_bytes().startswith(whole[:end]), "nothing may be removed"


def test_a_crash_while_closing_over_a_torn_line_is_closed_over_too(tmp_path: Path) -> None:
    path = only_file(filled(tmp_path, 3))
    path.write_bytes(path.read_bytes()[:-40])
    torn = path.read_bytes()
    Audit(tmp_path).write("daemon_started")
    whole = path.read_bytes()
    for end in range(len(torn) + 2, whole.rindex(b"\n", 0, -1), 7):
        path.write_bytes(whole[:end])
        assert verify(tmp_path).fault is None
        Audit(tmp_path).write("daemon_started")
        assert len(is_whole(tmp_path).recovered) == 1


def test_junk_that_nobody_closed_over_does_not_fit(tmp_path: Path) -> None:
    path = only_file(filled(tmp_path, 3))
    with path.open("ab") as file:
        file.write(b"not an entry\n")
    fault = verify(tmp_path).fault
    assert fault is not None
    assert fault.line == 4
    Audit(tmp_path).write("daemon_started")
    assert is_whole(tmp_path).recovered == [(4, len(b"not an entry\n"))], "the junk is recorded by the next entry"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert verify(tmp_path).fault is not None, "junk that an entry records must stay there"


def test_what_is_said_again_is_marked_as_such_even_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    log = Audit(tmp_path, rotate_bytes=1)
    log.write("job_report_ready", job=1, study="1.2", answer=ANSWER)  # begins the next file
    log.write("job_report_ready", job=1, study="1.2", answer=ANSWER | {"stage": "advanced"})
    log.write("job_delivered", job=1, study="1.2", answer=ANSWER)
    log.write("daemon_started")
    log.write("daemon_started")
    assert [entry.repeats for entry in entries(tmp_path)] == [None, None, 2, None, None, None, None]


@pytest.mark.parametrize("rotate_bytes", [audit.ROTATE_BYTES, 1])
def test_only_the_latest_statements_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotate_bytes: int
) -> None:
    monkeypatch.setattr(audit, "_REMEMBERED", 4)
    log = Audit(tmp_path, rotate_bytes=rotate_bytes)
    for job in [*range(20), 17, 0]:
        log.write("job_report_ready", job=job, answer=ANSWER)
        assert len(log._said) + len(log._said_before) <= 8
    Audit(tmp_path).write("job_report_ready", job=17, answer=ANSWER)  # another process reads them from the files
    assert [entry.repeats for entry in [*entries(tmp_path)][20:]] == [18, None, 18]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Limit files of this process to 700 bytes, as if the disk became full while an entry is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_unavailable_and_its_half_an_entry_is_closed_over(tmp_path: Path, small_files: None) -> None:
    log = Audit(tmp_path)
    log.write("job_opened", job=1)
    with pytest.raises(Unavailable, match="audit log"):
        log.write("job_opened", job=2, study="1" * 700)
    with pytest.raises(Unavailable):
        log.write("job_opened", job=2, study="1" * 700)
    assert only_file(tmp_path).stat().st_size == 700
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    log.write("job_opened", job=2, study="1" * 700)
    assert len(is_whole(tmp_path).recovered) == 1
    assert [entry.event for entry in entries(tmp_path)] == ["job_opened", "recovered", "job_opened"]


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Audit(tmp_path / "away").write("daemon_started")
    with pytest.raises(Unavailable, match="no audit log"):
        verify(tmp_path / "away")
    with pytest.raises(Unavailable, match="no audit log"):
        verify(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that are not its own")
def test_what_root_begins_the_daemon_can_go_on_with(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    filled(tmp_path, 6, rotate_bytes=600)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) > 2
    assert owners == {(12345, 23456)}


def test_an_entry_s_own_members_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="previous"):
        Audit(tmp_path).write("daemon_started", previous="0")


# Files


def test_the_chain_goes_on_from_file_to_file_and_from_where_an_archive_ends(tmp_path: Path) -> None:
    filled(tmp_path, 20, rotate_bytes=600)
    files = sorted(tmp_path.glob("audit-*.jsonl"))
    assert len(files) > 4
    assert (is_whole(tmp_path).files, is_whole(tmp_path).last) == (len(files), 20)
    (tmp_path / "archive").mkdir()
    for path in files[:2]:
        path.rename(tmp_path / "archive" / path.name)
    Audit(tmp_path, rotate_bytes=600).write("daemon_started")
    rest = is_whole(tmp_path)
    assert rest.first == is_whole(tmp_path / "archive").last + 1
    assert rest.last == 21
    files[3].unlink()
    fault = verify(tmp_path).fault
    assert fault is not None
    assert files[4].name in fault.file
    assert "missing" in fault.why


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lungstage.appliance.state.audit import Audit\n"
        "log = Audit(Path(sys.argv[1]), rotate_bytes=4000)\n"
        "for n in range(40): log.write('job_ready', job=int(sys.argv[2]), n=n)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, tmp_path, str(n)], cwd=ROOT) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert is_whole(tmp_path).last == 120
    told = sorted((entry.fields["job"], entry.fields["n"]) for entry in entries(tmp_path))
    assert told == [(job, n) for job in range(3) for n in range(40)]


# With ledger and daemon


def test_the_ledger_finds_out_that_the_last_delivery_was_cut_off(tmp_path: Path) -> None:
    house = House(tmp_path)
    put_study(house.inbox)
    house.run(2)
    assert verify(house.state, house.ledger.jobs.find()).jobs == 1
    path = only_file(house.state)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b"job_delivered" not in line))
    fault = verify(house.state, house.ledger.jobs.find()).fault
    assert fault is not None
    assert "Job 1 is delivered in the ledger" in fault.why


def test_jobs_from_before_there_was_a_log_are_not_missed(tmp_path: Path) -> None:
    house = House(tmp_path)
    put_study(house.inbox)
    house.run(2)
    only_file(house.state).unlink()
    Audit(house.state).write("daemon_started")
    verdict = verify(house.state, house.ledger.jobs.find())
    assert (verdict.fault, verdict.jobs) == (None, 0)


def test_a_study_s_entries_say_which_bytes_which_bundle_and_which_answer(tmp_path: Path) -> None:
    house = House(tmp_path)
    put_study(house.inbox)
    house.run(2)
    by_event = {entry.event: entry.fields for entry in entries(house.state)}
    assert next(iter(by_event)) == "job_opened"
    assert list(by_event)[-3:] == ["job_ready", "job_report_ready", "job_delivered"]
    job = house.job()
    ready, staged, delivered = (by_event[f"job_{state}"] for state in ("ready", "report_ready", "delivered"))
    assert len(ready["instances"]) == 6
    assert {fields["fingerprint"] for fields in (ready, staged, delivered)} == {job.fingerprint}
    assert {fields["bundle"] for fields in (ready, staged, delivered)} == {job.bundle_digest}
    assert staged["answer"] == {"stage": "early", "probability_advanced": 0.25}
    assert (delivered["sr"], staged["created"]) == (
        job.sr_sop_instance_uid,
        job.created_at and job.created_at.isoformat(),
    )
    lying = {path.name: audit.hashlib.sha256(path.read_bytes()).hexdigest() for path in house.outbox.iterdir()}
    assert staged["documents"] == delivered["documents"] == lying


def test_every_state_is_told_once(tmp_path: Path) -> None:
    house = House(tmp_path)
    put_study(house.inbox)
    spare = (house.inbox / "1.5-2.dcm").rename(tmp_path / "spare")
    house.run(10)
    spare.rename(house.inbox / "late.dcm")
    put_study(house.inbox, "1.6", 5, "refuse")
    house.run(30)
    with Database(house.state / "ledger.sqlite") as command_line:
        Ledger(command_line).requeue(1)
    house.run(3)
    told = [(entry.event.removeprefix("job_"), entry.repeats is not None) for entry in entries(house.state)
            if entry.fields["job"] == 1]  # fmt: skip
    assert [event for event, _ in told] == [
        "opened", "waiting", "held", "ready", "report_ready", "delivered",
        "requeued", "ready", "report_ready", "delivered",
    ]  # fmt: skip
    assert [again for _, again in told[-3:]] == [True, True, True]
    refused = [entry for entry in entries(house.state) if entry.event == "job_refused"]
    assert [entry.fields["reason"]["code"] for entry in refused] == ["roi_empty"]


def test_nothing_is_delivered_while_the_log_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    append, full = audit._append_to, [False]

    def append_or_fail(path: Path, content: bytes) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(path, content)

    monkeypatch.setattr(audit, "_append_to", append_or_fail)
    with_stop(house, 1)
    house.wake.stopping = False
    stage = house.steps.during_stage

    def fill_the_disk() -> None:
        full[0] = True

    house.steps.during_stage = fill_the_disk  # between the plan and the answer
    put_study(house.inbox)
    with pytest.raises(Unavailable, match="audit log"):
        with_stop(house, 30)
    assert house.steps.calls["stage"] >= 1
    assert not list(house.outbox.iterdir())
    assert JobState.REPORT_READY not in [job.state for job in house.ledger.jobs.find()]
    full[0], house.steps.during_stage, house.wake.stopping = False, stage, False
    with_stop(house, 70)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1
    assert verify(house.state, house.ledger.jobs.find()).fault is None


def test_a_ledger_that_cannot_commit_makes_a_repeat_that_is_marked(tmp_path: Path) -> None:
    database = Database(tmp_path / "ledger.sqlite")
    ledger = Ledger(database)
    job = ledger.open_job("a", "1.2", None, "1.2.3")
    reason = Reason(ReasonCode.SLICES_MISSING, "2 slices are missing.")

    def told_and_lost() -> None:
        with database.transaction():
            ledger.hold(job.id, reason, content="c")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        told_and_lost()
    again = Ledger(Database(tmp_path / "ledger.sqlite"))
    assert again.jobs.find()[0].state is JobState.WAITING
    again.hold(job.id, reason, content="c")
    assert [(e.event, e.repeats) for e in entries(tmp_path)] == [
        ("job_opened", None),
        ("job_held", None),
        ("job_held", 2),
    ]


def test_the_daemon_s_own_studies_are_not_told(tmp_path: Path) -> None:
    ledger = Ledger(Database(tmp_path / "ledger.sqlite"))
    job = ledger.open_job("a", "1.2", None, "1.2.3", canary=True)
    ledger.ready(job.id, content="c", fingerprint="f", bundle_digest="b")
    assert [*entries(tmp_path)] == []
    ledger.open_job("b", "1.2", None, "1.2.3")
    assert [entry.event for entry in entries(tmp_path)] == ["job_opened"]


def test_entries_can_be_looked_for_by_a_text(tmp_path: Path) -> None:
    filled(tmp_path)
    assert [entry.seq for entry in chain.entries(tmp_path, '"job":3,')] == [4]
