"""Checks of a running daemon: its heartbeat, its ledger, its messages and its port for metrics."""

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
    """Check that a daemon is running and has a recent heartbeat."""
    locked = is_locked(settings.state / "lock")
    if locked is None:
        yield warning(
            "daemon", "This user may not check whether a daemon is running.",
            "Run lungstage doctor as the daemon's user.",
        )  # fmt: skip
        return
    if not locked:
        yield warning(
            "daemon", f"No daemon is running with the state folder {settings.state}.",
            "Start it: systemctl start lungstage, or lungstage run.",
        )  # fmt: skip
        return
    try:
        beat = heartbeat.prove_alive(settings.state)
    except Unavailable as error:
        yield problem(
            "daemon",
            f"A daemon is running, but it does not work. {error}",
            "If it has just been started, wait a minute and check again. Otherwise look in its log.",
        )
        return
    if beat.outbox_replaced:
        yield problem(
            "daemon", "A daemon is running, but it delivers nothing: another folder is now at the path of its outbox.",
            "Mount the disk or share again. If the new folder is correct, docs/operating.md says what to do.",
        )  # fmt: skip
    else:
        yield ok(
            "daemon", f"A daemon is running with {'file events' if beat.watch == 'events' else 'polling'}:"
            f" {beat.files} files in the inbox, {beat.in_hand} studies being processed.",
        )  # fmt: skip


def ledger(settings: Settings) -> Iterator[Finding]:
    """Check that the ledger can be read, is not damaged, and has no job that waits for too long."""
    path = settings.state / "ledger.sqlite"
    if not path.exists():
        yield ok("ledger", "There is no ledger yet; the daemon makes it at its first start.")
        return
    try:
        with DatabaseReader(path) as database:
            jobs = Jobs(database)
            total, oldest, newest = sum(jobs.counts().values()), jobs.oldest_waiting(), jobs.newest_change()
    except Damaged as error:
        yield problem("ledger", str(error), "If there is no backup, docs/maintenance.md says what is lost.")
        return
    except Unavailable as error:
        yield problem("ledger", str(error), "Make the daemon's user its owner, or check its disk.")
        return
    now, age = datetime.now(UTC), timedelta(seconds=settings.alert_after_seconds)
    if newest is not None and newest > now + timedelta(minutes=1):
        yield problem(
            "ledger",
            f"The last change of the ledger is {in_words(newest - now)} in the future: the clock was set back.",
            "Correct the clock of this machine.",
        )  # fmt: skip
    elif oldest is not None and oldest.waits_longer_than(age, now):
        yield warning(
            "ledger", f"Jobs: {total}; job {oldest.id} waits for more than {in_words(age)}.",
            f"List the waiting jobs: lungstage jobs --state {settings.state} --only waiting --only held",
        )  # fmt: skip
    else:
        yield ok("ledger", f"Jobs: {total}; none waits for too long.")


def messages(settings: Settings, config: Path | None) -> Iterator[Finding]:
    """Check that a process sends the messages that are configured."""
    try:
        wanted = load_notify(config)
    except SettingsError as error:
        yield problem("notify", str(error), "docs/notify.md lists the settings of messages.")
        return
    if wanted is None:
        return
    if not is_locked(settings.state / FOLDER / LEASE):
        yield warning("notify", "Messages are configured, but no process sends them.", "Start lungstage page.")
        return
    yield ok("notify", f"Messages are sent: {', '.join(wanted.channels)}.")


def metrics(settings: Settings) -> Iterator[Finding]:
    """Check that the daemon can open the port for metrics."""
    if settings.metrics_port is None or is_locked(settings.state / "lock"):
        return
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", settings.metrics_port))
    except OSError as error:
        yield problem(
            "metrics", f"Port {settings.metrics_port} of 127.0.0.1 cannot be opened: {error.strerror}.",
            "Set metrics_port to a free port.",
        )  # fmt: skip
    else:
        yield ok("metrics", f"Port {settings.metrics_port} of 127.0.0.1 is free.")
