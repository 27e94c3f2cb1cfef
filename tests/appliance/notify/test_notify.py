"""Each event reaches mail server and webhook once, also over restarts, with sinks down, or with two senders."""

from __future__ import annotations

import email
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from lungstage.appliance.config.settings import SettingsError, load_settings
from lungstage.appliance.notify.channels import SIGNATURE, TIMESTAMP, sign
from lungstage.appliance.notify.notifier import Notifier
from lungstage.appliance.notify.queue import Queue
from lungstage.appliance.notify.settings import NotifySettings, load_notify
from lungstage.appliance.state import chain
from lungstage.appliance.state.audit import Audit
from tests.support.fake_steps import put_roi
from tests.support.simulated import House

SECRET = "a secret of the site's"


@dataclass
class Mail:
    """A mail server that keeps the messages that it accepts."""

    taken: list[email.message.Message] = field(default_factory=list)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address.startswith("nobody"):
            return "550 there is none"
        envelope.rcpt_tos.append(address)
        return "250 taken"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken.append(email.message_from_bytes(envelope.content))
        return "250 taken"


@dataclass
class Hook:
    """A webhook that checks signatures, and answers with a status."""

    status: int = 200
    asked: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)

    def serve(self) -> ThreadingHTTPServer:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers[SIGNATURE] == sign(SECRET, self.headers[TIMESTAMP], body)
                if hook.status == 200:
                    hook.taken.append(json.loads(body))
                self.send_response(hook.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


@dataclass
class Site:
    """A state folder with an audit log, sinks, and a clock that the test sets."""

    state: Path
    mail: Mail
    hook: Hook
    values: dict[str, Any]
    now: float = 1e9

    def __post_init__(self) -> None:
        self.audit = Audit(self.state)
        self.audit.write("daemon_started")

    def notifier(self, **changed: Any) -> Notifier:
        settings = NotifySettings.model_validate({**self.values, **changed})
        news = partial(chain.entries_from, self.state)
        return Notifier(self.state, settings, news, lambda job: f"patient of {job}", lambda: self.now)

    def happens(self, event: str, job: int, **told: Any) -> None:
        reason = {"code": "slices_missing", "message": "2 slices are missing."}
        self.audit.write(event, job=job, study="1.2.3", reason=reason, **told)

    def hooked(self) -> list[tuple[str, int]]:
        return [(event["event"], event["job"]) for message in self.hook.taken for event in message["events"]]

    def mailed(self) -> list[str]:
        return [str(message["Subject"]) for message in self.mail.taken]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    mail, hook = Mail(), Hook()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(mail, hostname="127.0.0.1", port=port)
    controller.start()
    server = hook.serve()
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    values = {
        "events": ["held", "refused", "alert", "canary_alarm", "delivered"],
        "email": {
            "host": "127.0.0.1", "port": port, "tls": "none", "sender": "l@site.example", "to": ["a@site.example"],
        },
        "webhook": {
            "url": f"http://127.0.0.1:{server.server_address[1]}/hook?x=1", "secret_file": str(tmp_path / "secret"),
        },
    }  # fmt: skip
    (tmp_path / "state").mkdir()
    yield Site(tmp_path / "state", mail, hook, values)
    controller.stop()
    server.shutdown()


def test_each_event_is_told_once_from_when_it_is_first_asked_for(site: Site) -> None:
    site.happens("job_held", 1)
    notifier = site.notifier()
    assert notifier.step()
    assert site.hooked() == []
    for n, event in enumerate(("job_opened", "job_held", "job_refused", "job_alerted", "job_delivered"), start=2):
        site.happens(event, n)
    site.audit.write("canary_alarm")
    for _ in range(3):
        notifier.step()
    events = [("held", 3), ("refused", 4), ("alert", 5), ("delivered", 6), ("canary_alarm", None)]
    assert site.hooked() == events
    assert site.mailed() == [f"lungstage: {name}" + (f", job {job}" if job else "") for name, job in events]
    text = site.mail.taken[0].get_payload()
    assert "Research use only" in text
    assert "2 slices are missing." in text
    assert "1.2.3" not in text
    assert "patient" not in text


def test_over_a_restart_and_with_the_sinks_down(site: Site) -> None:
    notifier = site.notifier()
    notifier.step()
    site.hook.status = 503
    away = {**site.values["email"], "port": 1}
    site.happens("job_held", 7)
    notifier.close()
    notifier = site.notifier(email=away)
    for _ in range(5):
        site.now += 5
        notifier.step()
    notifier.close()
    assert (site.hooked(), site.mailed()) == ([], [])
    site.hook.status = 200
    notifier = site.notifier()
    site.happens("job_refused", 8)
    for _ in range(5):
        site.now += 300
        notifier.step()
    assert sorted(site.hooked()) == [("held", 7), ("refused", 8)]
    assert sorted(site.mailed()) == ["lungstage: held, job 7", "lungstage: refused, job 8"]


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500])
def test_what_is_no_success_is_tried_again_and_no_redirection_is_followed(site: Site, status: int) -> None:
    notifier = site.notifier()
    notifier.step()
    site.hook.status = status
    site.happens("job_held", 7)
    notifier.step()
    site.hook.status = 200
    notifier.step()
    assert site.hooked() == [], "it waits before it tries again"
    site.now += 60
    notifier.step()
    assert site.hooked() == [("held", 7)]


