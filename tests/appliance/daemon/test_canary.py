"""The canary takes the real path and never enters the outbox; an alarm is raised if it does not complete."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.state import heartbeat
from tests.support.simulated import House, put_study


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, canary_seconds=100, canary_patience_seconds=30)


def _canaries(house: House) -> list[str]:
    rows = house.database.query("SELECT state FROM jobs WHERE canary ORDER BY id")
    return [row[0] for row in rows]


def test_canaries_come_through_and_leave_no_trace_but_in_the_ledger(house: House) -> None:
    house.run(250)
    assert _canaries(house) == ["delivered"] * 3
    assert house.states() == []  # canaries are not listed among the studies
    assert house.reports() == []
    assert not [path for path in (house.state / "scratch" / "canary").rglob("*") if path.is_file()]
    assert house.database.query("SELECT count(*) FROM files")[0][0] == 0
    alive = heartbeat.read(house.state)
    assert alive is not None
    assert alive.canary is True


def test_a_real_study_is_never_taken_for_a_canary(house: House) -> None:
    put_study(house.inbox)
    house.run(20)
    assert house.states() == ["delivered"]
    assert len(house.reports()) == 1
    assert _canaries(house) == ["delivered"]


@pytest.mark.parametrize("flag", ["broken", "refuse"])
def test_a_canary_that_does_not_come_through_raises_an_alarm(
    flag: str, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.steps.canary_flags = (flag,)
    with caplog.at_level(logging.ERROR, "lungstage"):
        house.run(60)
    assert "canary_alarm" in [record.getMessage() for record in caplog.records]
    alive = heartbeat.read(house.state)
    assert alive is not None
    assert alive.canary is False
    with pytest.raises(Unavailable, match="canary"):
        heartbeat.prove_alive(house.state)
    house.steps.canary_flags = ()
    house.run(120)
    alive = heartbeat.read(house.state)
    assert alive is not None
    assert alive.canary is True


def test_a_model_that_is_not_meant_for_phantoms_raises_none(house: House) -> None:
    house.steps.canary_flags = ("stage-refuse",)
    house.run(60)
    assert _canaries(house) == ["refused"]
    heartbeat.prove_alive(house.state)


def test_an_inbox_that_hangs_is_no_sign_of_life(house: House) -> None:
    house.run(5)
    alive = heartbeat.prove_alive(house.state)
    late = datetime.now(UTC) + timedelta(seconds=alive.patience + 1)
    with pytest.raises(Unavailable, match="heartbeat"):
        heartbeat.prove_alive(house.state, late)
    with pytest.raises(Unavailable, match="no heartbeat"):
        heartbeat.prove_alive(house.inbox)
    heartbeat.write(house.state, replace(alive, overdue=1))
    with pytest.raises(Unavailable, match="longer than lease_seconds"):
        heartbeat.prove_alive(house.state)
    heartbeat.end(house.state)
    with pytest.raises(Unavailable, match="no heartbeat"):
        heartbeat.prove_alive(house.state)
    (house.state / heartbeat.NAME).write_text("{")
    with pytest.raises(Unavailable, match="cannot be read"):
        heartbeat.prove_alive(house.state)
