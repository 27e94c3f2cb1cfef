"""The daemon waits for slices next to the region, in any order of arrival and over restarts, but not for ever."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.state import chain
from lungstage.appliance.state.job import JobState
from tests.support.fake_steps import put_roi, put_slice
from tests.support.simulated import House

WAIT = 40.0  # seconds; of the daemon's time, which is simulated
NEEDED, WHOLE = range(4), range(-1, 5)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, missing_neighbour_wait=WAIT)


def put(house: House, number: int | None) -> None:
    """Put one slice of the study into the inbox, or its region for None."""
    if number is None:
        put_roi(house.inbox, "1.5.99", "1.5", NEEDED, "neighbours")
    else:
        put_slice(house.inbox, "1.5", number)


def test_a_pause_at_the_edge_of_the_tumour_makes_no_report(house: House) -> None:
    for number in (None, *NEEDED):
        put(house, number)
    house.run(10)
    job = house.job()
    assert house.states() == ["waiting"]  # not held, as no person must act
    assert job.reason is not None
    assert job.reason.code is ReasonCode.MORE_MAY_COME
    assert "continues by itself, at the latest at" in job.reason.message
    examined = house.steps.calls["prepare"]
    house.run(WAIT - 15)
    assert house.states() == ["waiting"]
    assert house.steps.calls["prepare"] == examined
    house.run(10)
    assert house.states() == ["delivered"]
    assert house.steps.calls["prepare"] == examined + 1


def test_a_neighbour_that_comes_ends_the_wait(house: House) -> None:
    for number in (None, *NEEDED, -1):
        put(house, number)
    house.run(WAIT / 2)
    assert house.states() == ["waiting"]
    put(house, 4)
    house.run(1)
    assert house.states() == ["delivered"]


def test_one_that_comes_begins_the_wait_anew(house: House) -> None:
    for number in (None, *NEEDED):
        put(house, number)
    house.run(WAIT - 5)
    put(house, -1)
    house.run(WAIT - 5)
    assert house.states() == ["waiting"]
    house.run(10)
    assert house.states() == ["delivered"]


def test_files_that_are_not_read_yet_keep_the_wait_open(house: House) -> None:
    for number in (None, *NEEDED):
        put(house, number)
    house.run(WAIT - 1)
    house.steps.during_read = lambda: setattr(house.wake, "now", house.wake.now + 0.4)
    for n in range(40):
        put_slice(house.inbox / "other", "1.6", n)
    put_slice(house.inbox / "z", "1.5", 4)
    house.run(3)
    assert not house.reports()  # one of the unread files could be the awaited slice
    put(house, -1)
    house.run(60)
    assert len(house.reports()) == 1
    assert house.steps.calls["stage"] == 1


def _age(house: House, seconds: float) -> None:
    """Make every file older by the wall clock, as if the daemon had been stopped for that time."""
    house.database.query(
        "UPDATE files SET read_at = strftime('%Y-%m-%dT%H:%M:%f+00:00', read_at, ?)", (f"-{seconds} seconds",)
    )


def test_the_wait_goes_on_where_the_former_process_left_it(house: House) -> None:
    for number in (None, *NEEDED):
        put(house, number)
    house.run(10)
    _age(house, 20)
    house.restart()
    house.run(10)
    assert house.states() == ["waiting"]
    house.run(15)
    assert house.states() == ["delivered"]


def test_a_wait_that_ended_while_nobody_was_there_is_over(house: House) -> None:
    for number in (None, *NEEDED):
        put(house, number)
    house.run(10)
    _age(house, 2 * WAIT)
    house.restart()
    house.run(5)
    assert house.states() == ["delivered"]


def test_what_came_while_nobody_was_there_is_waited_for(house: House) -> None:
    for number in (None, *NEEDED):
        put(house, number)
    house.run(10)
    _age(house, 2 * WAIT)
    house.database.close()
    put(house, -1)
    put(house, 4)
    house.start()
    house.run(5)
    assert len(house.reports()) == 1
    assert house.steps.calls["stage"] == 1


def test_slices_of_the_region_itself_are_waited_for_without_end(house: House) -> None:
    for number in (None, -1, 0, 1, 3, 4):
        put(house, number)
    house.run(3 * WAIT)
    job = house.job()
    assert job.state is JobState.HELD
    assert job.reason is not None
    assert job.reason.code is ReasonCode.SLICES_MISSING


def _deliver_first(house: House, by_position: bool) -> None:
    """Make the first report of a region that names its slices, or that names none."""
    put_roi(house.inbox, "1.5.99", "1.5", NEEDED, "1.7", *(["unnamed"] if by_position else []))
    for number in NEEDED:
        put_slice(house.inbox, "1.5", number)
    house.run(5)


@pytest.mark.parametrize("by_position", [True, False])
def test_a_series_that_comes_later_makes_a_report_by_position_doubtful(house: House, by_position: bool) -> None:
    _deliver_first(house, by_position)
    (first,) = house.ledger.jobs.find()
    assert (first.state, first.reason) == (JobState.DELIVERED, None)
    for number in NEEDED:
        put_slice(house.inbox, "1.6", number)
    house.run(10)
    first, *_ = house.ledger.jobs.find()
    assert first.state is JobState.DELIVERED
    assert (first.reason is not None and first.reason.code is ReasonCode.AMBIGUOUS_INPUT) is by_position
    house.run(30)
    assert [entry.event for entry in chain.entries(house.state)].count("job_questioned") == by_position
    assert len(house.reports()) == 1


@pytest.mark.parametrize("by_position", [True, False])
def test_slices_in_the_same_places_make_a_report_by_position_doubtful(house: House, by_position: bool) -> None:
    _deliver_first(house, by_position)
    assert house.states() == ["delivered"]

    def refuse() -> None:
        raise Refused(ReasonCode.DUPLICATE_POSITION, "Two slices lie in one place.")

    house.steps.during_prepare = refuse
    put_slice(house.inbox, "1.5", 7)
    house.run(30)
    first, second = house.ledger.jobs.find()
    assert (first.state, second.state) == (JobState.DELIVERED, JobState.REFUSED)
    assert (first.reason is not None and first.reason.code is ReasonCode.AMBIGUOUS_INPUT) is by_position
    assert len(house.reports()) == 1


@given(
    order=st.permutations([None, *WHOLE]),
    pauses=st.lists(st.one_of(st.floats(0, 5), st.floats(0, WAIT - 5)), min_size=7, max_size=7),
    restarts=st.sets(st.integers(0, 6), max_size=2),
)
@settings(max_examples=12, deadline=None)
def test_any_order_and_any_pauses_give_the_one_report_of_the_whole(
    order: list[int | None], pauses: list[float], restarts: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, house = (House(Path(folder), missing_neighbour_wait=WAIT) for folder in (one, other))
        for number in (None, *WHOLE):
            put(whole, number)
        whole.run(5)
        for step, (number, pause) in enumerate(zip(order, pauses, strict=True)):
            put(house, number)
            house.run(pause)
            if step in restarts:
                house.restart()
        house.run(5)
        assert [path.name for path in house.reports()] == [path.name for path in whole.reports()]
        assert len(house.reports()) == house.steps.calls["stage"] == 1
        for each in (whole, house):
            each.database.close()
