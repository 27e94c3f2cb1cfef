"""Pages about refusals are recorded in the audit log first, delivered once, and delay nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from lungstage.appliance.contract.errors import Reason, ReasonCode, Unavailable
from lungstage.appliance.daemon.loop import Steps
from lungstage.appliance.daemon.refusal_pages import RefusalPages
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.state import chain
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.job import Job
from lungstage.appliance.state.ledger import Ledger
from tests.support.fake_steps import FakeSteps
from tests.support.simulated import House, put_study
from tests.support.studies import rtstruct_study
from tests.system.test_run import running

REASON = Reason(ReasonCode.NO_ROI, "There is no region of interest.")
CASE = Case("a", "1.4", "1.3", (), ())


class Site:
    """A ledger, an outbox that can become unavailable, and a clock."""

    def __init__(self, root: Path) -> None:
        self.outbox, self.state = root / "outbox", root / "state"
        self.outbox.mkdir()
        self.state.mkdir()
        self.now, self.away, self.made = 0.0, False, 0
        self.fault: Exception | None = None
        self.ledger = Ledger(Database(self.state / "ledger.sqlite"), moved=lambda job: self.pages.note(job))
        self.pages = RefusalPages(
            self.ledger, self.find, self.explain, self.outbox, self.prove, 5.0, clock=lambda: self.now
        )

    def find(self, key: str) -> Case | None:
        return CASE if key == "a" else None

    def explain(self, case: Case, reason: Reason, created: datetime) -> tuple[Document, ...]:
        self.made += 1
        if self.fault is not None:
            raise self.fault
        assert created.tzinfo is not None
        return (Document("PDF-2.25.1.dcm", "2.25.1", "2.25.2", f"{reason.message}".encode()),)

    def prove(self) -> None:
        if self.away:
            raise Unavailable("The outbox is away.")
        assert not self.told(), "a page that cannot be delivered is not recorded"

    def told(self) -> list[dict[str, object]]:
        return [dict(entry.fields) for entry in chain.entries(self.state, "") if entry.event == "refusal_page"]

    def refused(self, key: str = "a", *, canary: bool = False) -> Job:
        job = self.ledger.open_job(key, "1.4", "1.3", "1.2", canary=canary)
        return self.ledger.refuse(job.id, REASON, content="c")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_refusal_has_its_page_and_the_audit_log_its_hash(site: Site) -> None:
    job = site.refused()
    site.pages.tick()
    (path,) = site.outbox.iterdir()
    assert path.read_bytes() == REASON.message.encode()
    (told,) = site.told()
    assert told["job"] == job.id
    assert set(told["documents"]) == {path.name}  # type: ignore[call-overload]
    site.pages.tick()
    assert site.made == 1
    assert site.pages.next_due() is None


@pytest.mark.parametrize("why", ["canary", "gone", "superseded"])
def test_who_waits_for_no_answer_is_told_nothing(site: Site, why: str) -> None:
    if why == "superseded":
        job = site.ledger.open_job("a", "1.4", "1.3", "1.2")
        site.ledger.supersede(job.id, 7)
    else:
        site.refused("b" if why == "gone" else "a", canary=why == "canary")
    site.pages.tick()
    assert list(site.outbox.iterdir()) == []


def test_a_job_that_goes_on_has_none(site: Site) -> None:
    job = site.refused()
    site.ledger.requeue(job.id)
    site.pages.tick()
    assert site.made == 0


def test_an_outbox_that_is_away_is_waited_for(site: Site) -> None:
    site.away = True
    site.refused()
    site.pages.tick()
    assert site.pages.next_due() == 5.0
    assert site.told() == []
    site.away, site.now = False, 4.9
    site.pages.tick()
    assert list(site.outbox.iterdir()) == [], "the pause is not over"
    site.now = 5.0
    site.pages.tick()
    assert len(list(site.outbox.iterdir())) == 1


def test_a_page_that_cannot_be_made_is_given_up_at_once(site: Site) -> None:
    site.fault = ValueError("Doe^Jane")
    site.refused()
    site.pages.tick()
    site.fault = None
    site.pages.tick()
    assert site.made == 1
    assert list(site.outbox.iterdir()) == []


def test_a_name_that_is_taken_in_the_outbox_is_left_alone_and_said_to_be(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    (site.outbox / "PDF-2.25.1.dcm").mkdir()
    site.refused()
    with caplog.at_level("WARNING", logger="lungstage"):
        site.pages.tick()
    (record,) = caplog.records
    assert (record.message, record.code) == ("no_refusal_page", "outbox_occupied")  # type: ignore[attr-defined]
    assert not hasattr(record, "frames"), "it is no internal error"
    assert site.pages.next_due() is None


class Explaining(FakeSteps):
    """Steps that make a page about a refusal."""

    def steps(self) -> Steps:
        return replace(super().steps(), explain=self.explain)

    def explain(self, _case: Case, reason: Reason, _created: datetime) -> tuple[Document, ...]:
        return (Document("PDF-2.25.1.dcm", "2.25.1", "2.25.2", reason.message.encode()),)


@pytest.mark.parametrize("wanted", [{"refusal_page": True}, {"refusal_page": False}, {}])
def test_there_is_one_only_where_the_site_wants_it(wanted: dict[str, bool], tmp_path: Path) -> None:
    house = House(tmp_path, Explaining(), **wanted)
    put_study(house.inbox, "1.5", 5, "refuse")
    house.run(8)
    assert house.states() == ["refused"]
    names = [path.name for path in house.outbox.iterdir()]
    assert names == (["PDF-2.25.1.dcm"] if wanted.get("refusal_page") else [])


@pytest.mark.slow
def test_the_daemon_delivers_it(tmp_path: Path, shipped_bundle: Path) -> None:
    """The confined process makes it: that process can read the font, and writes nothing."""
    config = tmp_path / "settings.toml"
    config.write_text("refusal_page = true\nlanguage = 'de'\ncase_settle_seconds = 0.3\n")
    with running(tmp_path, shipped_bundle, "--config", config) as appliance:
        rtstruct_study(names=("Heart",)).write(appliance.inbox / "study")
        appliance.until(lambda: [job["state"] for job in appliance.jobs()] == ["refused"])
        appliance.until(lambda: list((tmp_path / "outbox").glob("PDF-*.dcm")))
        appliance.stop()
    assert [path.name[:4] for path in (tmp_path / "outbox").iterdir()] == ["PDF-"]
