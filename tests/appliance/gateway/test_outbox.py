"""The destination of a document follows from its kind, the answer and the sender of the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.gateway.outbox import Outbox
from lungstage.appliance.gateway.queue import Queue
from lungstage.appliance.gateway.settings import Route
from tests.support.outgoing import fill

A, B = "dicom://A@h:1", "file:///b"


class Scene:
    def __init__(self, root: Path, *routes: dict[str, Any]) -> None:
        self.folder = root / "outbox"
        self.folder.mkdir()
        self.queue = Queue(root / "q")
        self.routes = [Route.model_validate(route) for route in routes]
        self.restart()

    def restart(self) -> None:
        self.outbox = Outbox(self.folder, self.routes, self.queue)

    def queued(self) -> set[tuple[str, str]]:
        return {(one.document.kind, one.destination) for one in self.queue.open_deliveries()}


def test_by_kind_and_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"what": ["sr", "seg"], "to": A}, {"what": ["pdf"], "to": B}, {"what": ["pdf"], "to": A})
    fill(scene.folder)
    assert scene.outbox.look() == 3
    wanted = {("sr", A), ("seg", A), ("pdf", A), ("pdf", B)}
    assert scene.queued() == wanted
    assert scene.outbox.look() == 0
    scene.restart()
    assert scene.outbox.look() == 0
    assert scene.queued() == wanted


def test_by_answer_all_documents_of_a_report_follow_it(tmp_path: Path) -> None:
    everything = ["sr", "seg", "pdf"]
    scene = Scene(
        tmp_path,
        {"what": everything, "to": A, "when": {"outcome": ["Advanced"]}},
        {"what": everything, "to": B, "when": {"outcome": ["early", "indeterminate"]}},
    )
    fill(scene.folder, "seg", "pdf")
    assert scene.outbox.look() == 0, "only the report contains the answer"
    fill(scene.folder, "sr")
    assert scene.outbox.look() == 3
    destinations = {to for _, to in scene.queued()}
    assert len(scene.queued()) == 3
    assert len(destinations) == 1


def test_by_whom_the_study_came_from(tmp_path: Path) -> None:
    scene = Scene(
        tmp_path,
        {"what": ["sr"], "to": A, "when": {"from": ["CT1"]}},
        {"what": ["sr"], "to": B, "when": {"from": ["CT2"]}},
    )
    study = "1.2.3"
    scene.queue.received(study, "CT1")
    fill(scene.folder, "sr")
    scene.outbox.look()
    assert scene.queued() == {("sr", A)}


@pytest.mark.parametrize("name", ["SR-1.2.3.dcm", "PDF-1.2.3.dcm"])
def test_what_is_no_document_goes_nowhere(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tmp_path, {"what": ["sr", "pdf"], "to": A})
    (scene.folder / name).write_bytes(b"noise")
    (scene.folder / "SR-1.2.4.dcm").symlink_to("/dev/zero")
    (scene.folder / "SEG-1.2.5.dcm").mkdir()
    (scene.folder / ".SR-1.2.3.dcm.part").write_bytes(b"")
    (scene.folder / "notes.txt").write_bytes(b"")
    assert scene.outbox.look() == 0
    assert scene.queued() == set()
    documents = fill(scene.folder, "sr")
    assert scene.outbox.look() == 1
    path = scene.folder / f"SR-1.2.9{documents['sr'].sop_instance_uid[-1]}.dcm"
    path.write_bytes(documents["sr"].content)
    assert scene.outbox.look() == 0, "the file name is that of another document"
