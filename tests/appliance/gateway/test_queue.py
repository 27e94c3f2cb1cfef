"""The queue loses nothing, sends an SR after its SEG, and does not wait for ever after the clock is set."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.queue import Document, NoSuchDeliveryError, Queue

TO, OTHER = "dicom://PACS@h:1", "file:///x"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def document(kind: str, number: int, study: str = "1.2") -> Document:
    return Document(f"{kind.upper()}-1.{number}.dcm", kind, f"1.9.{kind == 'sr'}", f"1.{number}", study)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Queue:
    return Queue(tmp_path / "q", clock)


def test_an_sr_waits_for_the_segs_of_its_study_and_for_no_other(queue: Queue) -> None:
    queue.put(document("sr", 1), [TO])
    queue.put(document("seg", 2), [TO, OTHER])
    queue.put(document("seg", 3, "1.3"), [TO])
    first = queue.next(TO)
    assert first is not None
    assert first.document.kind == "seg"
    queue.waits(first, 60, "full", unsure=True)
    other = queue.next(TO)
    assert other is not None
    assert other.document.study_instance_uid == "1.3"
    queue.delivered(other, committed=True)
    assert queue.next(TO) is None, "the SR waits for its SEG"
    queue.refused(first, 60, "SOP Class")
    report = queue.next(TO)
    assert report is not None
    assert report.document.kind == "sr", "the SR does not wait for a SEG that the destination refuses"


def test_it_outlives_the_process_and_knows_what_is_not_known(queue: Queue, tmp_path: Path) -> None:
    queue.put(document("sr", 1), [TO])
    delivery = queue.next(TO)
    assert delivery is not None
    assert not delivery.unsure
    queue.begin(delivery)
    again = Queue(tmp_path / "q").next(TO)
    assert again is not None
    assert again.unsure
    assert again.attempts == 1


def test_a_document_is_queued_once_for_a_destination(queue: Queue) -> None:
    for _ in range(2):
        queue.put(document("sr", 1), [TO, OTHER])
    assert len(queue.open_deliveries()) == 2
    assert queue.known() == {"SR-1.1.dcm"}


@given(st.floats(-1e9, 1e9), st.floats(0, 86000))
@settings(max_examples=50, deadline=None)
def test_a_clock_that_is_set_keeps_nothing_waiting_for_longer_than_a_day(
    tmp_path_factory: pytest.TempPathFactory, jump: float, pause: float
) -> None:
    clock = Clock()
    queue = Queue(tmp_path_factory.mktemp("q") / "q", clock)
    queue.put(document("sr", 1), [TO])
    delivery = queue.next(TO)
    assert delivery is not None
    queue.waits(delivery, pause, "away", unsure=False)
    clock.now += jump
    waited = 0.0
    while queue.next(TO) is None:
        clock.now += 3600
        waited += 3600
        assert waited <= 86400 + 3600


def test_a_commitment_says_what_is_kept_and_what_is_sent_again(queue: Queue, clock: Clock) -> None:
    for number in (1, 2, 3):
        queue.put(document("seg", number), [TO])
    while (delivery := queue.next(TO)) is not None:
        queue.stored(delivery)
    asked = queue.to_commit(TO, 600)
    assert len(asked) == 3
    queue.asked(asked, "2.25.1", 600)
    assert queue.to_commit(TO, 600) == ()
    assert queue.committed("2.25.9", ["1.1"], [], 5) == 0, "an answer to an unknown transaction counts for nothing"
    assert queue.committed("2.25.1", ["1.1", "1.77"], ["1.2"], 5) == 2
    assert queue.counts() == {(TO, "delivered"): 1, (TO, "stored"): 1, (TO, "waiting"): 1}
    clock.now += 6
    again = queue.next(TO)
    assert again is not None
    assert (again.document.sop_instance_uid, again.unsure) == ("1.2", False), "the destination said that it is missing"
    clock.now += 600
    assert [one.document.sop_instance_uid for one in queue.to_commit(TO, 600)] == ["1.3"], "asked again"


def test_retry_asks_first_and_knows_what_it_cannot_do(queue: Queue) -> None:
    queue.put(document("sr", 1), [TO])
    delivery = queue.next(TO)
    assert delivery is not None
    queue.refused(delivery, 3600, "status C000")
    assert queue.next(TO) is None
    queue.retry(delivery.id)
    again = queue.next(TO)
    assert again is not None
    assert again.unsure
    queue.delivered(again, committed=True)
    for number in (delivery.id, 99):
        with pytest.raises(NoSuchDeliveryError):
            queue.retry(number)


def test_a_file_that_is_no_queue_is_told(tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="queue"):
        Queue(tmp_path / "q")


def test_how_long_a_study_rested_is_counted_and_not_told_by_a_clock(queue: Queue, clock: Clock) -> None:
    queue.received("1.2", "CT1")
    assert queue.rested("1.2", 10) == 10
    clock.now += 1e9
    assert queue.rested("1.2", 10) == 20
    queue.not_at_rest("1.2")
    assert queue.rested("1.2", 5) == 5
    assert queue.senders("1.2") == {"CT1"}
    queue.forget("1.2")
    assert queue.studies() == frozenset()


def test_its_commits_survive_a_power_cut(queue: Queue, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "q") as other:
        assert other.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert queue._run("PRAGMA synchronous")[0][0] == 2
