"""What the pages show from the ledger, request from the daemon, and answer if something is missing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import shutil
import sqlite3
import threading
import time
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.page import records, status, study, worklist
from lungstage.appliance.page.app import make_app
from lungstage.appliance.page.sentences import in_language
from lungstage.appliance.page.words import FOLDER
from lungstage.appliance.report.translation import Translator
from lungstage.appliance.state import chain, requests
from lungstage.appliance.state.database import SCHEMA_VERSION, Database
from lungstage.appliance.state.ledger import Ledger
from tests.appliance.page import conftest
from tests.appliance.page.conftest import SCRIPT, Site, hidden, send
from tests.support.fake_steps import put_roi, put_slice
from tests.support.simulated import put_study


@pytest.fixture
def busy(site: Site) -> Site:
    """A delivered, a held and an ambiguous study: jobs 1, 2 and 3."""
    put_study(site.house.inbox / "a", "1.5")
    site.house.run(2)
    put_roi(site.house.inbox, "1.6.99", "1.6", range(5), "STUDY=1.6")
    site.house.run(7)
    put_study(site.house.inbox / "c", "1.7", 5, "ambiguous", "STUDY=1")
    site.house.run(5)
    assert site.house.states() == ["delivered", "held", "refused"]
    return site


def rows(text: str) -> list[str]:
    return re.findall(r'id="job-(\d+)"', text)


class TestWorklist:
    def test_says_what_came_and_what_it_waits_for(self, busy: Site) -> None:
        text = busy.logged_in().get("/").text
        assert rows(text) == ["3", "2", "1"]
        assert "DOE, JANE" in text
        assert "MRN-4711" in text
        assert "The CT" in text or "slices are missing" in text or "no region" in text.lower()
        assert "early stage; probability of advanced stage 25" in text
        assert '/study/3#choose-title"' in text
        assert "/study/1#choose-title" not in text

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("state=waiting", ["2"]), ("state=delivered", ["1"]), ("state=refused", ["3"]), ("state=working", []),
            ("state=nonsense", ["3", "2", "1"]), ("since=2000-01-01", ["3", "2", "1"]), ("since=2999-01-01", []),
            ("since=x", ["3", "2", "1"]), ("before=3", ["2", "1"]), ("before=-1", ["3", "2", "1"]),
            ("before=99999999999999999999", ["3", "2", "1"]), ("patient=MRN-4711", ["3", "2", "1"]),
            (f"patient={'0' * 32}", []), ("patient=%00", ["3", "2", "1"]),
        ],
    )  # fmt: skip
    def test_shows_what_is_asked_for(self, busy: Site, query: str, found: list[str]) -> None:
        assert rows(busy.logged_in().get(f"/?{query}").text) == found

    def test_finds_a_patient_by_the_keyed_hash_of_the_whole_id(self, busy: Site) -> None:
        key = busy.context.records.key_of(" MRN-4711 ")
        busy.house.ledger.note_study(2, "", key)
        client = busy.logged_in()

        def found(patient: str) -> str:
            answer = send(client, "/", "/find", patient=patient)
            assert answer.status_code == 303
            assert "MRN" not in answer.headers["location"], "histories and proxies keep addresses"
            return client.get(answer.headers["location"]).text

        assert rows(found("MRN-4711")) == ["2"]
        assert 'value="MRN-4711"' in found(" MRN-4711")
        assert "MRN-4711" not in re.findall('data-live="([^"]*)"', found("MRN-4711"))[0]
        assert rows(found("MRN-471")) == []
        assert rows(found("")) == ["3", "2", "1"]
        assert 'value="MRN-4711"' not in busy.logged_in().get(f"/?patient={key}").text, (
            "the ID is shown only to the user who typed it"
        )

    def test_leads_to_what_a_form_asks_for(self, busy: Site) -> None:
        client = busy.logged_in()
        for form, address in (
            ({"state": "refused", "since": "2000-01-02"}, "/?state=refused&since=2000-01-02"), ({"state": "x"}, "/"),
            ({"since": "//evil", "patient": "", "before": "7"}, "/"),
        ):  # fmt: skip
            assert send(client, "/", "/find", **form).headers["location"] == address

    def test_what_a_file_says_is_no_markup(self, busy: Site) -> None:
        client = busy.logged_in()
        send(client, "/", "/find", patient=SCRIPT)
        key = busy.context.records.key_of(SCRIPT)
        for path in ("/", "/study/3", f"/?patient={key}"):
            text = client.get(path).text
            assert SCRIPT not in text
            assert "&lt;script&gt;" in text

    def test_a_browser_that_has_it_is_sent_nothing(self, busy: Site) -> None:
        client = busy.logged_in()
        first = client.get("/rows")
        tag = {"if-none-match": first.headers["etag"]}
        assert client.get("/rows", headers=tag).status_code == 304
        put_study(busy.house.inbox / "d", "1.8", 5, "STUDY=1.8")
        busy.house.run(2)
        again = client.get("/rows", headers=tag)
        assert again.status_code == 200
        assert rows(again.text) == ["4", "3", "2", "1"]

    def test_what_polls_is_served_what_was_made_lately(self, busy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worklist, "HELD_SECONDS", 60.0)
        first = busy.logged_in()
        told = first.get("/rows").text
        busy.house.ledger.open_job("1.99", "1.99", None, "1.99")
        assert first.get("/rows").text == told
        assert rows(first.get("/").text)[0] == "4", "a requested page is always up to date"

    def test_pages_of_fifty(self, site: Site) -> None:
        for n in range(120):
            site.house.ledger.open_job(f"1.{n}", f"1.{n}", None, f"1.{n}")
        client = site.logged_in()
        seen, path = [], "/"
        while path:
            text = client.get(path).text
            seen += rows(text)
            found = re.search(r'href="(/\?before=\d+)"', text)
            path = found[1] if found else ""
        assert seen == [str(n) for n in range(120, 0, -1)]


class TestStudy:
    def test_tells_answer_documents_and_history(self, busy: Site) -> None:
        text = busy.logged_in().get("/study/1").text
        assert "early stage" in text
        assert text.count("/document/SR-") == 1
        assert "delivered" in text.split('class="history"')[1]
        assert text.count("<figure") == 3

    def test_its_slices_and_regions_are_given_to_the_viewer(self, busy: Site) -> None:
        client = busy.logged_in()
        assert client.get("/study/1/volume.nii").content == b"image"
        region = client.get("/study/1/region.nii?region=1.5.99/1")
        assert region.content == b"region"
        assert region.headers["cache-control"] == "no-store"
        told = [e.fields["jobs"] for e in chain.entries(busy.context.site.folder) if e.event == "images_viewed"]
        assert told == [[1]]

    def test_a_doctor_can_look_where_the_bundle_is_known(self, busy: Site) -> None:
        client = busy.logged_in()
        assert "start the page with --config" in client.get("/status").text
        busy.context = replace(busy.context, site=replace(busy.context.site, knows_bundle=True))
        text = busy.logged_in().get("/status").text
        assert "start the page with --config" not in text
        assert 'action="/status/doctor"' in text

    def test_the_doctor_is_asked_once_however_many_want_it(self, busy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        async def examination(_: object) -> Any:
            asked.append(0)
            await asyncio.sleep(0.05)
            text = f"No daemon is running with the state folder {busy.house.state}."
            finding = {"check": "daemon", "verdict": "warning", "sentence": text, "remedy": "Start lungstage page."}
            return (finding, {"check": "new", "verdict": "ok", "sentence": "It is new.", "remedy": None}), ""

        monkeypatch.setattr(status, "_examination", examination)
        client = busy.logged_in()
        busy.context = replace(busy.context, site=replace(busy.context.site, knows_bundle=True))
        app = make_app(busy.context)
        monkeypatch.setattr(conftest, "make_app", lambda _: app)
        csrf = {"csrf": hidden(client.get("/status").text, "csrf")}
        answers = busy.at_once(client, *["/status/doctor"] * 3, form=csrf)
        assert [answer.headers["location"] for answer in answers] == ["/status#doctor"] * 3
        assert len(asked) == 1
        german = busy.browser()
        german.cookies.update(client.cookies)
        german.cookies.set("language", "de")
        text = german.get("/status").text
        assert "läuft kein Daemon" in text
        assert "Warnung" in text
        assert '<span lang="en">It is new.</span>' in text

    def test_a_disk_that_does_not_answer_keeps_nobody(self, busy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        over, asked = threading.Event(), []

        def hangs(folder: Path) -> int | None:
            asked.append(folder)
            if folder == busy.house.outbox:
                over.wait(60)
            return 2048

        monkeypatch.setattr(status, "free_mb", hangs)
        monkeypatch.setattr(status, "_DISK_SECONDS", 0.2)
        client = busy.logged_in()
        for _ in range(3):
            text = client.get("/status").text
            assert "2.00 GB free" in text
            assert "not available" in text
        over.set()
        assert asked.count(busy.house.outbox) == 1, "the disk is not asked again before it has answered"

    @pytest.mark.parametrize("path", ["/study/1", "/study/3"])
    def test_that_cannot_be_drawn_is_told_of_all_the_same(self, busy: Site, path: str) -> None:
        sentence = "This study cannot be shown. It took longer than 80 s."
        client = busy.logged_in()
        for error in (Unavailable(sentence), Refused(ReasonCode.NO_DICOM, sentence), FileNotFoundError()):
            viewer: Any = busy.context.viewer
            viewer.fault = error
            answer = client.get(path)
            assert answer.status_code == 200
            assert 'class="history"' in answer.text
            assert sentence in answer.text or "The file no longer exists." in answer.text

    def test_of_too_many_slices_for_the_viewer_that_is_said(
        self, busy: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "niivue.js").touch()
        monkeypatch.setattr(study, "NIIVUE", tmp_path / "niivue.js")
        viewer: Any = busy.context.viewer
        client = busy.logged_in()
        for slices, is_told in ((450, False), (451, True)):
            viewer.counts = (slices, 512, 512)
            text = client.get("/study/1").text
            assert ("too many slices for the viewer" in text) is is_told
            assert ('data-viewer="yes"' in text) is not is_told
            assert text.count("<img") == 3

    def test_pictures_are_drawn_of_what_the_study_was_shown_with(
        self, busy: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A look-up of a study's files uses the ledger's thread, which all requests share."""
        looked = []
        found = records._headers_of
        monkeypatch.setattr(records, "_headers_of", lambda *args: looked.append(0) or found(*args))
        client = busy.logged_in()
        client.get("/study/1")
        for index in range(5):
            assert client.get(f"/study/1/picture/axial/{index}.png").status_code == 200
        assert len(looked) == 1
        busy.house.ledger.requeue(1)
        client.get("/study/1/picture/axial/1.png")
        assert len(looked) == 2, "a changed study is looked up again"

    def test_one_that_did_not_change_costs_no_look_at_the_audit_log(
        self, busy: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = busy.logged_in()
        (tag,) = re.findall('id="live" [^>]*data-etag="([^"]*)"', client.get("/study/1").text)
        monkeypatch.setattr(records.Records, "history", lambda *_: pytest.fail("the audit log was read"))
        assert client.get("/study/1/live", headers={"if-none-match": unescape(tag)}).status_code == 304
        monkeypatch.undo()
        send(client, "/study/1", "/study/1/process-again")
        assert client.get("/study/1/live", headers={"if-none-match": unescape(tag)}).status_code == 200

    def test_that_files_came_since_its_images_were_drawn_is_said(self, busy: Site) -> None:
        client = busy.logged_in()
        text = client.get("/study/2").text
        (address,) = re.findall('data-live="([^"]*)"', text)
        assert "were added or removed" not in text
        assert "were added or removed" not in client.get(address).text
        put_slice(busy.house.inbox, "1.6", 0, "STUDY=1.6")
        busy.house.run(3)
        text = client.get(address).text
        (afresh,) = re.findall('were added or removed[^<]*<a href="([^"]*)"', text)
        assert "were added or removed" not in client.get(afresh).text

    @pytest.mark.parametrize("language", ["en", "de", "fr"])
    def test_a_region_is_chosen_by_a_click_and_no_command_is_told(self, busy: Site, language: str) -> None:
        message = (
            "2 regions could be the primary tumour: 'GTV 1.5', 'GTV-2'. Give each its own name in the contouring"
            " software, and export again. Then choose one with --roi NAME (daemon: roi_name in the settings)."
        )
        busy.house.database.query("UPDATE jobs SET reason_message = ? WHERE id = 3", (message,))
        client = busy.logged_in()
        client.cookies.set("language", language)
        for path in ("/", "/study/3"):
            text = unescape(client.get(path).text).split('class="history"')[0]
            assert "'GTV 1.5', 'GTV-2'." in text
            assert "--roi" not in text
        (address,) = re.findall('class="button main" href="([^"]*)"', client.get("/study/3").text)
        assert '<h2 id="choose-title">' in client.get(address).text

    @pytest.mark.parametrize("is_built", [True, False])
    def test_where_the_viewer_was_not_built_that_is_said(
        self, busy: Site, is_built: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if is_built:
            (tmp_path / "niivue.js").touch()
        monkeypatch.setattr(study, "NIIVUE", tmp_path / "niivue.js")
        text = busy.logged_in().get("/study/1").text
        assert ("This installation has no viewer" in text) is not is_built
        assert ('data-viewer="yes"' in text) is is_built
        assert text.count("<img") == 3

    def test_a_document_is_given_byte_for_byte(self, busy: Site) -> None:
        client = busy.logged_in()
        (report,) = busy.house.reports()
        answer = client.get(f"/study/1/document/{report.name}")
        assert answer.content == report.read_bytes()
        assert answer.headers["content-type"] == "application/dicom"
        assert answer.headers["content-disposition"] == f'attachment; filename="{report.name}"'

    def test_one_that_is_not_what_was_delivered_is_not(self, busy: Site, tmp_path: Path) -> None:
        client = busy.logged_in()
        (report,) = busy.house.reports()
        content = report.read_bytes()
        for change in (lambda: report.write_bytes(content + b"x"), report.unlink):
            change()
            assert client.get(f"/study/1/document/{report.name}").status_code == 404
        (tmp_path / "copy").write_bytes(content)
        report.symlink_to(tmp_path / "copy")
        assert client.get(f"/study/1/document/{report.name}").status_code == 404

    @pytest.mark.parametrize(
        "name", ["..%2fstate%2fledger.sqlite", "ledger.sqlite", "SR-1.dcm", "%2e%2e", "SR-1.2.3.dcm%00", "x" * 5000]
    )
    def test_what_is_none_of_a_job_s_documents_is_not_there(self, busy: Site, name: str) -> None:
        assert busy.logged_in().get(f"/study/1/document/{name}").status_code == 404

    def test_another_study_s_document_is_not_there(self, busy: Site) -> None:
        (report,) = busy.house.reports()
        assert busy.logged_in().get(f"/study/2/document/{report.name}").status_code == 404

    @pytest.mark.parametrize(
        "path",
        [
            "/study/77", "/study/0", "/study/-1", "/study/1.0", "/study/99999999999999999999",
            "/study/../../etc/passwd",
            "/study/1/picture/axial/9x.png", "/study/1/picture/oblique/1.png", "/study/1/picture/axial/-1.png",
            "/study/1/region.nii", "/study/1/region.nii?region=1.2/x", "/study/99/volume.nii", "/study/1/volume.nii.gz",
            "/study/1/picture/axial/1.png?window=x", "/study/%00", "/study/1/", "/study//1",
        ],
    )  # fmt: skip
    def test_crafted_paths_end_in_a_plain_answer(self, busy: Site, path: str) -> None:
        answer = busy.logged_in().get(path)
        assert answer.status_code == 404
        assert "Traceback" not in answer.text

    def test_the_daemon_s_own_canary_is_nobody_s_study(self, site: Site) -> None:
        site.house.ledger.open_job("1.9", "1.9", None, "1.9", canary=True)
        client = site.logged_in()
        assert client.get("/study/1").status_code == 404
        assert rows(client.get("/").text) == []


class TestRequests:
    def test_a_study_is_processed_again(self, busy: Site) -> None:
        client = busy.logged_in()
        answer = send(client, "/study/1", "/study/1/process-again")
        assert answer.headers["location"] == "/study/1#state"
        assert "not yet processed" in client.get("/study/1").text
        assert "process-again" not in client.get("/study/1").text
        busy.house.run(3)
        text = client.get("/study/1").text
        assert "request accepted (token)" in re.sub(r"\s+", " ", text)
        assert busy.house.states()[0] == "delivered"

    def test_of_two_browsers_the_second_is_told(self, busy: Site) -> None:
        one, other = busy.logged_in(), busy.logged_in()
        old = other.get("/study/1").text
        send(one, "/study/1", "/study/1/process-again")
        busy.house.run(3)
        other.post("/study/1/process-again", data={"csrf": hidden(old, "csrf"), "seen": hidden(old, "seen")})
        busy.house.run(3)
        assert "has changed since it was shown" in other.get("/study/1").text
        assert len([entry for entry in chain.entries(busy.house.state) if entry.event == "job_requeued"]) == 1

    def test_a_region_is_chosen_and_answered(self, site: Site) -> None:
        put_study(site.house.inbox, "1.5", 5, "ambiguous")
        site.house.run(5)
        client = site.logged_in()
        text = client.get("/study/1").text
        assert text.count('type="radio"') == 2
        send(client, "/study/1", "/study/1/choose-region", region="1.5.99/2")
        site.house.run(4)
        assert site.house.states() == ["delivered"]
        assert site.house.job().choice is not None

    @pytest.mark.parametrize("region", ["", "1.5.99", "1.5.99/7", "1.2.3/1", "../x/1", "1.5.99/-1", "1.5.99/1e3"])
    def test_a_region_that_the_study_does_not_have_is_not(self, site: Site, region: str) -> None:
        put_study(site.house.inbox, "1.5", 5, "ambiguous")
        site.house.run(5)
        client = site.logged_in()
        answer = send(client, "/study/1", "/study/1/choose-region", region=region)
        assert answer.status_code == 409
        assert "<h1>Not done</h1>" in answer.text
        assert requests.waiting(site.house.state) == ()

    @pytest.mark.parametrize("seen", ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00"])
    def test_a_form_that_does_not_say_what_was_seen_asks_for_nothing(self, busy: Site, seen: str) -> None:
        client = busy.logged_in()
        assert send(client, "/study/1", "/study/1/process-again", seen=seen).status_code == 400
        assert requests.waiting(busy.house.state) == ()


def digests(folder: Path) -> dict[str, str]:
    """The digest of each file except SQLite's log index, which readers also write."""
    files = (file for file in folder.iterdir() if file.is_file() and file.suffix != ".sqlite-shm")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class TestLedger:
    """The page only reads the ledger."""

    def test_is_not_written(self, busy: Site) -> None:
        path = busy.house.state / "ledger.sqlite"
        busy.house.database.query("PRAGMA wal_checkpoint(TRUNCATE)")
        before = digests(busy.house.state)
        client = busy.logged_in()
        for page in ("/", "/study/1", "/study/3", "/status", "/rows", "/study/1/live"):
            assert client.get(page).status_code == 200
        assert digests(busy.house.state) == before
        assert path.name in before

    def test_that_is_being_migrated_or_of_another_release_is_said_to_be(self, busy: Site) -> None:
        client = busy.logged_in()
        path = busy.house.state / "ledger.sqlite"
        busy.house.database.close()
        with sqlite3.connect(path) as database:
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
            database.execute("INSERT OR REPLACE INTO migrations VALUES (?, '9.9.9')", (SCHEMA_VERSION + 1,))
        busy.context.records._thread.submit(busy.context.records._drop).result()
        answer = client.get("/")
        assert answer.status_code == 503
        assert "9.9.9" in answer.text

    def test_of_an_older_release_is_looked_at_as_it_changes_and_not_migrated(self, site: Site) -> None:
        path = site.house.state / "ledger.sqlite"
        site.house.database.close()
        for file in site.house.state.glob("ledger.sqlite*"):
            file.unlink()
        release = Path(__file__).parents[1] / "state" / "release-0.1.0" / "ledger.sql"
        with sqlite3.connect(path) as database:
            database.executescript(release.read_text())
        client = site.logged_in()
        many = len(rows(client.get("/").text))
        assert many == 5
        with sqlite3.connect(path) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            database.execute("DELETE FROM jobs WHERE id = 1")
        assert version < SCHEMA_VERSION
        assert len(rows(client.get("/").text)) == many - 1

    def test_that_is_damaged_away_or_another_is_said_to_be_and_found_again(self, busy: Site, tmp_path: Path) -> None:
        client = busy.logged_in()
        assert client.get("/").status_code == 200
        busy.house.database.query("PRAGMA wal_checkpoint(TRUNCATE)")
        busy.house.database.close()
        path = busy.house.state / "ledger.sqlite"
        shutil.copy(path, tmp_path / "kept")
        path.unlink()
        answer = client.get("/")
        assert answer.status_code == 503
        assert "There is no ledger" in answer.text
        assert client.get("/status").status_code == 200
        path.write_bytes(b"no database" * 1000)
        assert "damaged" in client.get("/").text
        path.unlink()
        shutil.copy(tmp_path / "kept", path)
        assert rows(client.get("/").text) == ["3", "2", "1"]

    def test_that_somebody_keeps_locked_is_said_to_be_and_found_again(self, busy: Site) -> None:
        client = busy.logged_in()
        busy.house.database.close()
        with contextlib.closing(sqlite3.connect(busy.house.state / "ledger.sqlite")) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("UPDATE jobs SET attempts = attempts")
            other.commit()
            answer = client.get("/")
            assert answer.status_code == 503
            assert "another process keeps it locked" in answer.text
        assert client.get("/").status_code == 200


def test_what_is_asked_for_at_once_is_in_the_access_log_once(busy: Site) -> None:
    client = busy.logged_in()
    planes = [f"/study/1/picture/{plane}/1.png" for plane in ("axial", "coronal", "sagittal")]
    assert [answer.status_code for answer in busy.at_once(client, *planes)] == [200] * 3
    told = [entry.event for entry in chain.entries(busy.context.site.folder)]
    assert told.count("images_viewed") == 1


def test_one_picture_is_drawn_at_a_time_for_a_session_and_others_are_not_kept(busy: Site) -> None:
    viewer: Any = busy.context.viewer
    planes = [f"/study/1/picture/axial/{index}.png" for index in range(5)]
    for most in (1, 2):
        clients = [busy.logged_in() for _ in range(most)]
        viewer.most = 0
        answers = busy.at_once(*clients, *planes)
        assert {answer.status_code for answer in answers} == {200}
        assert viewer.most == most


def test_every_view_of_a_patient_is_in_the_access_log_once(busy: Site) -> None:
    client = busy.logged_in()
    (report,) = busy.house.reports()
    for _ in range(3):
        client.get("/")
        client.get("/rows", headers={"x-lungstage-poll": "1"})
        client.get("/study/1")
        client.get("/study/1/picture/axial/1.png")
        client.get("/study/1/volume.nii")
    client.get(f"/study/1/document/{report.name}")
    told = [(e.event, e.fields.get("user"), e.fields.get("jobs")) for e in chain.entries(busy.context.site.folder)]
    assert told[1:] == [
        ("patients_listed", "token", [1, 2, 3]), ("study_viewed", "token", [1]), ("images_viewed", "token", [1]),
        ("document_taken", "token", [1]),
    ]  # fmt: skip
    log = "".join(path.read_text() for path in busy.context.site.folder.glob("audit-*"))
    assert "JANE" not in log
    assert "4711" not in log


class TestLanguages:
    """English, German and French."""

    def test_have_the_same_words_and_place_holders(self) -> None:
        english, *others = (catalogue(language) for language in ("en", "de", "fr"))
        for other in others:
            assert set(other) == set(english)
            for code, texts in other.items():
                for text in texts:
                    assert re.findall(r"{\w+}", text).sort() == re.findall(r"{\w+}", english[code][0]).sort(), code

    def test_every_word_that_is_said_is_there_and_every_one_that_is_there_is_said(self) -> None:
        code = "".join(
            path.read_text(encoding="utf-8")
            for path in sorted(FOLDER.parent.rglob("*"))
            if path.suffix in (".py", ".html")
        )
        said = set(re.findall(r"""say\(\s*f?["']([a-z]+\.[a-z_0-9.]*[a-z0-9])["']""", code))
        begun = set(re.findall(r"""["']([a-z]+\.(?:[a-z]+_)?)["'] \+""", code))
        begun |= set(re.findall(r"""f["']([a-z]+\.)\{""", code))
        known = set(catalogue("en"))
        assert said <= known, said - known
        unsaid = {word for word in known - said if not word.startswith(tuple(begun))}
        assert unsaid == {"number.decimal_mark"}

    @pytest.mark.parametrize("language", ["en", "de", "fr"])
    def test_say_why_a_study_waits_in_a_few_words_and_then_in_numbers(self, busy: Site, language: str) -> None:
        client = busy.logged_in()
        client.cookies.set("language", language)
        for number, message in (
            (
                2,
                "2 of the 5 slices that 'GTV-1' needs are missing, at z = 3 mm. Send that CT series from the PACS.",
            ),
            (3, "2 regions could be the primary tumour: 'GTV-1', 1 region (name hidden for privacy). Choose another."),
        ):
            busy.house.database.query("UPDATE jobs SET reason_message = ? WHERE id = ?", (message, number))
        words = {code: texts[0] for code, texts in catalogue(language).items()}
        assert {code.removeprefix("reason.") for code in words} >= {*ReasonCode}
        for number in (2, 3):
            job = busy.house.ledger.jobs.get(number)
            assert job is not None
            assert job.reason is not None
            for path in ("/", f"/study/{number}"):
                text = client.get(path).text
                assert words[f"reason.{job.reason.code}"] in text
                spoken = in_language(job.reason.message, language)
                assert spoken is not None, job.reason.message
                assert spoken in unescape(text)
                assert language == "en" or job.reason.message not in unescape(text)

    def test_each_is_spoken_where_it_is_asked_for(self, busy: Site) -> None:
        client = busy.logged_in()
        assert "Arbeitsliste" in client.get("/", headers={"accept-language": "de-CH,en;q=0.5"}).text
        assert "Worklist" in client.get("/", headers={"accept-language": "zz"}).text
        client.post("/language", data={"language": "fr", "here": "/"})
        for path in ("/", "/study/1", "/study/3", "/status", "/nowhere"):
            text = client.get(path).text
            assert '<html lang="fr">' in text
            assert "Réservé à la recherche" in text


def catalogue(language: Any) -> dict[str, list[str]]:
    import polib

    entries = polib.pofile(str(FOLDER / f"{language}.po"), encoding="utf-8")
    Translator(language, FOLDER).template("page.worklist")
    return {e.msgid: [*e.msgstr_plural.values()] if e.msgid_plural else [e.msgstr] for e in entries}


@pytest.mark.slow
def test_the_first_page_of_5000_jobs_takes_no_more_than_twice_that_of_50(site: Site) -> None:
    database = site.house.database

    def fill(count: int) -> None:
        ledger, have = Ledger(database), len(site.house.ledger.jobs.find())
        with database.transaction():
            for n in range(have, count):
                sql = (
                    "INSERT INTO jobs (case_key, study_instance_uid, anchor, state, opened_at, updated_at)"
                    " VALUES (?, ?, ?, 'refused', ?, ?)"
                )
                now = ledger.now() - timedelta(seconds=count - n)
                database.query(sql, (f"1.{n}", f"1.{n}", f"1.{n}", now.isoformat(), now.isoformat()))
                for k in range(10):
                    header = f'[{{"study_instance_uid": "1.{n}", "type": "ImageHeader"}}]'
                    values = (f"/nowhere/{n}/{k}".encode(), 1, 1, "r", header, True, now.isoformat())
                    columns = "(path, size, mtime_ns, reader, header, present, read_at)"
                    database.query(f"INSERT INTO files {columns} VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    client = site.logged_in()

    def seconds() -> float:
        best = 1e9
        for _ in range(15):
            started = time.process_time()
            assert client.get("/").status_code == 200
            best = min(best, time.process_time() - started)
        return best

    fill(50)
    few = seconds()
    fill(5000)
    many = seconds()
    assert many <= 2 * few, f"{1000 * few:.1f} ms of 50, {1000 * many:.1f} ms of 5000"


def test_a_database_is_never_opened_to_be_written(busy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the page wrote to the ledger")

    monkeypatch.setattr(Database, "__init__", never)
    client = busy.logged_in()
    assert client.get("/").status_code == 200
    assert send(client, "/study/1", "/study/1/process-again").status_code == 303


def test_a_region_whose_name_may_not_be_told_is_named_by_its_number(busy: Site) -> None:
    others = '{"others": [{"number": 7, "name": null}, {"number": 8, "name": "GTV-2"}]}'
    sql = "UPDATE jobs SET outcome = json_set(outcome, '$.roi', json(?)) WHERE id = 1"
    busy.house.database.query(sql, (others,))
    text = busy.logged_in().get("/study/1").text
    assert "number 7, GTV-2" in text
