"""While its association is open, a study does not count as unchanged; a mark that is no longer valid delays nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungstage.appliance.config.boot import boot_id, boot_seconds
from lungstage.appliance.contract.arrival import FOLDER, SUFFIX, VOID_SECONDS, Mark
from tests.support.fake_steps import put_slice
from tests.support.simulated import House, put_study


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def mark(house: House, folder: str, *, age: float = 0.0, boot: str | None = None) -> Path:
    marks = house.inbox / FOLDER
    marks.mkdir(exist_ok=True)
    path = marks / f"{folder}{SUFFIX}"
    path.write_text(Mark(folder, boot_id() if boot is None else boot, boot_seconds() - age).as_text())
    return path


def test_a_study_that_is_being_sent_does_not_settle(house: House) -> None:
    path = mark(house, "study")
    put_study(house.inbox / "study", "1.5", 5, "margin")
    house.run(20)
    assert house.states() == ["waiting"]
    assert True not in house.steps.settled_calls
    put_slice(house.inbox / "study", "1.5", 7)
    path.unlink()
    house.run(5)
    assert house.states() == ["delivered"]


def test_it_is_not_called_held_either(house: House) -> None:
    path = mark(house, "study")
    put_study(house.inbox / "study", "1.5", 5, "margin")
    (house.inbox / "study").joinpath("CT-1.5-2").unlink(missing_ok=True)
    house.run(20)
    assert "held" not in house.states()
    path.unlink()
    house.run(20)
    assert house.states() in (["held"], ["delivered"])


def test_another_study_settles_meanwhile(house: House) -> None:
    mark(house, "study")
    put_study(house.inbox / "other", "1.6", 5, "margin")
    house.run(5)
    assert house.states() == ["delivered"]


def test_a_study_that_is_complete_is_answered_while_its_association_is_open(house: House) -> None:
    mark(house, "study")
    put_study(house.inbox / "study", "1.5", 5)
    house.run(3)
    assert house.states() == ["delivered"]


@pytest.mark.parametrize("left", [{"age": VOID_SECONDS + 1}, {"age": -60.0}, {"boot": "another"}])
def test_a_mark_that_is_void_keeps_nothing_waiting(house: House, left: dict[str, object]) -> None:
    mark(house, "study", **left)  # type: ignore[arg-type]
    put_study(house.inbox / "study", "1.5", 5, "margin")
    house.run(5)
    assert house.states() == ["delivered"]


def test_what_lies_beside_the_marks_is_no_file_of_the_inbox(house: House) -> None:
    mark(house, "study")
    put_slice(house.inbox / FOLDER, "1.5", 1)
    house.run(2)
    assert house.states() == []
    assert house.steps.calls["read"] == 0


def test_what_is_no_mark_does_no_harm(house: House, tmp_path: Path) -> None:
    folder = house.inbox / FOLDER
    folder.mkdir()
    (folder / f"a{SUFFIX}").write_bytes(b"\xff\xfe")
    (folder / f"b{SUFFIX}").mkdir()
    (folder / f"c{SUFFIX}").symlink_to(tmp_path / "nowhere")
    (folder / f"d{SUFFIX}").write_text("{}")
    put_study(house.inbox / "study", "1.5", 5, "margin")
    house.run(5)
    assert house.states() == ["delivered"]
