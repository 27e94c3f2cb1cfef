"""One study: its state and reason, its images with regions, its answer, and the possible requests."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Held, Refused, Unavailable
from lungstage.appliance.page.context import NotDoneError, NotThereError, Visit, page
from lungstage.appliance.page.records import Ledger, document, first_file
from lungstage.appliance.page.words import (
    answer_of,
    caveats_of,
    chance_of,
    descriptors_of,
    probability_of,
    region_is_open,
    robustness_of,
    worth_of,
)
from lungstage.appliance.report.key_views import Plane
from lungstage.appliance.report.page_objects import pdf_inside
from lungstage.appliance.report.result_page import signed
from lungstage.appliance.report.vocabulary import CONCEPTS, plain_name
from lungstage.appliance.staging.sketching import Draft
from lungstage.appliance.staging.viewing import PLANES, WINDOWS, Layer, Offered, Scene
from lungstage.appliance.state import requests
from lungstage.appliance.state.job import RESTING_STATES, Job
from lungstage.appliance.state.requests import Request, Taken

_TYPES: Final = {"dcm": "application/dicom", "pdf": "application/pdf", "html": "application/octet-stream"}
NIIVUE: Final = Path(__file__).parent / "static" / "niivue.js"
_NOTHING: Final = Scene((0, 0, 0), (0, 0, 0), 0, (), ())


@dataclass(frozen=True, slots=True)
class Known:
    """A job, its processed and pending requests, the job that replaced it, and its number of files."""

    job: Job
    taken: tuple[Taken, ...]
    pending: tuple[Request, ...]
    newer: int | None
    files: int

    def etag(self, visit: Visit) -> str:
        """Return a hash of everything that the page shows of it, including forms."""
        said = repr((self, visit.language, visit.session.csrf))
        return f'"{hashlib.sha256(said.encode()).hexdigest()[:32]}"'


def _number(visit: Visit) -> int:
    return int(visit.request.path_params["job"])


async def study_of(visit: Visit) -> Known:
    """Return the job that a request is about.

    Raises
    ------
    NotThereError
        There is no such job.
    """
    number = _number(visit)

    def find(ledger: Ledger) -> Known | None:
        job = ledger.jobs.get(number)
        if job is None or job.canary:
            return None
        newest = ledger.jobs.of_case(job.case_key)
        newer = newest.id if newest is not None and newest.id != job.id else None
        pending, files = _pending(visit.context.site.state, job), ledger.files.count_of_study(job.study_instance_uid)
        return Known(job, ledger.requests.of_job(number), pending, newer, files)

    found = await visit.context.records.ask(find) if number < 2**63 else None
    if found is None:
        raise NotThereError(visit.say("fault.no_job", job=number))
    return found


def _region_of(job: Job, offered: Sequence[Offered]) -> RegionChoice | None:
    """Return the region to show: the chosen or measured one, or the only one that is drawn."""
    drawn = [one for one in offered if one.is_drawn]
    if job.choice is not None and any((one.roi, one.number) == (job.choice.roi, job.choice.number) for one in drawn):
        return job.choice
    measured = ((job.outcome or {}).get("roi") or {}).get("name")
    named = [one for one in drawn if one.name == measured] if measured else []
    chosen = named or (drawn if len(drawn) == 1 else [])
    return RegionChoice(chosen[0].roi, chosen[0].number) if chosen else None


@page()
async def show(visit: Visit) -> Response:
    """Show one study."""
    known = await study_of(visit)
    job = known.job
    await visit.context.log.shown("study_viewed", visit.session, visit.client, [job.id])
    scene, region = await _scene(visit, job)
    file = await visit.context.records.ask(lambda ledger: first_file(ledger.files, job))
    (patient,) = await visit.context.viewer.patients([file])
    window = visit.request.query_params.get("window", "lung")
    no_viewer = "not_built" if not NIIVUE.is_file() else "too_large" if scene.is_too_large else ""
    return visit.render(
        "study.html", patient=patient, scene=scene, region=region, planes=PLANES, windows=WINDOWS,
        window=window if window in WINDOWS else "lung", places=places(visit, scene), no_viewer=no_viewer,
        candidates=[one for one in scene.regions if one.is_drawn],
        confirmed=visit.request.query_params.get("confirmed") == "yes", **await _live(visit, known),
    )  # fmt: skip


async def _scene(visit: Visit, job: Job) -> tuple[Scene, RegionChoice | None]:
    """Read the images and the region to show; without images, the rest of the study is still shown."""
    try:
        scene = await look(visit, job, None)
        asked = asked_region(visit)
        region = asked if asked is not None and scene.offers(asked) else _region_of(job, scene.regions)
        return (scene, None) if region is None else (await look(visit, job, region), region)
    except (Held, Refused) as refused:
        fault = refused.reason.message
    except Unavailable as error:
        fault = str(error)
    except OSError:
        fault = visit.say("fault.gone")
    return replace(_NOTHING, faults=(fault,)), None


async def look(visit: Visit, job: Job, region: RegionChoice | None) -> Scene:
    """Return what can be shown of a job's study."""
    headers = await visit.context.records.headers(job, afresh=region is None)
    if not headers:
        return _NOTHING
    async with visit.session.drawing:
        return await visit.context.viewer.look(headers, job.case_key, region)