def test_of_two_processes_one_sends_and_the_other_takes_over(site: Site) -> None:
    first, second = site.notifier(), site.notifier()
    assert first.step()
    assert not second.step()
    site.happens("job_held", 7)
    assert first.step()
    assert not second.step()
    first.close()
    site.happens("job_refused", 8)
    assert second.step()
    assert site.hooked() == [("held", 7), ("refused", 8)]


def test_a_restart_between_sending_and_noting_bears_the_same_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = site.notifier()
    notifier.step()
    site.happens("job_held", 7)
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "sent", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            notifier.step()
    notifier.close()
    site.notifier().step()
    names = {str(message["Message-ID"]) for message in site.mail.taken}
    assert len(site.mail.taken) == 2
    assert len(names) == 1, "the recipient must recognise a repeated message"


def test_many_that_may_have_gone_out_together_go_out_as_they_did(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = site.notifier(email=None, per_hour=2)
    notifier.step()
    for n in range(5):
        site.happens("job_held", n)
    sent, crash = Queue.sent, []

    def sent_once(*args: Any) -> None:
        if crash:
            raise KeyboardInterrupt
        crash.append(0)
        sent(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Queue, "sent", sent_once)
        with pytest.raises(KeyboardInterrupt):
            notifier.step()
    notifier.close()
    site.happens("job_held", 5)
    site.now += 3700
    notifier = site.notifier(email=None)
    for _ in range(3):
        notifier.step()
    told = {(message["id"], tuple(event["job"] for event in message["events"])) for message in site.hook.taken}
    assert sorted(jobs for _, jobs in told) == [(0,), (1, 2, 3, 4), (5,)]


def test_of_those_that_failed_together_each_bears_a_name_of_its_own(site: Site) -> None:
    notifier = site.notifier(digest_seconds=1)
    notifier.step()
    site.hook.status = 503
    for n in range(4):
        site.happens("job_held", n)
    notifier.step()
    site.now += 5
    notifier.step()
    notifier.close()
    site.hook.status = 200
    site.now += 4000
    site.notifier().step()
    assert len({message["id"] for message in site.hook.taken}) == 4, "equal names would make them look like repeats"


def test_a_digest_gathers(site: Site) -> None:
    notifier = site.notifier(digest_seconds=600)
    notifier.step()
    for n in range(5):
        site.happens("job_held", n)
        site.now += 60
        notifier.step()
    assert site.hook.taken == []
    site.now += 600
    notifier.step()
    notifier.step()
    assert [len(message["events"]) for message in site.hook.taken] == [5]
    assert site.mailed() == ["lungstage: 5 events"]


def test_no_more_than_so_many_an_hour_and_none_is_lost(site: Site) -> None:
    notifier = site.notifier(per_hour=3)
    notifier.step()
    for n in range(20):
        site.happens("job_held", n)
    notifier.step()
    assert [len(message["events"]) for message in site.hook.taken] == [1, 1, 18]
    site.happens("job_held", 99)
    notifier.step()
    assert len(site.hook.taken) == 3
    site.now += 3700
    notifier.step()
    assert site.hooked() == [("held", n) for n in (*range(20), 99)]


def test_a_patient_is_named_where_the_site_wants_it(site: Site) -> None:
    notifier = site.notifier(patient=True)
    notifier.step()
    site.happens("job_held", 7)
    notifier.step()
    (event,) = site.hook.taken[0]["events"]
    assert (event["study"], event["patient"]) == ("1.2.3", "patient of 7")
    assert "patient of 7" in site.mail.taken[0].get_payload()
    queue = b"".join(path.read_bytes() for path in (site.state / "notify").iterdir())
    assert b'"job": 7' in queue
    assert b"patient of" not in queue, "a name is only read when the message is sent"


def test_what_was_sent_is_forgotten_in_time(site: Site) -> None:
    notifier = site.notifier()
    for n in range(3):
        site.happens("job_held", n)
        notifier.step()
        site.now += 8 * 86400
    queue = Queue(site.state / "notify" / "queue.sqlite")
    assert [row["event"] for row in queue._run("SELECT event FROM messages")] == [
        row["event"] for row in queue._run("SELECT event FROM messages WHERE queued_at > ?", (site.now - 9 * 86400,))
    ]
    assert len(site.hooked()) == 2


def test_a_recipient_that_is_refused_keeps_the_others_from_nothing(site: Site) -> None:
    both = {**site.values["email"], "to": ["nobody@site.example", "a@site.example"]}
    notifier = site.notifier(email=both)
    notifier.step()
    site.happens("job_held", 7)
    for _ in range(3):
        site.now += 4000
        notifier.step()
    assert site.mailed() == ["lungstage: held, job 7"], "sent once, although one recipient does not exist"


@pytest.mark.parametrize("secret", [b"", b" \n", b"\xff\xfe"])
def test_a_secret_that_is_none_signs_nothing(site: Site, secret: bytes) -> None:
    path = site.state / "secret"
    path.write_bytes(secret)
    changed = {
        "webhook": {**site.values["webhook"], "secret_file": str(path)},
        "email": {**site.values["email"], "user": "x", "password_file": str(path)},
    }
    notifier = site.notifier(**changed)
    notifier.step()
    site.happens("job_held", 7)
    assert notifier.step(), "it waits, and reports no internal error"
    assert (site.hook.asked, site.mailed()) == (0, [])
    path.write_text(SECRET)
    site.now += 60
    notifier.step()
    assert site.hooked() == [("held", 7)]


def test_the_log_is_followed_over_its_files_torn_ends_and_a_restored_backup(tmp_path: Path) -> None:
    audit = Audit(tmp_path, rotate_bytes=400)
    audit.write("a")
    ((_, place),) = chain.entries_from(tmp_path, None)
    for n in range(10):
        audit.write(f"event{n}")
    told = list(chain.entries_from(tmp_path, place))
    assert [entry.event for entry, _ in told if entry] == [f"event{n}" for n in range(10)]
    place = told[-1][1]
    assert list(chain.entries_from(tmp_path, place)) == []
    last = sorted(tmp_path.glob("audit-*.jsonl"))[-1]
    with last.open("ab") as file:
        file.write(b'{"half')
    assert list(chain.entries_from(tmp_path, place)) == []
    Audit(tmp_path).write("after")
    assert "after" in [entry.event for entry, _ in chain.entries_from(tmp_path, place) if entry]
    for path in tmp_path.glob("audit-00000[2-9].jsonl"):
        path.unlink()
    ((nothing, end),) = chain.entries_from(tmp_path, place)
    assert nothing is None
    assert end[0] == 1


def test_the_daemon_tells_of_alerts_once(tmp_path: Path) -> None:
    house = House(tmp_path, alert_after_seconds=0.001)
    put_roi(house.inbox, "1.5.99", "1.5", range(5))
    house.run(60)
    events = [entry.event for entry in chain.entries(house.state)]
    assert events.count("job_alerted") == 1
    assert chain.verify(house.state, house.ledger.jobs.find()).fault is None


@pytest.mark.parametrize(
    "text",
    [
        '[notify]\nevents = ["lost"]', "[notify]\nper_hour = 0", "[notify]\nunknown = 1", "notify = 1",
        '[notify.email]\nhost = "mail.example"\ntls = "none"\nsender = "a@b.c"\nto = ["a@b.c"]',
        '[notify.email]\nhost = "m"\nsender = "a@b.c\\nBcc: x@y.z"\nto = ["a@b.c"]',
        '[notify.email]\nhost = "m"\nsender = "a@b.c"\nto = []',
        '[notify.email]\nhost = "m"\nuser = "x"\nsender = "a@b.c"\nto = ["a@b.c"]',
        '[notify.webhook]\nurl = "http://elsewhere.example/"\nsecret_file = "s"',
        '[notify.webhook]\nurl = "https://u:p@elsewhere.example/"\nsecret_file = "s"',
        '[notify.webhook]\nurl = "file:///etc/passwd"\nsecret_file = "s"',
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"\[notify"):
        load_notify(tmp_path / "x.toml")


def test_the_daemon_passes_over_other_tables(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(
        'inbox = "i"\noutbox = "o"\nbundle = "b"\n[page]\nbind = "x"\n[notify]\nper_hour = 5'
    )
    assert load_settings(tmp_path / "x.toml", {}, {}).inbox.name == "i"
    assert load_notify(tmp_path / "x.toml") is None
    assert load_notify(None) is None
