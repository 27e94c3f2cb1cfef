"""Status of the appliance: heartbeat of the daemon, findings of the doctor, disks, and studies that wait too long."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from starlette.responses import RedirectResponse, Response

from lungstage.appliance.config.disks import free_mb
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.page.context import Visit, page
from lungstage.appliance.page.settings import Site
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.jobs import utc_now

_DOCTOR_SECONDS: Final = 120.0
_DISK_SECONDS: Final = 2.0
_MOST_LATE: Final = 50


@dataclass(slots=True)
class Findings:
    """The last findings of the doctor and their time. The doctor runs on request, because it takes seconds."""

    at: datetime | None = None
    findings: tuple[dict[str, Any], ...] = ()
    problem: Literal["", "doctor_slow", "doctor_failed"] = ""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Disks:
    """Free space of the disks. A network share that does not respond blocks one thread, but not the page."""

    def __init__(self, folders: Mapping[str, Path | None]) -> None:
        self._folders = {name: folder for name, folder in folders.items() if folder is not None}
        self._answers: dict[str, Future[int | None]] = {}

    async def free(self) -> dict[str, int | None]:
        """Return the free space of each in MB; None if it is not known, or not in time."""
        for name, folder in self._folders.items():
            if name not in self._answers or self._answers[name].done():
                self._answers[name] = _in_a_thread(folder)
        await asyncio.wait([asyncio.wrap_future(answer) for answer in self._answers.values()], timeout=_DISK_SECONDS)
        return {name: answer.result() if answer.done() else None for name, answer in self._answers.items()}


def _in_a_thread(folder: Path) -> Future[int | None]:
    """Ask in a thread that does not delay the end of the process."""
    answer: Future[int | None] = Future()
    threading.Thread(target=lambda: answer.set_result(free_mb(folder)), name="disk", daemon=True).start()
    return answer


@page()
async def show(visit: Visit) -> Response:
    """Show the status."""
    doctor, can_look = visit.request.app.state.findings, visit.context.site.knows_bundle
    return visit.render("status.html", **await _now(visit), doctor=doctor, can_look=can_look)


@page(fragment=True)
async def live(visit: Visit) -> Response:
    """Return only the part that can change."""
    return visit.render("vitals.html", **await _now(visit))


async def _now(visit: Visit) -> dict[str, Any]:
    site = visit.context.site
    beat, trouble = None, ""
    try:
        beat = heartbeat.prove_alive(site.state)
    except Unavailable as error:
        trouble = str(error)
        try:
            beat = heartbeat.read(site.state)
        except Unavailable:
            beat = None
    try:
        late = await visit.context.records.ask(lambda ledger: ledger.jobs.waiting_longer_than(visit.context.alert_age))
        ledger_trouble = ""
    except Unavailable as error:
        late, ledger_trouble = (), str(error)
    disks = await visit.request.app.state.disks.free()
    return {
        "beat": beat, "trouble": trouble, "late": late[:_MOST_LATE], "more": len(late[_MOST_LATE:]),
        "ledger_trouble": ledger_trouble, "disks": disks,
    }  # fmt: skip


@page(operate=True)
async def ask_doctor(visit: Visit) -> Response:
    """Run the doctor, unless it is already running."""
    findings: Findings = visit.request.app.state.findings
    if not findings.asking.locked():
        async with findings.asking:
            findings.findings, findings.problem = await _examination(visit.context.site)
            findings.at = utc_now()
    return RedirectResponse("/status#doctor", 303)


async def _examination(site: Site) -> tuple[tuple[dict[str, Any], ...], Literal["", "doctor_slow", "doctor_failed"]]:
    """Run ``lungstage doctor`` in a separate process, because it loads and runs the bundle."""
    arguments = ["doctor", "--json", "--state", os.fspath(site.state)]
    for name in ("inbox", "outbox", "config"):
        folder = getattr(site, name)
        arguments += [f"--{name}", os.fspath(folder)] if folder is not None else []
    program = "from lungstage.appliance.cli.main import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", program, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _DOCTOR_SECONDS)
        return tuple(json.loads(said)["findings"]), ""
    except TimeoutError:
        return (), "doctor_slow"
    except (ValueError, KeyError):
        return (), "doctor_failed"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
