"""Login, logout and choice of language."""

from __future__ import annotations

import secrets
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lungstage.appliance.contract.documents import LANGUAGES
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.page import words
from lungstage.appliance.page.accounts import Account
from lungstage.appliance.page.context import (
    Context,
    Visit,
    client_of,
    fault,
    form_of,
    is_place,
    language_of,
    page,
    render,
    session_of,
)

_NONCE: Final = "lungstage-login"  # in cookie and form, so that no other site can log a user in


async def show(request: Request) -> Response:
    """Show the form for name and password, or for the token; a link with the token logs in at once."""
    context: Context = request.app.state.context
    if session_of(request) is not None:
        return RedirectResponse("/", 303)
    token = request.query_params.get("token")
    if token is not None:
        return await _try(request, "", token, "/")
    return await _ask(request, request.query_params.get("next", "/"), "", 200, context)


async def enter(request: Request) -> Response:
    """Log a user in."""
    context: Context = request.app.state.context
    say = words.translator(language_of(request))
    try:
        form = await form_of(request)
    except ValueError:
        return fault(request, say, 400, say("fault.form"))
    nonce = request.cookies.get(_NONCE, "")
    if not nonce or not secrets.compare_digest(nonce.encode(), form.get("nonce", "").encode(errors="replace")):
        return await _ask(request, form.get("next", "/"), say("login.again"), 403, context)
    return await _try(request, form.get("user", ""), form.get("password", ""), form.get("next", "/"))


async def _try(request: Request, user: str, password: str, next_page: str) -> Response:
    context: Context = request.app.state.context
    say, client = words.translator(language_of(request)), client_of(request)
    if not context.logins.allows(client):
        return await _ask(request, next_page, say("login.slowly"), 429, context)
    try:
        users = context.users.all()
        account: Account | None
        if users:
            async with context.verifying:
                account = await run_in_threadpool(context.users.verify, user, password)
        else:
            account = context.token.verify(password)
        if account is None:
            await context.log.tell("login_refused", user if user in users else "", client)
            return await _ask(request, next_page, say("login.wrong"), 403, context)
        context.logins.give_back(client)  # a successful login is no attack; behind a proxy all users share an address
        await context.log.tell("login", account.user, client, role=account.role)
    except Unavailable as error:
        return fault(request, say, 503, str(error))
    context.sessions.end(request.cookies.get(context.cookie, ""))
    response = RedirectResponse(next_page if is_place(next_page) else "/", 303)
    secure = context.site.page.is_secure
    response.set_cookie(
        context.cookie, context.sessions.begin(account), httponly=True, secure=secure, samesite="strict", path="/"
    )
    response.delete_cookie(_NONCE, path="/login")
    return response


async def _ask(request: Request, next_page: str, problem: str, status: int, context: Context) -> Response:
    try:
        by_token = not context.users.all()
    except Unavailable as error:
        return fault(request, words.translator(language_of(request)), 503, str(error))
    nonce = request.cookies.get(_NONCE) or secrets.token_urlsafe(24)
    response = render(
        request, "login.html", status, nonce=nonce, by_token=by_token, problem=problem,
        next_page=next_page if is_place(next_page) else "/",
    )  # fmt: skip
    secure = context.site.page.is_secure
    response.set_cookie(_NONCE, nonce, httponly=True, secure=secure, samesite="strict", path="/login")
    return response


@page()
async def leave(visit: Visit) -> Response:
    """Log a user out."""
    context = visit.context
    context.sessions.end(visit.request.cookies.get(context.cookie, ""))
    await context.log.tell("logout", visit.session.account.user, visit.client)
    response = RedirectResponse("/login", 303)
    secure = context.site.page.is_secure  # without it browsers keep a cookie whose name begins with __Host-
    response.delete_cookie(context.cookie, path="/", secure=secure, httponly=True, samesite="strict")
    return response


async def choose_language(request: Request) -> Response:
    """Store a language in a cookie with no other content; this needs no login."""
    try:
        form = await form_of(request)
    except ValueError:
        form = {}
    here = form.get("here", "/")
    response = RedirectResponse(here if is_place(here) else "/", 303)
    if (language := form.get("language")) in LANGUAGES:
        context: Context = request.app.state.context
        response.set_cookie(
            "language", language, max_age=365 * 86400, samesite="strict", secure=context.site.page.is_secure
        )
    return response