def asked_region(visit: Visit) -> RegionChoice | None:
    """Return the region that the address names."""
    return region_named(visit.request.query_params.get("region", ""))


def region_named(text: str) -> RegionChoice | None:
    """Return the region that a form or an address names, as UID/number; None for any other text."""
    roi, slash, number = text.rpartition("/")
    return RegionChoice(roi, int(number)) if slash and _is_number(number) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def places(visit: Visit, scene: Scene) -> dict[str, int]:
    """Return which plane of each kind is shown: the requested one, or the one in which the region is largest."""
    places: dict[str, int] = {}
    for plane, count, key in zip(PLANES, scene.counts, scene.keys, strict=True):
        asked = visit.request.query_params.get(plane, "")
        places[plane] = min(int(asked), max(count - 1, 0)) if _is_number(asked) else key
    return places


def _pending(state: Path, job: Job) -> tuple[Request, ...]:
    """Return the requests for a job that the daemon has not processed yet."""
    found: list[Request] = []
    with contextlib.suppress(OSError):  # a problem of the folder is reported when someone makes a request
        for name in requests.waiting(state):
            with contextlib.suppress(OSError, ValueError):  # processed meanwhile, or not a request
                found.append(requests.read(state, name))
    return tuple(request for request in found if request.job == job.id)


async def _live(visit: Visit, known: Known) -> dict[str, Any]:
    """Collect what can change while the page is open: state, answer, documents, requests, history."""
    job = known.job
    history = await run_in_threadpool(visit.context.records.history, job)
    contributions = sorted(
        ((job.outcome or {}).get("contributions") or {}).items(), key=lambda one: abs(one[1]), reverse=True
    )
    longest = max((abs(value) for _, value in contributions), default=0.0) or 1.0
    features = (job.outcome or {}).get("features") or {}
    is_last = not known.newer and not known.pending
    return {
        "job": job,
        "etag": known.etag(visit),
        "files": known.files,
        "drawn_of": visit.request.query_params.get("drawn_of", str(known.files)),
        "newer": known.newer,
        "choosing": region_is_open(job),
        "answer": answer_of(job, visit.say),
        "probability": probability_of(job),
        "chance": chance_of(job, visit.language),
        "robustness": robustness_of(job, visit.language),
        "descriptors": descriptors_of(job, visit.language),
        "worth": worth_of(job, visit.language),
        "caveats": caveats_of(job, visit.language) if job.outcome else (),
        "contributions": [
            (
                plain_name(name) if name in CONCEPTS else "",
                name,
                features.get(name),
                signed(value, visit.say),
                value / longest,
            )
            for name, value in contributions
        ],
        "documents": _offered(history.documents),
        "history": [(datetime.fromisoformat(entry.time), entry) for entry in history.entries],
        "pending": known.pending,
        "may_ask": visit.session.account.may_operate and job.state in RESTING_STATES and is_last,
    }


def _offered(documents: Iterable[str]) -> list[str]:
    """Name the downloads: first the plain PDF inside the Encapsulated PDF, then each document."""
    names = sorted(documents)
    return [*(f"{name.removesuffix('.dcm')}.pdf" for name in names if name.startswith("PDF-")), *names]


