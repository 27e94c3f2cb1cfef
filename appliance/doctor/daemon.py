"""A running daemon: whether there is one, whether it is alive, and how its ledger stands."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lungstage.appliance.config.settings import Settings, SettingsError
from lungstage.appliance.config.text import in_words
from lungstage.appliance.contract.errors import Damaged, Unavailable
from lungstage.appliance.doctor.finding import Finding, ok, problem, warning
from lungstage.appliance.doctor.machine import is_locked
from lungstage.appliance.notify.notifier import LEASE
from lungstage.appliance.notify.settings import FOLDER, load_notify
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.jobs import Jobs


def daemon(settings: Settings) -> Iterator[Finding]:
    """Whether a daemon is at work, and showed a sign of life lately."""
    locked = is_locked(settings.state / "lock")
    if locked is None:
        yield warning("daemon", "This user may not see whether a daemon is at work.", "Run it as the daemon's user.")
        return
    if not locked:
        yield warning(
            "daemon", f"No daemon is at work on {settings.state}.",
            "systemctl start lungstage, or lungstage run.",
        )  # fmt: skip
        return
    try:
        beat = heartbeat.prove_alive(settings.state)
    except Unavailable as error:
        yield problem(
            "daemon",
            f"A daemon is there, but not well: {error}",
            "If it has just been started, wait a little; else its log says more.",
        )
        return
    if beat.outbox_replaced:
        yield problem(
            "daemon", "A daemon is there, and delivers nothing: its outbox is not the folder that it was.",
            "Mount its disk or share again; docs/operating.md says what to do where another folder is meant.",
        )  # fmt: skip
    else:
        yield ok(
            "daemon", f"A daemon is at work, by {'file events' if beat.watch == 'events' else 'polling'};"
            f" {beat.files} files in the inbox, {beat.in_hand} studies in hand.",
        )  # fmt: skip


def ledger(settings: Settings) -> Iterator[Finding]:
    """Whether the ledger can be read, is whole, and tells of nothing that a person should see to."""
    path = settings.state / "ledger.sqlite"
    if not path.exists():
        yield ok("ledger", "There is no ledger yet; a daemon makes it.")
        return
    try:
        with DatabaseReader(path) as database:
            jobs = Jobs(database)
            total, oldest, newest = sum(jobs.counts().values()), jobs.oldest_waiting(), jobs.newest_change()
    except Damaged as error:
        yield problem("ledger", str(error), "Where there is no backup, docs/maintenance.md says what is lost.")
        return
    except Unavailable as error:
        yield problem("ledger", str(error), "Give it to the daemon's user, or look at its disk.")
        return
    now, age = datetime.now(UTC), timedelta(seconds=settings.alert_after_seconds)
    if newest is not None and newest > now + timedelta(minutes=1):
        yield problem(
            "ledger", f"The ledger's last change lies {in_words(newest - now)} ahead: the clock was set back.",
            "Set the clock right.",
        )  # fmt: skip
    elif oldest is not None and oldest.waits_longer_than(age, now):
        yield warning(
            "ledger", f"Jobs: {total}; job {oldest.id} waits for more than {in_words(age)}.",
            f"lungstage jobs --state {settings.state} --only waiting --only held",
        )  # fmt: skip
    else:
        yield ok("ledger", f"Jobs: {total}; none waits for too long.")


def messages(settings: Settings, config: Path | None) -> Iterator[Finding]:
    """Whether the messages that are configured are sent by somebody."""
    try:
        wanted = load_notify(config)
    except SettingsError as error:
        yield problem("notify", str(error), "docs/notify.md lists what there is.")
        return
    if wanted is None:
        return
    if not is_locked(settings.state / FOLDER / LEASE):
        yield warning("notify", "Messages are configured, and nobody sends them.", "Start lungstage page.")
        return
    yield ok("notify", f"Messages are sent: {', '.join(wanted.channels)}.")


def metrics(settings: Settings) -> Iterator[Finding]:
    """Whether a daemon could open the port for metrics."""
    if settings.metrics_port is None or is_locked(settings.state / "lock"):
        return
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", settings.metrics_port))
    except OSError as error:
        yield problem(
            "metrics", f"Port {settings.metrics_port} of 127.0.0.1 cannot be opened: {error.strerror}.",
            "Set metrics_port to a free one.",
        )  # fmt: skip
    else:
        yield ok("metrics", f"Port {settings.metrics_port} of 127.0.0.1 is free.")
