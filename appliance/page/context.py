"""Context of every handler of the page, and the rules for all of them: login, roles, forms and errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from lungstage.appliance import __version__
from lungstage.appliance.contract.documents import Language
from lungstage.appliance.contract.errors import Held, ReasonCode, Refused, Unavailable
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.page import words
from lungstage.appliance.page.access_log import AccessLog
from lungstage.appliance.page.accounts import TOKEN_USER, Account, Token, Users
from lungstage.appliance.page.records import NotDeliveredError, Records
from lungstage.appliance.page.sentences import in_language
from lungstage.appliance.page.sessions import RateLimit, Session, Sessions
from lungstage.appliance.page.settings import Site
from lungstage.appliance.page.viewer import Viewer
from lungstage.appliance.report.translation import Translator

_MOST_FIELDS = 20
_NOT_THERE = frozenset({ReasonCode.NO_DICOM, ReasonCode.ROI_NOT_FOUND})
_PLACE = re.compile(r"/(\?[a-z0-9=&-]*|study/[0-9]{1,18}(/contour)?|status|login)?")

POLL: Final = "x-lungstage-poll"
"""Header of what a page asks for by itself, which keeps no session alive."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A contour that was confirmed in the page.

    Attributes
    ----------
    person
        Who confirmed it.
    document, sop_instance_uid
        Name of its file in the inbox, and its UID.
    """

    person: str
    document: str
    sop_instance_uid: str

    def is_expected(self, headers: Iterable[Header], inbox: Path) -> bool:
        """Whether its file lies in the inbox, and the daemon has not recorded it."""
        is_recorded = any(header.sop_instance_uid == self.sop_instance_uid for header in headers)
        return not is_recorded and (inbox / self.document).exists()


@dataclass(frozen=True, slots=True)
class Context:
    """Objects that every handler uses.

    Attributes
    ----------
    site, records, viewer, sessions, users, token, log, templates
        See their types.
    logins
        Limit of login attempts for each address.
    verifying
        Lock for verifying a password. This takes much memory and time on purpose, so it is done one after the other.
    alert_age
        Waiting time after which a study waits too long.
    confirming
        Lock for writing confirmed contours.
    confirmed
        The last contour that was confirmed of each case since this start.
    """

    site: Site
    records: Records
    viewer: Viewer
    sessions: Sessions
    users: Users
    token: Token
    log: AccessLog
    logins: RateLimit
    verifying: asyncio.Lock
    templates: Environment
    alert_age: timedelta
    confirming: asyncio.Lock
    confirmed: dict[str, Confirmed]

    @property
    def cookie(self) -> str:
        """Name of the session cookie; browsers accept the prefix only from this site."""
        return "__Host-lungstage" if self.site.page.is_secure else "lungstage"

    def knows(self, account: Account) -> bool:
        """Whether an account has not changed since its user logged in.

        Raises
        ------
        Unavailable
            The users cannot be read.
        """
        users = self.users.all()
        return users.get(account.user) == account if users else account.user == TOKEN_USER


class Visit:
    """One request of a logged-in user.

    Attributes
    ----------
    context, request, session
        As given.
    form
        Fields of the form; empty if the request has no form.
    language, say
        Language and translator of the reader.
    """

    def __init__(self, request: Request, session: Session, form: Mapping[str, str]) -> None:
        self.context: Context = request.app.state.context
        self.request, self.session, self.form = request, session, form
        self.language = language_of(request)
        self.say = words.translator(self.language)

    @property
    def client(self) -> str:
        """Address of the client."""
        return client_of(self.request)

    def render(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Make a page."""
        return render(self.request, template, status, session=self.session, **values)


Handler = Callable[[Visit], Awaitable[Response]]


def client_of(request: Request) -> str:
    """Return the address of the client."""
    return request.client.host if request.client else ""


