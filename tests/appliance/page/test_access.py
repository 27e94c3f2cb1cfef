"""Who can log in, what users may do, and the headers of every response."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.config.settings import SettingsError
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.page import server, shield
from lungstage.appliance.page.accounts import AccountsError, Token, Users
from lungstage.appliance.page.app import ROUTES
from lungstage.appliance.page.sessions import RateLimit
from lungstage.appliance.page.settings import address_of, load_site
from lungstage.appliance.page.shield import HEADERS, POLICY, Shield
from lungstage.appliance.state import chain, requests
from tests.appliance.page.conftest import PASSWORD, Clock, Site, hidden, login, send
from tests.support.simulated import put_study


def told(site: Site) -> list[dict[str, Any]]:
    return [entry.as_dict() for entry in chain.entries(site.context.site.folder)]


class TestEveryResponse:
    @pytest.mark.parametrize(
        ("method", "path", "headers", "status"),
        [
            ("GET", "/", {}, 303),
            ("GET", "/login", {}, 200),
            ("GET", "/login?token=wrong", {}, 403),
            ("GET", "/nowhere", {}, 404),
            ("GET", "/static/page.css", {}, 200),
            ("GET", "/static/nothing.css", {}, 404),
            ("GET", "/static/..%2fapp.py", {}, 404),
            ("GET", "/rows", {}, 401),
            ("GET", "/study/1/live", {}, 401),
            ("GET", "/study/1/picture/axial/0.png", {}, 401),
            ("GET", "/study/1/volume.nii", {}, 401),
            ("GET", "/study/1/region.nii?region=1.2/1", {}, 401),
            ("PUT", "/", {}, 405),
            ("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, 405),
            ("POST", "/logout", {"content-type": "application/x-www-form-urlencoded"}, 401),
            ("POST", "/logout", {"content-type": "application/json"}, 415),
            ("POST", "/logout", {"origin": "https://evil.example"}, 403),
            ("POST", "/logout", {"sec-fetch-site": "cross-site"}, 403),
            ("GET", "/", {"host": "evil.example"}, 400),
            ("GET", "/", {"host": "evil.example:8042"}, 400),
            ("GET", "/alive", {}, 200),
        ],
    )
    def test_bears_the_policy(self, site: Site, method: str, path: str, headers: dict[str, str], status: int) -> None:
        answer = site.browser().request(method, path, headers=headers)
        assert answer.status_code == status
        for name, value in HEADERS:
            assert answer.headers[name.decode()] == value.decode()
        assert "unsafe" not in POLICY
        assert "cache-control" in answer.headers

    def test_bears_it_where_a_defect_of_ours_ended_it(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        client = site.logged_in()

        def broken(*_: object) -> None:
            raise ZeroDivisionError("DOE^JANE")

        monkeypatch.setattr(type(site.context.records), "ask", broken)
        answer = client.get("/")
        assert answer.status_code == 500
        assert answer.headers["content-security-policy"] == POLICY
        assert "JANE" not in answer.text

    def test_a_form_that_is_too_large_is_refused(self, site: Site) -> None:
        answer = site.browser().post("/login", data={"password": "x" * 100_000})
        assert answer.status_code == 413
        assert answer.headers["content-security-policy"] == POLICY

    def test_no_script_or_style_stands_in_a_page(self, site: Site) -> None:
        put_study(site.house.inbox)
        site.house.run(2)
        client = site.logged_in()
        for path in ("/", "/study/1", "/status"):
            text = client.get(path).text
            assert " style=" not in text
            assert "<style" not in text
            assert not re.search(r"<[^>]* on[a-z]+=", text)
            assert text.count("<script") == 1

    def test_a_form_that_never_comes_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shield, "SECONDS_TO_SEND", 0.05)

        async def app(_: Any, receive: Any, __: Any) -> None:
            await receive()

        async def never() -> Any:
            await asyncio.sleep(3600)

        assert status_of(Shield(app, (), secure=False, limit=RateLimit(1, 1)), never) == 408

    def test_of_too_many_that_ask_at_once_some_are_told_to_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shield, "MOST_AT_ONCE", 2)
        inner: list[int] = []

        async def app(*_: Any) -> None:
            if len(inner) < 2:  # a second request arrives during the first
                place = len(inner)
                inner.append(0)
                inner[place] = await answer_of(guarded, received)

        async def received() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        guarded = Shield(app, (), secure=False, limit=RateLimit(9, 1))
        asyncio.run(answer_of(guarded, received))
        assert inner == [0, 503]
        assert asyncio.run(answer_of(guarded, received)) == 0, "no request is refused when the others are finished"

    def test_what_is_the_browser_s_already_is_not_sent_again(self, site: Site) -> None:
        client = site.browser()
        tag = client.get("/static/page.css").headers["etag"]
        again = client.get("/static/page.css", headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == POLICY


async def answer_of(app: Any, receive: Any) -> int:
    """The status of an application's response; 0 if there is none."""
    said: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])
            assert (b"content-security-policy", POLICY.encode()) in message["headers"]

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("127.0.0.1", 1)}
    await app(scope, receive, send)
    return said[0] if said else 0


