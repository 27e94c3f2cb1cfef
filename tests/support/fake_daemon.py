"""A daemon with the fake steps, as a separate process that can be killed at a chosen moment.

Processes of :data:`FORKS` are forked after the imports, so they are ready in a few milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from lungstage.appliance.config import logs
from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.daemon import loop, start
from lungstage.appliance.intake.watch import Wake, Watcher
from lungstage.appliance.report import outbox
from lungstage.appliance.state import audit
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.state.secret import identity_key
from tests.support.fake_steps import BUNDLE, FakeSteps

FORKS: Final = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])

TIMERS = {"settle_seconds": 0.05, "poll_seconds": 0.02, "case_settle_seconds": 0.3, "report_after_seconds": 0.6}


def die(*_: object, **__: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    """Die when a function is called."""
    setattr(owner, name, die)


def after(owner: Any, name: str, count: int = 1) -> None:
    """Die after a function has returned for the `count`-th time."""
    original, calls = getattr(owner, name), [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        calls[0] += 1
        return die() if calls[0] == count else result

    setattr(owner, name, wrapped)


def told(event: str) -> None:
    """Die after an event was written to the audit log and before the ledger has committed it."""
    write = Audit.write

    def write_and_die(self: Audit, said: str, **fields: Any) -> None:
        write(self, said, **fields)
        if said == event:
            die()

    Audit.write = write_and_die  # type: ignore[method-assign]


def half_told(event: str) -> None:
    """Die after half of an event's entry was written to the audit log."""
    append = audit._append_to

    def append_half(path: Path, content: bytes) -> int:
        if f'"event":"{event}"'.encode() not in content:
            return append(path, content)
        append(path, content[: len(content) // 2])
        return int(die())

    audit._append_to = append_half


KILLS: dict[str, Callable[[], None]] = {
    "after opening": lambda: after(Ledger, "open_job"),
    "after ready": lambda: after(Ledger, "ready"),
    "after claim": lambda: after(Claims, "claim"),
    "before report ready": lambda: before(Claims, "report_ready"),
    "after report ready": lambda: after(Claims, "report_ready"),
    "first document half written": lambda: before(outbox.os, "fsync"),
    "first document written": lambda: after(outbox.os, "fsync", 1),
    "first document in place": lambda: after(Path, "rename", 1),
    "report written": lambda: after(outbox.os, "fsync", 2),
    "report in place": lambda: after(Path, "rename", 2),
    "before delivered": lambda: before(Claims, "delivered"),
    "after delivered": lambda: after(Claims, "delivered"),
    **{f"{event} told": partial(told, f"job_{event}") for event in ("opened", "ready", "report_ready", "delivered")},
    **{f"{event} half told": partial(half_told, f"job_{event}") for event in ("ready", "report_ready", "delivered")},
}


def serve(folder: Path, kill_at: str | None, ready: Connection) -> None:
    """Serve the inbox, outbox and state of a folder; send when it is ready, and die at a moment of :data:`KILLS`."""
    os.dup2(os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    (folder / "state").mkdir(exist_ok=True)
    identity_key(folder / "state")  # made before, because this is not one of the moments
    if kill_at is not None:
        KILLS[kill_at]()
    paths = {"inbox": folder / "inbox", "outbox": folder / "outbox", "bundle": folder, "state": folder / "state"}
    settings = load_settings(None, {**paths, **TIMERS}, {})
    logs.configure("text")
    wake = Wake()
    signal.signal(signal.SIGTERM, lambda *_: wake.stop())
    settings.state.mkdir(exist_ok=True)
    steps = FakeSteps()
    if (folder / "slow").exists():
        steps.during_stage = lambda: ((folder / "staging").touch(), time.sleep(0.5))  # type: ignore[assignment]
    with (
        start.sole_daemon(settings.state),
        Database(settings.state / "ledger.sqlite") as database,
    ):
        watcher = Watcher(settings.inbox, wake)
        watcher.start()
        daemon = loop.Daemon(settings, BUNDLE.digest, steps.steps(), database, wake, watcher)
        daemon.run(lambda: ready.send("ready"))
        watcher.stop()
