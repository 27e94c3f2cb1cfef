"""Draw a contour of one study, correct it and confirm it; the confirmed contour goes into the inbox as a SEG.

A draft exists only in the session of its user, as what the user has drawn. Nothing of it is written.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response

from lungstage.appliance.contour.prompts import Kind, Prompt
from lungstage.appliance.contour.windows import Point
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.page.context import Confirmed, NotDoneError, Visit, page
from lungstage.appliance.page.records import first_file
from lungstage.appliance.page.study import asked_region, look, picture_of, places, region_named, study_of
from lungstage.appliance.report import outbox
from lungstage.appliance.report.contour import PersonNameError, person_name
from lungstage.appliance.staging.prompting import MOST_CORRECTIONS
from lungstage.appliance.staging.sketching import Draft, Sketched
from lungstage.appliance.staging.viewing import PLANES, WINDOWS
from lungstage.appliance.state.job import RESTING_STATES

_KINDS: Final = {"diameter": (2,), "box": (2,), "point": (1,), "region": (0, 1)}
"""Number of points of each kind of prompt."""
_MOST_DRAFTS: Final = 64  # of a session; the oldest is dropped
_MOST_SMOOTH_MM: Final = 4.0


@page(operate=True)
async def show(visit: Visit) -> Response:
    """Show the study to draw on."""
    job = (await study_of(visit)).job
    await visit.context.log.shown("study_viewed", visit.session, visit.client, [job.id])
    scene = await look(visit, job, None)
    region = asked_region(visit)
    if region is not None and not scene.offers(region):
        region = None
    if region is not None:
        scene = await look(visit, job, region)
    file = await visit.context.records.ask(lambda ledger: first_file(ledger.files, job))
    (patient,) = await visit.context.viewer.patients([file])
    return visit.render(
        "contour.html", job=job, patient=patient, scene=scene, region=region, planes=PLANES, windows=WINDOWS,
        places=places(visit, scene), candidates=[one for one in scene.regions if one.is_drawn],
        may_confirm=job.state in RESTING_STATES, affine=json.dumps([*scene.affine]),
    )  # fmt: skip


@page(fragment=True, operate=True)
async def sketch(visit: Visit) -> Response:
    """Draw what the user has drawn so far, and return what the user needs to know about it."""
    job = (await study_of(visit)).job
    draft = _draft(visit)
    headers = await visit.context.records.headers(job, afresh=True)
    async with visit.session.drawing:
        found = await visit.context.viewer.sketch(headers, job.case_key, draft)
    name = hashlib.sha256(repr((job.id, draft)).encode()).hexdigest()[:32]
    drafts = visit.session.drafts
    drafts[name] = (job.id, draft)
    drafts.move_to_end(name)
    while len(drafts) > _MOST_DRAFTS:
        drafts.popitem(last=False)
    parts = visit.say("contour.parts", parts=found.parts) if found.parts > 1 else ""
    told = {
        "sketch": name, "images": found.images, "keys": found.keys, "parts": parts,
        "others": _of_others(visit, found),
        "volume": visit.say("contour.volume", volume=visit.say.number(found.volume_mm3 / 1000)),
    }  # fmt: skip
    return JSONResponse(told)


@page(fragment=True, operate=True)
async def picture(visit: Visit) -> Response:
    """Draw one plane with the outline of a sketch."""
    job = (await study_of(visit)).job
    return await picture_of(visit, job, _sketched(visit, job.id, visit.request.query_params.get("sketch", "")))


@page(operate=True)
async def confirm(visit: Visit) -> Response:
    """Write the confirmed contour into the inbox."""
    job = (await study_of(visit)).job
    form, inbox = visit.form, visit.context.site.inbox
    if form.get("checked") != "yes":
        raise NotDoneError(visit.say("contour.unchecked"))
    try:
        person = person_name(form.get("person", ""))
    except PersonNameError as error:
        raise NotDoneError(str(error)) from error
    if inbox is None:
        raise Unavailable("The page does not know the inbox. Start it with --inbox, or with the daemon's --config.")
    draft = _sketched(visit, job.id, form.get("sketch", ""))
    async with visit.context.confirming:
        headers = await visit.context.records.headers(job, afresh=True)
        async with visit.session.drawing:
            document = await visit.context.viewer.confirm(
                headers, job.case_key, draft, person, datetime.now(UTC).astimezone().replace(microsecond=0),
                form.get("images", ""),
            )  # fmt: skip
        # The daemon needs a moment to record a contour, so the last one of each case is remembered here, too.
        this = Confirmed(person, document.name, document.sop_instance_uid)
        last = visit.context.confirmed.get(job.case_key, this)
        if last != this and last.is_expected(headers, inbox):
            raise NotDoneError(visit.say("contour.just_confirmed", name=last.person))
        try:
            await run_in_threadpool(outbox.deliver, [document], inbox)
        except OSError as error:
            raise Unavailable(
                "The contour could not be written into the inbox. Give the page write access to it, and confirm again."
            ) from error
        visit.context.confirmed[job.case_key] = this
    await visit.context.log.tell(
        "contour_confirmed", visit.session.account.user, visit.client, jobs=[job.id], document=document.name
    )
    return RedirectResponse(f"/study/{job.id}?confirmed=yes#state", 303)


def _of_others(visit: Visit, found: Sketched) -> str:
    """Say what the contour means for those that other persons confirmed; empty if there are none."""
    if found.rivals:
        return visit.say("contour.rival", name=", ".join(found.rivals))
    return visit.say("contour.replaced", name=", ".join(found.replaced)) if found.replaced else ""


def _sketched(visit: Visit, job: int, name: str) -> Draft:
    of_job, draft = visit.session.drafts.get(name, (None, None))
    if draft is None or of_job != job:
        raise NotDoneError(visit.say("contour.forgotten"))
    return draft


def _draft(visit: Visit) -> Draft:
    """Read what the browser sends: JSON with kind, points, include, exclude and smooth; and the region, if any."""
    try:
        sent = json.loads(visit.form.get("draft", ""))
        kind = str(sent["kind"])
        points, include, exclude = (_points(sent[key]) for key in ("points", "include", "exclude"))
        smooth = float(sent["smooth"])
        base = region_named(str(sent["region"]))
        if sent["region"] and base is None:
            raise ValueError("not a region")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise NotDoneError(visit.say("fault.form"), 400) from error
    if (
        len(points) not in _KINDS.get(kind, ()) or (base is None) == (kind == "region")
        or len(include) + len(exclude) > MOST_CORRECTIONS or not 0 <= smooth <= _MOST_SMOOTH_MM
    ):  # fmt: skip
        raise NotDoneError(visit.say("fault.form"), 400)
    return Draft(Prompt(cast(Kind, kind), points, include, exclude, smooth), base)


def _points(sent: Any) -> tuple[Point, ...]:
    return tuple(_point(one) for one in sent)


def _point(sent: Sequence[Any]) -> Point:
    x, y, z = (float(value) for value in sent)
    if not all(map(math.isfinite, (x, y, z))):
        raise ValueError("not a point")
    return x, y, z
