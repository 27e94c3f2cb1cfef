"""Sending to each kind of destination loses nothing, and sends no document that the destination already has."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from lungstage.appliance.gateway.contexts import SENT
from lungstage.appliance.gateway.destinations import KINDS, destination_of
from lungstage.appliance.gateway.destinations.destination import AwayError
from lungstage.appliance.gateway.outbox import Outbox
from lungstage.appliance.gateway.queue import Queue
from lungstage.appliance.gateway.sender import Sender
from lungstage.appliance.gateway.settings import GatewaySettings
from tests.support.network import Peer, free_port, peer, until
from tests.support.outgoing import fill


class Scene:
    """An outbox with a report, and a sender that works when the test says so."""

    def __init__(self, root: Path, to: str, *kinds: str, **route: Any) -> None:
        self.outbox = root / "outbox"
        self.outbox.mkdir()
        self.documents = fill(self.outbox, *kinds)
        what = list(kinds) or ["sr", "seg", "pdf"]
        folders = {"inbox": root / "inbox", "outbox": self.outbox, "state": root / "gateway"}
        self.settings = GatewaySettings.model_validate(
            {**folders, "commitment_seconds": 2, "retry_seconds": 0.01, "route": [{"what": what, "to": to, **route}]}
        )
        self.queue = Queue(root / "q")
        Outbox(self.outbox, self.settings.route, self.queue).look()
        self.restart()

    def restart(self) -> None:
        destination = destination_of(self.settings.route[0], self.settings)
        self.sender = Sender(destination, self.queue, self.outbox, self.settings)

    def states(self) -> dict[str, str]:
        rows = [one for kind in self.documents.values() for one in self.queue.deliveries_of(kind.name)]
        return {one.document.kind: one.state for one in rows}

    def why(self, kind: str) -> str:
        (one,) = self.queue.deliveries_of(self.documents[kind].name)
        return one.why


def archive(one: Peer) -> str:
    return f"dicom://PACS@127.0.0.1:{one.port}"


def in_data_set(content: bytes) -> bytes:
    """The content of a file without its meta information."""
    at = content.index(ExplicitVRLittleEndian.encode())
    return content[content.index(b"\x08\x00\x05\x00CS", at) :]


def test_every_scheme_has_its_kind() -> None:
    assert set(KINDS) == {"dicom", "https", "http", "file"}


class TestArchive:
    def test_it_gets_every_document_byte_for_byte_the_seg_first_and_commits_itself(self, tmp_path: Path) -> None:
        with peer() as one:
            scene = Scene(tmp_path, archive(one))
            scene.sender.work()
            assert one.order[0] == scene.documents["seg"].sop_instance_uid
            until(lambda: set(scene.states().values()) == {"delivered"})
        for document in scene.documents.values():
            assert one.kept[document.sop_instance_uid] == in_data_set(document.content)
            assert scene.queue.deliveries_of(document.name)[0].committed

    def test_delivered_only_after_the_commitment(self, tmp_path: Path) -> None:
        with peer(is_silent=True) as one:
            scene = Scene(tmp_path, archive(one), "sr")
            scene.sender.work()
            assert scene.states() == {"sr": "stored"}
            one.is_silent = False
            scene.sender.work()
            assert scene.states() == {"sr": "stored"}, "it was asked, and its time to answer is not over"
            until(lambda: scene.queue.to_commit(scene.settings.route[0].to, 1))
            scene.sender.work()
            until(lambda: scene.states() == {"sr": "delivered"})
        assert one.received.total() == 1

    def test_what_it_acknowledged_and_forgot_is_sent_again(self, tmp_path: Path) -> None:
        with peer() as one:
            scene = Scene(tmp_path, archive(one), "sr")
            uid = scene.documents["sr"].sop_instance_uid
            one.forgets.add(uid)
            scene.sender.work()
            until(lambda: scene.states() == {"sr": "waiting"})
            until(lambda: scene.queue.next(scene.settings.route[0].to))
            scene.sender.work()
            until(lambda: scene.states() == {"sr": "delivered"})
        assert one.received[uid] == 2

    def test_without_commitment_its_answer_counts(self, tmp_path: Path) -> None:
        with peer(offers_commitment=False) as one:
            scene = Scene(tmp_path, archive(one))
            scene.sender.work()
        assert set(scene.states().values()) == {"delivered"}
        assert not scene.queue.deliveries_of(scene.documents["sr"].name)[0].committed

    def test_what_it_has_is_not_sent_again_after_it_broke_off(self, tmp_path: Path) -> None:
        with peer(offers_commitment=False, breaks_off=1) as one:
            scene = Scene(tmp_path, archive(one), "sr")
            with pytest.raises(AwayError):
                scene.sender.work()
            assert scene.states() == {"sr": "waiting"}
            scene.restart()
            scene.sender.work()
        assert scene.states() == {"sr": "delivered"}
        assert one.received.total() == 1
        assert one.asked == [scene.documents["sr"].sop_instance_uid]

    def test_one_that_cannot_be_asked_gets_it_again_which_is_harmless(self, tmp_path: Path) -> None:
        with peer(offers_commitment=False, breaks_off=1, can_be_queried=False) as one:
            scene = Scene(tmp_path, archive(one), "sr")
            with pytest.raises(AwayError):
                scene.sender.work()
            scene.sender.work()
        assert scene.states() == {"sr": "delivered"}
        assert one.received.total() == 2
        assert len(one.kept) == 1

    def test_one_sop_class_that_it_does_not_want_stops_no_other(self, tmp_path: Path) -> None:
        wanted = [uid for kind, uid in SENT.items() if kind != "seg"]
        with peer(classes=wanted, offers_commitment=False) as one:
            scene = Scene(tmp_path, archive(one))
            scene.sender.work()
        assert scene.states() == {"seg": "refused", "sr": "delivered", "pdf": "delivered"}
        assert scene.why("seg") == "it does not accept this SOP Class"

    @pytest.mark.parametrize(
        ("status", "state"), [(0xB000, "delivered"), (0xB007, "delivered"), (0xC000, "refused"), (0x0111, "delivered")]
    )
    def test_by_its_status(self, tmp_path: Path, status: int, state: str) -> None:
        with peer(offers_commitment=False) as one:
            scene = Scene(tmp_path, archive(one), "sr")
            one.status[scene.documents["sr"].sop_instance_uid] = status
            scene.sender.work()
        assert scene.states() == {"sr": state}
        assert scene.why("sr")

    def test_one_that_is_full_gets_everything_later(self, tmp_path: Path) -> None:
        with peer(offers_commitment=False) as one:
            scene = Scene(tmp_path, archive(one))
            one.status[scene.documents["seg"].sop_instance_uid] = 0xA700
            with pytest.raises(AwayError, match="storage is full"):
                scene.sender.work()
            assert set(scene.states().values()) == {"waiting"}
            one.status.clear()
            scene.sender.work()
        assert set(scene.states().values()) == {"delivered"}

    def test_one_that_is_away_gets_everything_once_it_is_back(self, tmp_path: Path) -> None:
        one = Peer(port=free_port())
        scene = Scene(tmp_path, archive(one))
        scene.sender.start()
        until(lambda: scene.sender._failures > 2)
        assert set(scene.states().values()) == {"waiting"}
        one.start()
        until(lambda: set(scene.states().values()) == {"delivered"})
        scene.sender.stop()
        scene.sender.join(10)
        one.stop()
        assert set(one.received.values()) == {1}

    def test_a_pause_grows_to_its_limit(self, tmp_path: Path) -> None:
        scene = Scene(tmp_path, "file:///nowhere", "sr")
        pauses = [scene.sender._pause(failures) for failures in range(40)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == scene.settings.retry_max_seconds

    def test_it_can_be_tried(self, tmp_path: Path) -> None:
        with peer(can_be_queried=False) as one:
            scene = Scene(tmp_path, archive(one), "sr")
            said = scene.sender._destination.prove()
        assert said == ("It answers. It accepts SR, SEG, PDF, SC, offers storage commitment, and cannot be queried.")
        assert not one.received
        with pytest.raises(AwayError, match="cannot be reached"):
            scene.sender._destination.prove()


def test_a_report_that_breaks_a_rule_is_not_sent(tmp_path: Path) -> None:
    with peer() as one:
        scene = Scene(tmp_path, archive(one))
        path = scene.outbox / scene.documents["sr"].name
        path.write_bytes(path.read_bytes().replace(b"UNVERIFIED", b"VERIFIED  "))
        scene.sender.work()
    assert scene.states()["sr"] == "refused"
    assert "check-report" in scene.why("sr")
    assert scene.documents["sr"].sop_instance_uid not in one.received


def test_a_document_that_was_taken_away_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with peer(offers_commitment=False) as one:
        scene = Scene(tmp_path, archive(one))
        (scene.outbox / scene.documents["pdf"].name).unlink()
        scene.sender.work()
    assert scene.states() == {"seg": "delivered", "sr": "delivered", "pdf": "waiting"}


class TestFolder:
    def test_it_gets_every_document_whole_and_a_second_time_changes_nothing(self, tmp_path: Path) -> None:
        target = tmp_path / "share"
        target.mkdir()
        scene = Scene(tmp_path, target.as_uri())
        scene.sender.work()
        assert set(scene.states().values()) == {"delivered"}
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {
            one.name: one.content for one in scene.documents.values()
        }

    def test_one_that_is_not_mounted_is_not_made(self, tmp_path: Path) -> None:
        scene = Scene(tmp_path, (tmp_path / "share").as_uri(), "sr")
        with pytest.raises(AwayError, match="folder is missing"):
            scene.sender.work()
        assert not (tmp_path / "share").exists()

    def test_another_s_file_is_left_as_it_is(self, tmp_path: Path) -> None:
        target = tmp_path / "share"
        target.mkdir()
        scene = Scene(tmp_path, target.as_uri(), "sr")
        (target / scene.documents["sr"].name).write_bytes(b"another's")
        scene.sender.work()
        assert scene.states() == {"sr": "refused"}
        assert [path.read_bytes() for path in target.iterdir()] == [b"another's"]


class _Server(BaseHTTPRequestHandler):
    """A DICOMweb server; the attributes of `server` determine what it does."""

    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.headers["Authorization"], self.headers["Content-Type"], body))
        if self.server.drops:
            self.server.drops -= 1
            self.close_connection = True
            return
        self.send_response(self.server.status)
        answer = self.server.answer.encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200 if self.server.found else 204)
        answer = self.server.found.encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def web() -> Any:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.seen, server.asked, server.status, server.answer, server.found, server.drops = [], [], 200, "{}", "", 0
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


class TestWeb:
    def scene(self, tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch) -> Scene:
        monkeypatch.setenv("TOKEN", "hunter2")
        return Scene(tmp_path, f"http://127.0.0.1:{web.server_port}/dicom-web/studies", "sr", token="env:TOKEN")

    def test_it_gets_the_file_and_the_token(self, tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = self.scene(tmp_path, web, monkeypatch)
        uid = scene.documents["sr"].sop_instance_uid
        web.answer = f'{{"00081199": {{"vr": "SQ", "Value": [{{"00081155": {{"vr": "UI", "Value": ["{uid}"]}}}}]}}}}'
        scene.sender.work()
        ((token, kind, body),) = web.seen
        assert token == "Bearer hunter2"
        assert kind.startswith('multipart/related; type="application/dicom"; boundary=')
        assert scene.documents["sr"].content in body
        assert scene.queue.deliveries_of(scene.documents["sr"].name)[0].committed

    @pytest.mark.parametrize(("status", "away"), [(401, True), (503, True), (429, True), (409, False), (400, False)])
    def test_by_its_status(
        self, tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch, status: int, away: bool
    ) -> None:
        scene = self.scene(tmp_path, web, monkeypatch)
        web.status = status
        if away:
            with pytest.raises(AwayError, match=str(status)):
                scene.sender.work()
            assert scene.states() == {"sr": "waiting"}
        else:
            scene.sender.work()
            assert scene.states() == {"sr": "refused"}

    def test_what_it_has_is_not_sent_again(self, tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = self.scene(tmp_path, web, monkeypatch)
        web.drops = 1
        with pytest.raises(AwayError):
            scene.sender.work()
        web.found = f'[{{"00080018": {{"vr": "UI", "Value": ["{scene.documents["sr"].sop_instance_uid}"]}}}}]'
        scene.sender.work()
        assert scene.states() == {"sr": "delivered"}
        assert len(web.seen) == 1
        assert web.asked

    def test_a_token_that_is_not_there_is_told_by_its_place(
        self, tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene = self.scene(tmp_path, web, monkeypatch)
        monkeypatch.delenv("TOKEN")
        with pytest.raises(AwayError, match="env:TOKEN"):
            scene.sender.work()