def status_of(app: Any, receive: Any) -> int:
    return asyncio.run(answer_of(app, receive))


class TestEveryRoute:
    """Every route needs login and role, also routes that are added later."""

    def test_takes_a_login_unless_it_is_how_one_logs_in(self, site: Site) -> None:
        client, form = site.browser(), {"content-type": "application/x-www-form-urlencoded"}
        for path, method in routes():
            status = client.request(method, path, headers=form).status_code
            if path in ("/login", "/language", "/alive", "/static/1"):
                assert status != 401, path
            else:
                is_part = path.count("/") > 2 and path != "/study/1/contour"
                wanted = 401 if method == "POST" or is_part or path in ("/rows", "/status/live") else 303
                assert status == wanted, path

    def test_that_changes_anything_takes_a_form_of_the_session_and_somebody_who_operates(self, site: Site) -> None:
        site.users(anna="operate", ben="view")
        client = site.logged_in("ben")
        own = hidden(client.get("/status").text, "csrf")
        posts = [path for path, method in routes() if method == "POST" and path not in ("/login", "/language")]
        assert len(posts) >= 5
        for path in posts:
            assert client.post(path, data={"csrf": "x"}).status_code == 403, path
        for path in posts:
            if path not in ("/find", "/logout"):
                assert client.post(path, data={"csrf": own}).status_code == 403, path


def routes() -> list[tuple[str, str]]:
    """Path and method of each route, with numbers and names filled in."""
    found = []
    for route in ROUTES:
        path = re.sub(r"\{\w+(:\w+)?\}", "1", route.path)
        found += [(path, method) for method in (route.methods or ()) if method != "HEAD"]
    assert len(found) > 15
    return found


