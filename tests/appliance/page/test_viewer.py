"""Requests to the page's confined processes; a user who waits for one process does not delay the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.contract.errors import DefectError, ExhaustedError, Unavailable
from lungstage.appliance.page import viewer
from lungstage.appliance.page.messages import Messages
from lungstage.appliance.page.viewer import Viewer
from lungstage.appliance.staging.viewing import Patient, Scene
from lungstage.appliance.workers.messages import Look, ReadPatients

SCENE = Scene((1, 1, 1), (0, 0, 0), 0, (), ())


@dataclass
class Processes:
    """Fake processes that record their requests and determine how each ends."""

    asked: list[tuple[int, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    cannot_start: bool = False
    made: int = 0

    def make(self, *_: Any) -> Process:
        self.made += 1
        return Process(self, self.made)

    def of(self, study: str) -> list[int]:
        return [number for number, request in self.asked if isinstance(request, Look) and request.key == study]


class Process:
    def __init__(self, all_of_them: Processes, number: int) -> None:
        self.all, self.number = all_of_them, number

    def start(self) -> None: ...

    def ask(self, request: Any) -> None:
        if self.all.cannot_start:
            raise OSError("no process")
        self.all.asked.append((self.number, request))

    def answer(self, request: Any) -> Any:
        if isinstance(request, ReadPatients):
            if any("hostile" in path.name for path in request.paths):
                raise ExhaustedError("It took longer than 20 s.")
            return tuple(Patient(path.name) for path in request.paths)
        if request.key == "heavy":
            self.all.over.wait(60)
        if request.key == "defect":
            raise DefectError({"error": "ValueError", "frames": "here"})
        if request.key == "exhausting":
            raise ExhaustedError("It took more than 3072 MB of memory.")
        return SCENE

    def end(self) -> None:
        self.all.over.set()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    processes = Processes()
    monkeypatch.setattr(viewer, "WorkerProcess", processes.make)
    return processes


@pytest.fixture
def shown(processes: Processes, tmp_path: Path) -> Iterator[Viewer]:
    shown = Viewer(tmp_path / "scratch")
    yield shown
    shown.end()


def files(folder: Path, *names: str) -> list[Path | None]:
    for name in names:
        (folder / name).write_text(name)
    return [folder / name for name in names]


def test_a_study_that_takes_long_keeps_neither_names_nor_another_study(
    shown: Viewer, processes: Processes, tmp_path: Path
) -> None:
    async def look() -> None:
        heavy = asyncio.create_task(shown.look((), "heavy", None))
        await asyncio.sleep(0)
        for key in ("a", "b", "a"):
            assert await asyncio.wait_for(shown.look((), key, None), 20) == SCENE
        (patient,) = await asyncio.wait_for(shown.patients(files(tmp_path, "x")), 20)
        assert patient.name == "x"
        assert not heavy.done()
        processes.over.set()
        assert await heavy == SCENE

    asyncio.run(look())


def test_a_study_goes_to_the_process_that_holds_it(shown: Viewer, processes: Processes) -> None:
    async def look() -> None:
        for key in "abababccb":
            await shown.look((), key, None)

    asyncio.run(look())
    assert len({*processes.of("a")}) == len({*processes.of("b")}) == 1
    assert {*processes.of("a")} != {*processes.of("b")}
    assert {*processes.of("c")} == {*processes.of("a")}, "the process that was not used for the longest time"


@pytest.mark.parametrize(
    ("study", "sentence"), [("defect", "internal error"), ("exhausting", "more than 3072 MB of memory")]
)
def test_what_a_process_does_not_survive_is_said(shown: Viewer, study: str, sentence: str) -> None:
    with pytest.raises(Unavailable, match=f"This study cannot be shown.*{sentence}"):
        asyncio.run(shown.look((), study, None))


def test_one_file_that_a_process_does_not_survive_takes_no_other_name_away(
    shown: Viewer, processes: Processes, tmp_path: Path
) -> None:
    paths = files(tmp_path, "a", "hostile", "b")
    for _ in range(2):
        assert [patient.name for patient in shown.read([*paths, None, tmp_path / "gone"])] == ["a", "", "b", "", ""]
    assert shown.read(paths)[1].fault == "The file cannot be read."
    assert len(processes.asked) == 4, "the hostile file is read only once"
    (tmp_path / "hostile").rename(tmp_path / "c")
    assert shown.read([tmp_path / "c"])[0].name == "c"


def test_where_no_process_can_be_started_names_are_unknown_until_one_can(
    shown: Viewer, processes: Processes, tmp_path: Path
) -> None:
    paths = files(tmp_path, "a")
    processes.cannot_start = True
    (patient,) = shown.read(paths)
    assert (patient.name, patient.fault) == ("", "The process that opens the files cannot be started.")
    with pytest.raises(Unavailable, match="The process that opens the files"):
        asyncio.run(shown.look((), "a", None))
    processes.cannot_start = False
    assert shown.read(paths)[0].name == "a"


def test_names_are_remembered_as_long_as_the_file_is_the_same_and_no_more_than_so_many(
    shown: Viewer, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "_MOST_PATIENTS", 3)
    paths = files(tmp_path, *"abcde")
    assert [patient.name for patient in shown.read(paths)] == [*"abcde"]
    shown.read(paths[2:])
    assert len(processes.asked) == 1
    (tmp_path / "e").write_text("longer")
    shown.read(paths[4:])
    assert len(processes.asked) == 2
    assert len(shown._patients) == 3


def test_a_message_is_told_without_a_name_where_the_ledger_is_away(shown: Viewer, tmp_path: Path) -> None:
    assert Messages(tmp_path, None, shown)._patient_of(7) == ""


def test_nothing_is_asked_once_it_has_ended(shown: Viewer, processes: Processes) -> None:
    shown.end()
    with pytest.raises((Unavailable, RuntimeError)):
        asyncio.run(shown.look((), "a", None))
    assert processes.asked == []


def test_the_real_processes_answer(tmp_path: Path) -> None:
    real = Viewer(tmp_path / "scratch")
    real.start()
    try:
        (patient,) = real.read(files(tmp_path, "no dicom"))
        assert patient.fault == "This file is not DICOM."
        with pytest.raises(Exception, match="The files of this study no longer exist"):
            asyncio.run(real.look((), "1.2", None))
    finally:
        real.end()
