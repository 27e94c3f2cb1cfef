"""Requests of users on the page, put into the daemon's folder as the page does it."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import ReasonCode, Unavailable
from lungstage.appliance.state import chain, requests
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.state.requests import Request, TakenRequests
from tests.support.fake_steps import put_roi, put_slice
from tests.support.simulated import House, put_study, with_stop

ROI = "1.5.99"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def ask(house: House, job: Job, user: str = "anna", **region: Any) -> str:
    kind: Any = "choose_region" if region else "process_again"
    return requests.put(house.state, Request(kind, job.id, job.updated_at, user, **region))


def events(house: House, *names: str) -> list[dict[str, Any]]:
    return [entry.as_dict() for entry in chain.entries(house.state) if entry.event in names]


def verdicts(house: House, job: int = 1) -> list[tuple[str, str | None]]:
    return [(taken.user, taken.refusal) for taken in TakenRequests(house.database).of_job(job)][::-1]


def test_a_delivered_job_is_processed_again_and_gives_the_same_bytes(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    (report,) = house.reports()
    before, content = house.job(), report.read_bytes()
    report.unlink()
    name = ask(house, before)
    house.run(3)
    assert house.states() == ["delivered"]
    assert house.reports() == [report]
    assert report.read_bytes() == content
    assert requests.waiting(house.state) == ()
    (granted,) = events(house, "request_granted")
    assert granted["user"] == "anna"
    assert granted["request"] == name
    assert granted["job"] == before.id
    assert verdicts(house) == [("anna", None)]
    assert chain.verify(house.state, house.ledger.jobs.find()).fault is None


def test_of_two_who_ask_the_first_is_served_and_the_other_told(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    job = house.job()
    ask(house, job, "anna")
    ask(house, job, "ben")
    house.run(3)
    assert house.states() == ["delivered"]
    (anna, served), (ben, told) = verdicts(house)
    assert (anna, ben, served) == ("anna", "ben", None)
    assert told is not None
    assert "has changed since" in told
    (refused,) = events(house, "request_refused")
    assert (refused["user"], refused["why"]) == ("ben", told)
    assert len(events(house, "job_requeued")) == 1


class TestARegion:
    """A region that a person chooses where the rule selects none."""

    @pytest.fixture
    def ambiguous(self, house: House) -> House:
        put_study(house.inbox, "1.5", 5, "ambiguous")
        house.run(4)
        assert house.job().reason is not None
        assert house.states() == ["refused"]
        return house

    def test_that_is_chosen_is_answered(self, ambiguous: House) -> None:
        ask(ambiguous, ambiguous.job(), roi=ROI, number=2)
        ambiguous.run(4)
        assert ambiguous.states() == ["delivered"]
        assert ambiguous.job().choice == RegionChoice(ROI, 2)
        (requeued,) = events(ambiguous, "job_requeued")
        assert requeued["region"] == {"roi": ROI, "number": 2}

    def test_holds_over_a_restart_and_for_what_comes_to_the_case_later(self, ambiguous: House) -> None:
        ask(ambiguous, ambiguous.job(), roi=ROI, number=2)
        ambiguous.run(4)
        ambiguous.restart()
        put_roi(ambiguous.inbox, ROI, "1.5", range(6), "ambiguous")
        put_slice(ambiguous.inbox, "1.5", 5)
        ambiguous.run(6)
        assert ambiguous.states() == ["delivered", "delivered"]
        assert ambiguous.ledger.jobs.find()[-1].choice == RegionChoice(ROI, 2)

    def test_does_not_hold_for_another_object(self, ambiguous: House) -> None:
        ask(ambiguous, ambiguous.job(), roi="1.2.3", number=2)
        ambiguous.run(6)
        job = ambiguous.job()
        assert job.state is JobState.REFUSED
        assert job.reason is not None
        assert job.reason.code is ReasonCode.ROI_AMBIGUOUS

    def test_can_be_chosen_otherwise_afterwards(self, ambiguous: House) -> None:
        ask(ambiguous, ambiguous.job(), roi=ROI, number=2)
        ambiguous.run(4)
        ask(ambiguous, ambiguous.job(), roi=ROI, number=3)
        ambiguous.run(4)
        assert ambiguous.job().choice == RegionChoice(ROI, 3)
        assert ambiguous.states() == ["delivered"]
        assert verdicts(ambiguous) == [("anna", None), ("anna", None)]

    def test_is_not_chosen_where_none_is_open(self, house: House) -> None:
        put_study(house.inbox)
        house.run(2)
        ask(house, house.job(), roi=ROI, number=2)
        house.run(2)
        ((_, told),) = verdicts(house)
        assert told == "Job 1 does not need a choice of region."
        assert events(house, "job_requeued") == []


def test_a_job_that_is_not_at_rest_or_not_there_is_left_alone(house: House) -> None:
    put_roi(house.inbox, ROI, "1.5", range(5))
    house.run(1)
    waiting = house.job()
    assert waiting.state is JobState.WAITING
    ask(house, waiting)
    requests.put(house.state, Request("process_again", 77, waiting.updated_at, "anna"))
    house.run(2)
    (_, not_at_rest), *_ = verdicts(house)
    assert not_at_rest is not None
    assert verdicts(house, 77) == [("anna", "There is no job 77.")]


def test_a_crash_between_taking_and_removing_has_nothing_done_twice(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    name = ask(house, house.job())
    path = house.state / requests.FOLDER / name
    content = path.read_bytes()
    house.run(3)
    path.write_bytes(content)  # as if the daemon had not removed it
    house.restart()
    house.run(3)
    assert requests.waiting(house.state) == ()
    assert len(events(house, "request_granted")) == len(events(house, "job_requeued")) == 1
    assert verdicts(house) == [("anna", None)]


def test_a_ledger_that_cannot_be_written_leaves_the_request_for_later(house: House, monkeypatch: Any) -> None:
    put_study(house.inbox)
    house.run(2)
    ask(house, house.job())

    def full(*_: object) -> bool:
        raise Unavailable("its disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "take_request", full)
        with pytest.raises(Unavailable):
            house.run(2)
        assert len(requests.waiting(house.state)) == 1
    house.run(3)
    assert verdicts(house) == [("anna", None)]


NAME = "1700000000000000000-00000000000000aa.json"
GOOD = {"kind": "process_again", "job": 1, "seen": "2026-01-01T00:00:00+00:00", "user": "anna"}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b"{" * 5000, b" " * 5000,
        *(json.dumps({**GOOD, **other}).encode() for other in (
            {"job": "1"}, {"job": 0}, {"job": 1.5}, {"job": 2**70}, {"kind": "delete"}, {"user": "a b"}, {"user": ""},
            {"user": "DOE^JANE"}, {"seen": "2026-01-01T00:00:00"}, {"seen": 0}, {"kind": "choose_region"},
            {"roi": "1.2", "number": 1}, {"kind": "choose_region", "roi": "../x", "number": 1},
            {"kind": "choose_region", "roi": "1.2", "number": -1}, {"more": 1},
        )),
    ],
)  # fmt: skip
def test_what_is_no_request_is_removed_and_told_without_a_word_of_it(house: House, content: bytes) -> None:
    put_study(house.inbox)
    house.run(2)
    folder = house.state / requests.FOLDER
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_bytes(content)
    house.run(2)
    assert requests.waiting(house.state) == ()
    (told,) = events(house, "request_unreadable")
    assert set(told) == {"seq", "time", "event", "request", "why", "previous", "sha256"}
    assert house.states() == ["delivered"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    job=st.integers(1, 2**63 - 1),
    user=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True),
    region=st.none() | st.tuples(st.from_regex(r"[0-9.]{1,64}", fullmatch=True), st.integers(0, 2**31 - 1)),
    seen=st.datetimes(timezones=st.just(UTC)),
)
def test_a_request_is_read_as_it_was_put(
    tmp_path: Path, job: int, user: str, region: tuple[str, int] | None, seen: datetime
) -> None:
    kind: Any = "process_again" if region is None else "choose_region"
    request = Request(kind, job, seen, user, *(region or ()))
    name = requests.put(tmp_path, request)
    assert requests.read(tmp_path, name) == request
    (tmp_path / requests.FOLDER / name).unlink()


def test_links_folders_and_pipes_among_the_requests_stop_nothing(house: House, tmp_path: Path) -> None:
    put_study(house.inbox)
    house.run(2)
    folder = house.state / requests.FOLDER
    folder.mkdir(exist_ok=True)
    target = tmp_path / "target.json"
    target.write_text(json.dumps({**GOOD, "seen": house.job().updated_at.isoformat()}))
    (folder / NAME).symlink_to(target)
    (folder / NAME.replace("aa", "ab")).mkdir()
    os.mkfifo(folder / NAME.replace("aa", "ac"))
    ask(house, house.job())
    house.run(4)
    assert requests.waiting(house.state) == (NAME.replace("aa", "ab"),)
    assert target.exists()
    assert verdicts(house) == [("anna", None)]
    assert len(events(house, "request_unreadable")) == 3


def test_no_more_than_so_many_wait(tmp_path: Path) -> None:
    (tmp_path / requests.FOLDER).mkdir()
    for n in range(requests.MOST_WAITING):
        (tmp_path / requests.FOLDER / f"{n:019}-{n:016x}.json").touch()
    with pytest.raises(Unavailable, match="requests wait already"):
        requests.put(tmp_path, Request("process_again", 1, datetime.now(UTC), "anna"))


def test_a_daemon_that_has_ended_holds_no_file_events(house: House) -> None:
    def instances() -> int:
        folder = Path("/proc/self/fd")
        return sum("inotify" in os.readlink(path) for path in folder.iterdir() if path.is_symlink())

    before = instances()
    with_stop(house, 2)
    assert instances() == before - 1
    with_stop(house, 2)  # the daemon can be called again
    assert instances() == before - 1


def test_files_of_a_study_are_found_by_an_index(house: House) -> None:
    put_study(house.inbox)
    house.run(2)
    with sqlite3.connect(house.state / "ledger.sqlite") as database:
        from lungstage.appliance.state.file_table import _STUDY

        plan = database.execute(f"EXPLAIN QUERY PLAN SELECT path FROM files WHERE {_STUDY} = '1'").fetchall()
    assert "files_by_study" in plan[0][3]