@page(fragment=True)
async def live(visit: Visit) -> Response:
    """Return only what can change, if it differs from the browser; the audit log is read only then."""
    known = await study_of(visit)
    headers = {"etag": known.etag(visit)}
    if visit.request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    response = visit.render("live.html", **await _live(visit, known))
    response.headers.update(headers)
    return response


@page(fragment=True)
async def picture(visit: Visit) -> Response:
    """Draw one plane."""
    return await picture_of(visit, (await study_of(visit)).job)


async def picture_of(visit: Visit, job: Job, draft: Draft | None = None) -> Response:
    """Draw the plane that the address names, with the region that it names, and with a draft."""
    plane, index = visit.request.path_params["plane"], visit.request.path_params["index"]
    window = visit.request.query_params.get("window", "lung")
    if plane not in PLANES or window not in WINDOWS or not (index == "key" or _is_number(index)):
        raise NotThereError(visit.say("fault.404"))
    await visit.context.log.shown("images_viewed", visit.session, visit.client, [job.id])
    number = None if index == "key" else int(index)
    headers = await visit.context.records.headers(job, afresh=False)
    async with visit.session.drawing:
        drawn = await visit.context.viewer.draw(
            headers, job.case_key, cast(Plane, plane), number, window, asked_region(visit), draft
        )  # fmt: skip
    return Response(drawn.png, media_type="image/png")


@page(fragment=True)
async def volume(visit: Visit) -> Response:
    """Return the slices as one volume."""
    return await _packed(visit, "image", None)


@page(fragment=True)
async def region(visit: Visit) -> Response:
    """Return one region in that volume."""
    asked = asked_region(visit)
    if asked is None:
        raise NotThereError(visit.say("fault.no_region"))
    return await _packed(visit, "region", asked)


async def _packed(visit: Visit, layer: Layer, asked: RegionChoice | None) -> Response:
    job = (await study_of(visit)).job
    await visit.context.log.shown("images_viewed", visit.session, visit.client, [job.id])
    headers = await visit.context.records.headers(job, afresh=False)
    async with visit.session.drawing:
        packed = await visit.context.viewer.pack(headers, job.case_key, layer, asked)
    return Response(packed.content, media_type="application/octet-stream", headers={"content-encoding": "gzip"})


@page(fragment=True)
async def download(visit: Visit) -> Response:
    """Return one document, as it was delivered."""
    name = visit.request.path_params["name"]
    inside = name.startswith("PDF-") and name.endswith(".pdf")  # for users without software for PDF in DICOM
    kept = f"{name.removesuffix('.pdf')}.dcm" if inside else name
    known = await study_of(visit)
    history = await run_in_threadpool(visit.context.records.history, known.job)
    content = await run_in_threadpool(document, history, kept, visit.context.site.outbox)
    if inside:
        content = await run_in_threadpool(pdf_inside, content)
    await visit.context.log.tell(
        "document_taken", visit.session.account.user, visit.client, jobs=[known.job.id], document=name
    )
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


@page(operate=True)
async def process_again(visit: Visit) -> Response:
    """Ask the daemon to process a case again."""
    return await _request(visit, None)


@page(operate=True)
async def choose_region(visit: Visit) -> Response:
    """Ask the daemon to measure the region that was chosen."""
    if (region := region_named(visit.form.get("region", ""))) is None:
        raise NotDoneError(visit.say("fault.no_region"))
    return await _request(visit, region)


async def _request(visit: Visit, choice: RegionChoice | None) -> Response:
    job, user = (await study_of(visit)).job, visit.session.account.user
    if choice is not None and not (await look(visit, job, None)).offers(choice):
        raise NotDoneError(visit.say("fault.no_region"))
    try:
        seen = datetime.fromisoformat(visit.form.get("seen", ""))
    except ValueError:
        seen = None
    if seen is None or seen.tzinfo is None:
        raise NotDoneError(visit.say("fault.form"), 400)
    kind: Any = "process_again" if choice is None else "choose_region"
    request = Request(kind, job.id, seen, user, *((choice.roi, choice.number) if choice else ()))
    name = await run_in_threadpool(requests.put, visit.context.site.state, request)
    await visit.context.log.tell("requested", user, visit.client, jobs=[job.id], kind=kind, request=name)
    return RedirectResponse(f"/study/{job.id}#state", 303)
