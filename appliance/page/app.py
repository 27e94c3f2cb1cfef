"""The page as an application: its routes, its templates and their context."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from lungstage.appliance.config.logs import logger
from lungstage.appliance.config.settings import alert_age
from lungstage.appliance.config.shipped import CONTOUR_BUNDLE, bundle_folder
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.model.bundle_files import CONTOUR_FILES, BundleFiles, read_files
from lungstage.appliance.page import contouring, login, status, study, words, worklist
from lungstage.appliance.page.access_log import AccessLog
from lungstage.appliance.page.accounts import Token, Users
from lungstage.appliance.page.context import Context, fault, language_of, session_of
from lungstage.appliance.page.records import Records
from lungstage.appliance.page.sessions import RateLimit, Sessions
from lungstage.appliance.page.settings import Site
from lungstage.appliance.page.shield import Shield
from lungstage.appliance.page.viewer import Viewer

_HERE: Final = Path(__file__).parent
_STATIC: Final = re.compile(r"[a-z]+\.(css|js|svg)")
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

_LOGINS = (8, 0.1)  # at once, and then one every ten seconds
_REQUESTS = (400, 60)


async def _static(request: Request) -> Response:
    """Return a static file of the page; static files contain no patient data, so they need no login."""
    name = request.path_params["name"]
    path = _HERE / "static" / name
    if not _STATIC.fullmatch(name) or not path.is_file():
        raise HTTPException(404)
    status = path.stat()
    headers = {"cache-control": "no-cache", "etag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


async def _alive(_: Request) -> Response:
    """Say that the page is served; people who are not logged in learn nothing else."""
    return PlainTextResponse("alive")


async def _fault(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 404
    say = words.translator(language_of(request))
    return fault(request, say, code if code in (404, 405) else 404, say("fault.404"), session=session_of(request))


ROUTES: Final = (
    Route("/", worklist.show),
    Route("/rows", worklist.rows),
    Route("/find", worklist.find, methods=["POST"]),
    Route("/study/{job:int}", study.show),
    Route("/study/{job:int}/live", study.live),
    Route("/study/{job:int}/picture/{plane}/{index}.png", study.picture),
    Route("/study/{job:int}/volume.nii", study.volume),
    Route("/study/{job:int}/region.nii", study.region),
    Route("/study/{job:int}/document/{name}", study.download),
    Route("/study/{job:int}/process-again", study.process_again, methods=["POST"]),
    Route("/study/{job:int}/choose-region", study.choose_region, methods=["POST"]),
    Route("/study/{job:int}/contour", contouring.show),
    Route("/study/{job:int}/contour/sketch", contouring.sketch, methods=["POST"]),
    Route("/study/{job:int}/contour/picture/{plane}/{index}.png", contouring.picture),
    Route("/study/{job:int}/contour/confirm", contouring.confirm, methods=["POST"]),
    Route("/status", status.show),
    Route("/status/live", status.live),
    Route("/status/doctor", status.ask_doctor, methods=["POST"]),
    Route("/login", login.show, methods=["GET"]),
    Route("/login", login.enter, methods=["POST"]),
    Route("/logout", login.leave, methods=["POST"]),
    Route("/language", login.choose_language, methods=["POST"]),
    Route("/static/{name}", _static),
    Route("/alive", _alive),
)


def make_context(site: Site) -> Context:
    """Make the context of the handlers, in the folder of the page."""
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=select_autoescape(default=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return Context(
        site=site,
        records=Records(site.state),
        viewer=Viewer(site.folder / "scratch", _contour_files(site)),
        sessions=Sessions(60 * site.page.session_minutes, 3600 * site.page.session_hours),
        users=Users(site.users),
        token=Token(site.folder),
        log=AccessLog(site.folder),
        logins=RateLimit(*_LOGINS),
        verifying=asyncio.Lock(),
        templates=templates,
        alert_age=alert_age(site.config) if site.config else timedelta(hours=1),
        confirming=asyncio.Lock(),
        confirmed={},
    )


def _contour_files(site: Site) -> BundleFiles | None:
    """Read the bundle that draws contours; the page works without it, and says so when somebody wants to draw."""
    try:
        return read_files(bundle_folder(site.page.contour_bundle), CONTOUR_FILES)
    except Refused as refused:
        if site.page.contour_bundle != CONTOUR_BUNDLE:  # somebody has set it
            logger.warning("contour_bundle_unavailable", extra={"reason": refused.reason.code.value})
        return None


def make_app(context: Context) -> Shield:
    """Make the application."""
    app = Starlette(routes=ROUTES, exception_handlers={404: _fault, 405: _fault})
    app.router.redirect_slashes = False
    site = context.site
    app.state.context, app.state.findings, app.state.shared = context, status.Findings(), worklist.Shared()
    app.state.disks = status.Disks({"state": site.state, "outbox": site.outbox, "inbox": site.inbox})
    address, page = site.page.address, site.page
    hosts = {address.host, *page.host_names}
    if address.is_loopback:
        hosts |= {"localhost", "127.0.0.1", "::1"}
    elif not page.host_names:  # the certificate is for a name, so the browser already warns about another one
        hosts = set()
    return Shield(app, hosts, secure=page.is_secure, limit=RateLimit(*_REQUESTS))
