"""A page for a daemon in simulated time. The daemon takes its requests when the test lets it run."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from lungstage.appliance.page import worklist
from lungstage.appliance.page.accounts import Users
from lungstage.appliance.page.app import make_app, make_context
from lungstage.appliance.page.context import Context
from lungstage.appliance.page.sessions import RateLimit, Sessions
from lungstage.appliance.page.settings import load_site
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.staging.sketching import Draft, Sketched
from lungstage.appliance.staging.viewing import Offered, Packed, Patient, Picture, Scene
from tests.support.simulated import House

BASE = "http://127.0.0.1:8042"
SCRIPT = "<script>alert('x')</script>"
PASSWORD = "correct horse battery"
IMAGES = "0" * 64


class FakeViewer:
    """Gives every patient the same name, and offers two regions of the fake daemon's studies."""

    patient = Patient("DOE, JANE", "MRN-4711", "1957-03-17", SCRIPT)
    regions: tuple[Offered, ...] = (
        Offered("1.5.99", 1, SCRIPT, "RTSTRUCT", True),
        Offered("1.5.99", 2, "GTV-2", "RTSTRUCT", True),
    )

    async def patients(self, paths: Sequence[Path | None]) -> list[Patient]:
        return [self.patient if path else Patient() for path in paths]

    counts = (3, 4, 5)
    fault: Exception | None = None
    """The exception that is raised instead of an answer."""
    at_it = most = 0
    """The number of pictures being drawn, and the largest such number."""

    async def look(self, headers: Any, key: str, region: Any) -> Scene:
        if self.fault is not None:
            raise self.fault
        return Scene(self.counts, (1, 2, 2), 0, self.regions, ())

    async def sketch(self, headers: Any, key: str, draft: Draft) -> Sketched:
        if self.fault is not None:
            raise self.fault
        self.sketched.append(draft)
        return Sketched(4200.0, 1, (1, 2, 3), IMAGES, ())

    async def confirm(
        self, headers: Any, key: str, draft: Draft, person: str, created: datetime, images: str
    ) -> Document:
        if self.fault is not None:
            raise self.fault
        assert images == IMAGES
        return Document(f"SEG-2.25.{len(self.sketched)}.dcm", f"2.25.{len(self.sketched)}", "2.25.0", b"SEG")

    async def draw(
        self,
        headers: Any,
        key: str,
        plane: str,
        index: int | None,
        window: str,
        region: Any,
        draft: Draft | None = None,
    ) -> Picture:
        self.at_it += 1
        self.most = max(self.most, self.at_it)
        await asyncio.sleep(0.01)
        self.at_it -= 1
        return Picture(b"\x89PNG", index or 0)

    async def pack(self, headers: Any, key: str, layer: str, region: Any) -> Packed:
        return Packed(gzip.compress(layer.encode()))

    def __init__(self) -> None:
        self.sketched: list[Draft] = []

    def start(self) -> None: ...

    def end(self) -> None: ...


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """The daemon, the page, and its browsers."""

    house: House
    context: Context
    clock: Clock
    token: str
    clients: list[TestClient] = field(default_factory=list)

    def browser(self, **options: Any) -> TestClient:
        client = TestClient(make_app(self.context), BASE, follow_redirects=False, **options)
        self.clients.append(client)
        return client

    def logged_in(self, user: str = "") -> TestClient:
        client = self.browser()
        answer = client.get("/login", params={"token": self.token}) if not user else login(client, user, PASSWORD)
        assert answer.status_code == 303, answer.text
        return client

    def at_once(self, *asked: TestClient | str, form: dict[str, str] | None = None) -> list[httpx.Response]:
        """Let logged-in browsers request several paths, or send a form to them, at the same time."""
        clients = [one for one in asked if isinstance(one, TestClient)]
        paths = [one for one in asked if isinstance(one, str)]

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(make_app(self.context), client=("testclient", 1))
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as browser:
                waiting = []
                for client in clients:
                    cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
                    method = "GET" if form is None else "POST"
                    waiting += [browser.request(method, path, headers=cookie, data=form) for path in paths]
                return await asyncio.gather(*waiting)

        return asyncio.run(ask())

    def users(self, **roles: Any) -> Users:
        for name, role in roles.items():
            self.context.users.set(name, PASSWORD, role)
        return self.context.users


def login(client: TestClient, user: str, password: str, **more: str) -> httpx.Response:
    nonce = hidden(client.get("/login").text, "nonce")
    form = {"user": user, "password": password, "nonce": nonce, "next": "/", **more}
    return client.post("/login", data=form)


def hidden(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found, f"there is no {name} in the form"
    return found[1]


def send(client: TestClient, page: str, action: str, **form: str) -> httpx.Response:
    """Send a form of a page as a browser does."""
    text = client.get(page).text
    own = {"csrf": hidden(text, "csrf")}
    if 'name="seen"' in text:
        own["seen"] = hidden(text, "seen")
    return client.post(action, data=own | form)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(worklist, "HELD_SECONDS", 0.0)
    house = House(tmp_path)
    clock = Clock()
    context = make_context(load_site(None, state=house.state, inbox=house.inbox, outbox=house.outbox, environment={}))
    viewer: Any = FakeViewer()
    context = replace(
        context, viewer=viewer, sessions=Sessions(1800, 43200, clock), logins=RateLimit(8, 0.1, clock)
    )  # fmt: skip
    site = Site(house, context, clock, context.token.renew())
    yield site
    for client in site.clients:
        client.close()
    context.records.close()