class TestLogin:
    def test_by_the_token_once_and_by_no_other(self, site: Site) -> None:
        client = site.browser()
        assert client.get("/", follow_redirects=True).url.path == "/login"
        assert client.get("/login", params={"token": site.token[:-1]}).status_code == 403
        answer = client.get("/login", params={"token": site.token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert site.token not in cookie

    def test_a_new_token_ends_the_old_one_and_none_is_kept_in_plain(self, site: Site) -> None:
        new = Token(site.context.site.folder).renew()
        assert site.browser().get("/login", params={"token": site.token}).status_code == 403
        assert site.browser().get("/login", params={"token": new}).status_code == 303
        path = site.context.site.folder / "token.json"
        assert new not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_users_take_the_place_of_the_token(self, site: Site) -> None:
        site.users(anna="operate", ben="view")
        client = site.browser()
        assert client.get("/login", params={"token": site.token}).status_code == 403
        assert login(client, "anna", PASSWORD[:-1]).status_code == 403
        assert login(client, "nobody", PASSWORD).status_code == 403
        assert login(client, "ben", PASSWORD, next="/study/7").headers["location"] == "/study/7"

    @pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil", "/study/7/../x"])
    def test_it_leads_nowhere_else(self, site: Site, target: str) -> None:
        assert login(site.browser(), "", site.token, next=target).headers["location"] == "/"

    def test_a_form_from_elsewhere_logs_nobody_in(self, site: Site) -> None:
        answer = site.browser().post("/login", data={"password": site.token, "nonce": "x"})
        assert answer.status_code == 403
        client = site.browser()
        client.get("/login")
        assert client.post("/login", data={"password": site.token, "nonce": "x"}).status_code == 403

    def test_whoever_guesses_has_to_wait(self, site: Site) -> None:
        client = site.browser()
        answers = [client.get("/login", params={"token": f"guess {n}"}).status_code for n in range(10)]
        assert answers == [403] * 8 + [429] * 2
        assert client.get("/login", params={"token": site.token}).status_code == 429
        site.clock.now += 60
        assert client.get("/login", params={"token": site.token}).status_code == 303

    def test_who_knows_it_never_has_to_wait(self, site: Site) -> None:
        for _ in range(30):
            assert site.browser().get("/login", params={"token": site.token}).status_code == 303

    def test_ends_the_session_that_the_browser_had(self, site: Site) -> None:
        client, thief = site.browser(), site.browser()
        login(client, "", site.token)
        thief.cookies.update(client.cookies)
        client.cookies.set("lungstage-login", "n")
        assert client.post("/login", data={"password": site.token, "nonce": "n"}).status_code == 303
        assert thief.get("/status").status_code == 303

    def test_passwords_are_verified_one_after_the_other(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """The verification of one password takes 64 MB on purpose."""
        site.users(anna="operate")
        at_it, most = [0], [0]

        def verify(*_: object) -> None:
            at_it[0] += 1
            most[0] = max(most[0], at_it[0])
            time.sleep(0.02)
            at_it[0] -= 1

        monkeypatch.setattr(Users, "verify", verify)
        answers = site.at_once(site.browser(), *["/login?token=x"] * 6)
        assert [answer.status_code for answer in answers] == [403] * 6
        assert most == [1]

    def test_under_tls_the_cookie_is_this_site_s_alone_and_can_be_taken_away(self, site: Site) -> None:
        page = site.context.site.page.model_copy(update={"behind_tls_proxy": True})
        site.context = replace(site.context, site=replace(site.context.site, page=page))
        client = site.browser()
        client.base_url = "https://127.0.0.1:8042"
        given = client.get("/login", params={"token": site.token}).headers.get_list("set-cookie")[0]
        assert given.startswith("__Host-lungstage=")
        csrf = hidden(client.get("/status").text, "csrf")
        (taken,) = client.post("/logout", data={"csrf": csrf}).headers.get_list("set-cookie")
        for cookie in (given, taken):  # without Secure a browser ignores such a cookie and keeps the old one
            assert {"secure", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}

    @pytest.mark.parametrize("path", ["/", "/?state=held&since=2026-01-02&patient=" + "0a" * 16, "/study/7", "/status"])
    def test_leads_back_to_where_somebody_was(self, site: Site, path: str) -> None:
        answer = site.browser().get(path)
        client = site.browser()
        wanted = client.get(answer.headers["location"])
        assert login(client, "", site.token, next=unescape(hidden(wanted.text, "next"))).headers["location"] == path

    def test_what_happens_at_the_door_is_in_the_access_log(self, site: Site) -> None:
        site.users(anna="operate")
        client = site.browser()
        login(client, "anna", "wrong password")
        login(client, "DOE^JANE", PASSWORD)
        login(client, "anna", PASSWORD)
        send(client, "/status", "/logout")
        events = [(entry["event"], entry["user"]) for entry in told(site)]
        assert events == [("login_refused", "anna"), ("login_refused", ""), ("login", "anna"), ("logout", "anna")]
        assert chain.verify(site.context.site.folder).fault is None

    def test_a_damaged_file_of_users_lets_nobody_in(self, site: Site) -> None:
        site.context.site.users.write_text("{")
        for answer in (site.browser().get("/login"), site.browser().get("/login", params={"token": site.token})):
            assert answer.status_code == 503
            assert "no user can log in" in answer.text


class TestSession:
    def test_ends_without_a_click_and_a_page_that_polls_is_none(self, site: Site) -> None:
        put_study(site.house.inbox)
        site.house.run(2)
        client = site.logged_in()
        for _ in range(5):
            site.clock.now += 600
            if site.clock.now < 2800:
                assert client.get("/rows", headers={"x-lungstage-poll": "1"}).status_code == 200
        assert client.get("/rows").status_code == 401
        assert client.get("/").headers["location"] == "/login?next=%2F"

    def test_ends_in_any_case(self, site: Site) -> None:
        client = site.logged_in()
        for _ in range(72):
            site.clock.now += 600
            assert client.get("/status").status_code == 200
        site.clock.now += 600
        assert client.get("/status").status_code == 303

    def test_that_was_left_is_of_no_use_to_who_stole_it(self, site: Site) -> None:
        client, thief = site.logged_in(), site.browser()
        thief.cookies.update(client.cookies)
        assert thief.get("/status").status_code == 200
        assert send(client, "/status", "/logout").headers["location"] == "/login"
        assert thief.get("/status").status_code == 303

    @pytest.mark.parametrize("what", ["removed", "role", "password"])
    def test_of_a_user_who_is_removed_or_changed_ends_at_once(self, site: Site, what: str) -> None:
        users = site.users(anna="operate", ben="operate")
        anna, ben = site.logged_in("anna"), site.logged_in("ben")
        assert ben.get("/").status_code == 200
        if what == "removed":
            users.remove("ben")
        else:
            users.set("ben", "another password" if what == "password" else None, "view" if what == "role" else None)
        assert ben.get("/").status_code == 303
        assert ben.get("/rows").status_code == 401
        assert anna.get("/").status_code == 200
        if what == "removed":
            users.set("ben", PASSWORD, "operate")
            assert ben.get("/").status_code == 303, "the session stays ended"

    def test_by_the_token_ends_as_soon_as_there_are_users(self, site: Site) -> None:
        client = site.logged_in()
        site.users(anna="operate")
        assert client.get("/").status_code == 303

    def test_is_none_while_the_users_cannot_be_read(self, site: Site) -> None:
        site.users(anna="operate")
        client = site.logged_in("anna")
        kept = site.context.site.users.read_bytes()
        site.context.site.users.write_bytes(b"{")
        assert client.get("/").status_code == 303
        site.context.site.users.write_bytes(kept)
        assert client.get("/").status_code == 200

    def test_that_was_made_up_is_none(self, site: Site) -> None:
        client = site.browser()
        client.cookies.set("lungstage", "x" * 43)
        assert client.get("/status").status_code == 303


class TestForms:
    @pytest.mark.parametrize("token", ["", "x", "\u00e9", None])
    def test_a_forged_one_asks_for_nothing(self, site: Site, token: str | None) -> None:
        put_study(site.house.inbox)
        site.house.run(2)
        client = site.logged_in()
        seen = hidden(client.get("/study/1").text, "seen")
        form = {"seen": seen} if token is None else {"seen": seen, "csrf": token}
        assert client.post("/study/1/process-again", data=form).status_code == 403
        assert requests.waiting(site.house.state) == ()

    def test_another_session_s_token_is_none_of_mine(self, site: Site) -> None:
        put_study(site.house.inbox)
        site.house.run(2)
        one, other = site.logged_in(), site.logged_in()
        text = other.get("/study/1").text
        form = {"seen": hidden(text, "seen"), "csrf": hidden(text, "csrf")}
        assert one.post("/study/1/process-again", data=form).status_code == 403

    def test_who_may_look_may_ask_for_nothing(self, site: Site) -> None:
        site.users(anna="operate", ben="view")
        put_study(site.house.inbox)
        site.house.run(2)
        client = site.logged_in("ben")
        assert "process-again" not in client.get("/study/1").text
        for action in ("/study/1/process-again", "/study/1/choose-region", "/status/doctor"):
            assert send(client, "/status", action, seen="2026-01-01T00:00:00+00:00").status_code == 403
        assert requests.waiting(site.house.state) == ()

    def test_one_with_a_thousand_fields_is_refused(self, site: Site) -> None:
        client = site.logged_in()
        answer = client.post("/logout", data={f"f{n}": "x" for n in range(1000)})
        assert answer.status_code == 400


class TestUsers:
    def test_the_last_who_operates_stays(self, tmp_path: Path) -> None:
        users = Users(tmp_path / "users.json")
        with pytest.raises(AccountsError, match="The last user with role operate"):
            users.set("ben", PASSWORD, "view")
        users.set("anna", PASSWORD, "operate")
        users.set("ben", PASSWORD, "view")
        for change in (lambda: users.remove("anna"), lambda: users.set("anna", None, "view")):
            with pytest.raises(AccountsError, match="The last user with role operate"):
                change()
        users.set("ben", None, "operate")
        users.remove("anna")
        assert {name: account.role for name, account in users.all().items()} == {"ben": "operate"}

    def test_only_hashes_are_kept_and_nobody_else_reads_them(self, tmp_path: Path) -> None:
        users = Users(tmp_path / "users.json")
        users.set("anna", PASSWORD, "operate")
        text = (tmp_path / "users.json").read_text()
        assert PASSWORD not in text
        assert json.loads(text)["anna"]["password"].startswith("$argon2id$")
        assert stat.S_IMODE((tmp_path / "users.json").stat().st_mode) == 0o600
        assert users.verify("anna", PASSWORD) is not None
        assert users.verify("anna", PASSWORD.upper()) is None

    @pytest.mark.parametrize("name", ["", "a b", "../x", "DOE^JANE", "x" * 65, "<b>"])
    def test_a_name_that_cannot_be_used(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(AccountsError, match="letters, digits"):
            Users(tmp_path / "users.json").set(name, PASSWORD, "operate")

    def test_a_password_that_is_too_short(self, tmp_path: Path) -> None:
        with pytest.raises(AccountsError, match="at least 12"):
            Users(tmp_path / "users.json").set("anna", "short", "operate")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_what_root_writes_belongs_to_the_folder_s_owner(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 12345, 12346)
        users = Users(tmp_path / "page" / "users.json")
        users.set("anna", PASSWORD, "operate")
        users.set("ben", PASSWORD, "view")
        made = [tmp_path / "page", *(tmp_path / "page").iterdir()]
        assert len(made) == 3
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12346)}


class TestSettings:
    @pytest.mark.parametrize("bind", ["0.0.0.0:8042", "192.168.1.5:8042", "[::]:8042", "pacs.example:443"])
    def test_off_loopback_without_tls_is_refused(self, tmp_path: Path, bind: str) -> None:
        with pytest.raises(SettingsError, match="there is no TLS"):
            load_site(None, bind=bind, state=tmp_path, environment={})
        (tmp_path / "tls.toml").write_text('[page]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n')
        assert load_site(tmp_path / "tls.toml", bind=bind, state=tmp_path, environment={}).page.is_secure

    @pytest.mark.parametrize("bind", ["127.0.0.1:0", "localhost:1", "[::1]:65535", "127.9.9.9:80"])
    def test_loopback_needs_none(self, tmp_path: Path, bind: str) -> None:
        assert load_site(None, bind=bind, state=tmp_path, environment={}).page.address.is_loopback

    @pytest.mark.parametrize(
        "text",
        [
            '[page]\nbimd = "x"',
            '[page]\nbind = "8042"',
            '[page]\ntls_key = "k"',
            "page = 3",
            '[page]\nbind = "h:99999"',
        ],
    )
    def test_what_cannot_be_used_is_said(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x.toml").write_text(text)
        with pytest.raises(SettingsError, match=r"\[page\]"):
            load_site(tmp_path / "x.toml", state=tmp_path, environment={})


@given(st.text(max_size=40))
def test_an_address_is_read_or_refused(text: str) -> None:
    try:
        address = address_of(text)
    except ValueError:
        return
    assert address_of(address.in_url) == address


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::7", True), ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("10.0.0.1", "10.0.0.2", False), ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False), ("testclient", "", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)  # fmt: skip
def test_a_limit_is_for_whoever_has_an_address(one: str, other: str, is_same: bool) -> None:
    """With IPv6, one user has a whole network of addresses."""
    limit = RateLimit(1, 0.0, Clock())
    assert limit.allows(one)
    assert limit.allows(other) is not is_same


def test_a_limit_lets_through_so_many_and_forgets_nobody_too_soon() -> None:
    clock = Clock()
    limit = RateLimit(3, 1.0, clock)
    assert [limit.allows("a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.allows("b")
    clock.now += 2
    assert [limit.allows("a") for _ in range(3)] == [True, True, False]


class TestServer:
    @pytest.fixture(autouse=True)
    def as_nice_as_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server.os, "nice", lambda _: 0)

    def test_a_token_is_not_spent_where_the_page_cannot_be_served(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            site = load_site(None, bind=f"127.0.0.1:{other.getsockname()[1]}", state=tmp_path, environment={})
            with pytest.raises(Unavailable, match="another program uses it"):
                server.serve(site, lambda _: None)
        assert not (tmp_path / "page" / "token.json").exists()

    def test_a_second_page_touches_nothing_of_the_first(self, tmp_path: Path) -> None:
        site = load_site(None, bind="127.0.0.1:0", state=tmp_path, environment={})
        kept = tmp_path / "page" / "scratch" / "kept"
        kept.mkdir(parents=True)
        with server.alone(site.folder), pytest.raises(Unavailable, match="Another page"):
            server.serve(site, lambda _: None)
        assert kept.exists()

    def test_a_new_token_where_there_are_users_is_refused(self, tmp_path: Path) -> None:
        site = load_site(None, bind="127.0.0.1:0", state=tmp_path, environment={})
        Users(site.users).set("anna", PASSWORD, "operate")
        with pytest.raises(SettingsError, match="there are users"):
            server.serve(site, lambda _: None, new_token=True)

    @pytest.fixture
    def port(self, tmp_path: Path) -> Iterator[int]:
        """The port of a server that gives every request the same response."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})

        page = load_site(None, state=tmp_path, environment={}).page
        running = uvicorn.Server(server.make_config(app, page))
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(running.serve([listening])))
        thread.start()
        yield listening.getsockname()[1]
        running.should_exit = True
        thread.join()

    @pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
    def test_a_connection_that_asks_nothing_is_closed(
        self, port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_SECONDS_TO_ASK", 0.3)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(sent)
            assert connection.recv(1) == b""

    def test_of_too_many_connections_the_one_closes_that_was_idle_longest(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_MOST_CONNECTIONS", 3)
        idle = []
        for _ in range(3):
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            time.sleep(0.05)
        try:
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", port), timeout=20) as asking:
                    asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert b"hello" in b"".join(iter(lambda: asking.recv(4096), b""))
            assert idle[0].recv(1) == b""
            idle[2].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle[2].recv(8) == b"HTTP/1.1"
        finally:
            for connection in idle:
                connection.close()