def language_of(request: Request) -> Language:
    """Return the language for a browser."""
    context: Context = request.app.state.context
    accepted = request.headers.get("accept-language", "")
    return words.language_of(request.cookies.get("language"), accepted, context.site.page.language)


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Make a page, also for people who are not logged in."""
    context: Context = request.app.state.context
    language = language_of(request)
    values = {"session": None, **values}
    text = context.templates.get_template(template).render(
        say=words.translator(language), language=language, languages=words.NAMES, version=__version__,
        here=request.url.path, place=place_of(request), site_time=words.site_time, because=words.because,
        happened=words.happened, checked=words.checked, told=partial(words.told, language=language), **values,
    )  # fmt: skip
    return HTMLResponse(text, status)


def place_of(request: Request) -> str:
    """Return the address to come back to; for the worklist with its filter."""
    path, query = request.url.path, request.url.query
    return f"{path}?{query}" if path == "/" and query else path


def is_place(address: str) -> bool:
    """Whether an address is a page of this site."""
    return _PLACE.fullmatch(address) is not None


async def form_of(request: Request) -> dict[str, str]:
    """Read a form; if a field occurs twice, the last one counts."""
    body = await request.body()
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))


def session_of(request: Request) -> Session | None:
    """Return the session of a request; it ends if the user was removed or changed."""
    context: Context = request.app.state.context
    token = request.cookies.get(context.cookie)
    session = context.sessions.find(token, clicked=POLL not in request.headers) if token else None
    if token is None or session is None:
        return None
    try:
        known = context.knows(session.account)
    except Unavailable:  # the login page reports it
        return None
    if not known:
        context.sessions.end(token)
    return session if known else None


def page(*, fragment: bool = False, operate: bool = False) -> Callable[[Handler], Any]:
    """Make a request handler from a visit handler.

    Parameters
    ----------
    fragment
        Whether it returns a part of a page, a picture or a file. Without a login it then returns an error instead of
        the login page.
    operate
        Whether it needs role operate.
    """

    def decorate(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        @wraps(handler)
        async def answer(request: Request) -> Response:
            say = words.translator(language_of(request))
            session = session_of(request)
            if session is None:
                if fragment or request.method == "POST":
                    return fault(request, say, 401, say("fault.session"), fragment=fragment)
                return RedirectResponse(f"/login?{urlencode({'next': place_of(request)})}", 303)
            form: dict[str, str] = {}
            if request.method == "POST":
                try:
                    form = await form_of(request)
                except ValueError:  # too many fields
                    return fault(request, say, 400, say("fault.form"))
                if not session.bears(form.get("csrf", "")):
                    return fault(request, say, 403, say("fault.form"))
            if operate and not session.account.may_operate:
                return fault(request, say, 403, say("fault.role"))
            try:
                return await handler(Visit(request, session, form))
            except Unavailable as error:
                return fault(request, say, 503, str(error), fragment=fragment, session=session)
            except (NotDeliveredError, NotThereError) as error:
                return fault(request, say, 404, str(error), fragment=fragment, session=session)
            except NotDoneError as error:
                return fault(request, say, error.status, str(error), fragment=fragment, session=session)
            except (Held, Refused) as error:
                is_part = fragment and request.method == "GET"  # a picture or a file, not an act
                status = 404 if is_part and error.reason.code in _NOT_THERE else 409
                return fault(request, say, status, str(error), fragment=fragment, session=session)
            except OSError:
                return fault(request, say, 404, say("fault.gone"), fragment=fragment, session=session)

        return answer

    return decorate


class NotThereError(Exception):
    """The requested object does not exist; the message is a sentence."""


class NotDoneError(Exception):
    """The page exists, but what was asked of it cannot be done; the message is a sentence.

    Attributes
    ----------
    status
        HTTP status: 400 for a form that is not valid, otherwise 409.
    """

    def __init__(self, sentence: str, status: Literal[400, 409] = 409) -> None:
        super().__init__(sentence)
        self.status = status


def fault(
    request: Request, say: Translator, status: int, sentence: str, *, fragment: bool = False,
    session: Session | None = None,
) -> Response:  # fmt: skip
    """Show an error, in a sentence of the page or of the daemon."""
    sentence = in_language(sentence, say.language) or sentence
    if fragment:
        return PlainTextResponse(sentence, status)
    return render(request, "fault.html", status, session=session, sentence=sentence, title=say(f"fault.{status}"))
