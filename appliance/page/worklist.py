"""The worklist: every received study, its state, and what it waits for."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lungstage.appliance.contract.documents import Language
from lungstage.appliance.page.context import Visit, page
from lungstage.appliance.page.records import Ledger, first_file
from lungstage.appliance.page.words import answer_of, caveats_of, region_is_open
from lungstage.appliance.staging.viewing import Patient
from lungstage.appliance.state.job import Job, JobState
from lungstage.appliance.state.jobs import utc_now

ROWS: Final = 50
"""Number of jobs on one page."""

HELD_SECONDS = 2.0
"""Greatest age in seconds of the rows that a polling browser receives."""

_MOST_MADE = 64
_KEY = re.compile(r"[0-9a-f]{32}")
_LONGEST_ID = 64  # characters (PS3.5 6.2, LO)

GROUPS: Final[Mapping[str, tuple[JobState, ...]]] = {
    "waiting": (JobState.WAITING, JobState.HELD),
    "working": (JobState.READY, JobState.CLAIMED, JobState.REPORT_READY),
    "delivered": (JobState.DELIVERED,),
    "refused": (JobState.REFUSED,),
}
"""States of a job by their name in the filter."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Filter of the worklist; invalid parts are ignored.

    Attributes
    ----------
    group
        A key of :data:`GROUPS`; empty for all.
    since
        The first day, in local time.
    patient
        Keyed hash of a Patient ID. The ID itself would stay in browser histories and proxy logs.
    before
        The page shows jobs with a lower number than this.
    """

    group: str = ""
    since: str = ""
    patient: str = ""
    before: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """Read a filter from the query of an address."""
        group, since, before = query.get("state", ""), query.get("since", ""), query.get("before", "")
        patient = query.get("patient", "")
        return cls(
            group if group in GROUPS else "",
            since if _day(since) else "",
            patient if _KEY.fullmatch(patient) else "",
            int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,
        )

    def address(self, before: int | None = None) -> str:
        """Write the filter as the query of an address, also of the next page."""
        parts = {"state": self.group, "since": self.since, "patient": self.patient, "before": before}
        return urlencode({name: value for name, value in parts.items() if value})


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """One job on the worklist."""

    job: Job
    patient: Patient
    is_late: bool
    answer: str
    caveats: int


@dataclass(frozen=True, slots=True)
class _Found:
    jobs: tuple[Job, ...]
    counts: Mapping[JobState, int]
    files: tuple[Path | None, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """Rows for one filter and one language; several users may share them."""

    at: float
    etag: str
    text: str
    jobs: tuple[int, ...]


@dataclass(slots=True)
class Shared:
    """Rows that were made recently, so that many polling browsers cost little more than one."""

    made: OrderedDict[tuple[Filter, Language], _Made] = field(default_factory=OrderedDict)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


@page()
async def show(visit: Visit) -> Response:
    """Show the current worklist."""
    wanted = Filter.of(visit.request.query_params)
    made = await _make(visit, wanted, hold=0.0)
    key, identifier = visit.session.searched
    return visit.render(
        "worklist.html", wanted=wanted, searched=identifier if key == wanted.patient else "", groups=list(GROUPS),
        address=wanted.address(wanted.before), etag=made.etag, listed=Markup(made.text),  # noqa: S704  (a template's)
    )  # fmt: skip


@page()
async def find(visit: Visit) -> Response:
    """Redirect to the worklist with the filter of a form."""
    identifier = visit.form.get("patient", "").strip()[:_LONGEST_ID]
    key = visit.context.records.key_of(identifier) if identifier else ""
    visit.session.searched = (key, identifier)
    wanted = Filter.of({**visit.form, "patient": key, "before": ""}).address()
    return RedirectResponse(f"/?{wanted}" if wanted else "/", 303)


@page(fragment=True)
async def rows(visit: Visit) -> Response:
    """Return only the rows, if they differ from those of the browser."""
    made = await _make(visit, Filter.of(visit.request.query_params), hold=HELD_SECONDS)
    if visit.request.headers.get("if-none-match") == made.etag:
        return Response(status_code=304, headers={"etag": made.etag})
    return HTMLResponse(made.text, headers={"etag": made.etag})


async def _make(visit: Visit, wanted: Filter, hold: float) -> _Made:
    """Return rows that are at most `hold` seconds old; the access log first records who sees them."""
    shared: Shared = visit.request.app.state.shared
    key = (wanted, visit.language)
    async with shared.making:
        made = shared.made.get(key)
        if made is None or monotonic() - made.at > hold:
            made = shared.made[key] = await _look(visit, wanted, made)
            shared.made.move_to_end(key)
            while len(shared.made) > _MOST_MADE:
                shared.made.popitem(last=False)
    await visit.context.log.shown("patients_listed", visit.session, visit.client, made.jobs)
    return made


async def _look(visit: Visit, wanted: Filter, before: _Made | None) -> _Made:
    now = utc_now()
    since = _day(wanted.since)
    moment = None if since is None else datetime.combine(since, time()).astimezone()

    def mark(ledger: Ledger) -> str:
        # The text depends on the minute, because a wait can become too long without any change in the ledger.
        said = repr((ledger.version, wanted, visit.language, int(now.timestamp()) // 60))
        return f'"{hashlib.sha256(said.encode()).hexdigest()[:32]}"'

    def find(ledger: Ledger) -> tuple[str, _Found | None]:
        if before is not None and before.etag == mark(ledger):
            return before.etag, None
        states = GROUPS.get(wanted.group, ())
        newest = ledger.jobs.find(
            states=states, patient_key=wanted.patient or None, since=moment, limit=ROWS + 1, before=wanted.before
        )  # fmt: skip
        jobs = newest[::-1]
        files = tuple(first_file(ledger.files, job) for job in jobs[:ROWS])
        return mark(ledger), _Found(jobs, ledger.jobs.counts(), files)

    etag, found = await visit.context.records.ask(find)
    if found is None and before is not None:
        return replace(before, at=monotonic())
    assert found is not None
    jobs = found.jobs[:ROWS]
    patients = await visit.context.viewer.patients(found.files)
    listed = [
        Row(
            job, patient, job.waits_longer_than(visit.context.alert_age, now), answer_of(job, visit.say),
            len(caveats_of(job, visit.language)) if job.outcome else 0,
        )
        for job, patient in zip(jobs, patients, strict=True)
    ]  # fmt: skip
    values: dict[str, Any] = {
        "rows": listed,
        "choosable": {job.id for job in jobs if region_is_open(job)},
        "counts": {name: sum(found.counts.get(state, 0) for state in states) for name, states in GROUPS.items()},
        "next_page": wanted.address(jobs[-1].id) if len(found.jobs) > ROWS else "",
    }
    text = bytes(visit.render("rows.html", **values).body).decode()
    return _Made(monotonic(), etag, text, tuple(job.id for job in jobs))
