"""How the appliance is: the daemon's sign of life, the doctor's findings, disks, and what waits for too long."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from lungstage.appliance.config.disks import free_mb
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.page.context import Visit, page
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.jobs import utc_now

_DOCTOR_SECONDS: Final = 120.0


@dataclass(slots=True)
class Findings:
    """What the doctor found last, and when; it is asked when somebody wants it, because that takes seconds."""

    at: datetime | None = None
    findings: tuple[dict[str, Any], ...] = ()
    problem: str = ""


@page()
async def show(visit: Visit) -> Response:
    """Show how things stand."""
    doctor, can_look = visit.request.app.state.findings, visit.context.site.knows_bundle
    return visit.render("status.html", **await _now(visit), doctor=doctor, can_look=can_look)


@page(fragment=True)
async def live(visit: Visit) -> Response:
    """Give what changes alone."""
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
    folders = {"state": site.state, "outbox": site.outbox, "inbox": site.inbox}
    disks = {name: free_mb(folder) for name, folder in folders.items() if folder is not None}
    return {
        "beat": beat, "trouble": trouble, "late": late, "ledger_trouble": ledger_trouble, "disks": disks,
        "now": utc_now(),
    }  # fmt: skip


@page(operate=True)
async def ask_doctor(visit: Visit) -> Response:
    """Have the doctor look: in a process of its own, because it loads the bundle and tries it."""
    findings: Findings = visit.request.app.state.findings
    site = visit.context.site
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
        findings.findings, findings.problem = tuple(json.loads(said)["findings"]), ""
    except TimeoutError:
        process.kill()
        await process.wait()
        findings.findings, findings.problem = (), visit.say("status.doctor_slow")
    except (ValueError, KeyError):
        findings.findings, findings.problem = (), visit.say("status.doctor_failed")
    findings.at = utc_now()
    return RedirectResponse("/status#doctor", 303)
