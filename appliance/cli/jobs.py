"""How jobs are put for a person or a script: what ``lungstage jobs`` and ``lungstage show`` print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from lungstage.appliance.config.text import in_words, path_hash, printable
from lungstage.appliance.state.job import Job, JobState

if TYPE_CHECKING:
    from lungstage.appliance.state.audit import Entry
    from lungstage.appliance.state.file_table import FileRecord
    from lungstage.appliance.state.job_history import JobHistory

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_TOLD_ELSEWHERE = frozenset(
    {"job", "study", "series", "fingerprint", "bundle", "software", "instances", "answer", "documents", "created", "sr"}
)
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """Read a point in time: a date, a date and time, or an age such as ``90min``, ``2h`` or ``7d``.

    Parameters
    ----------
    text
        As a person wrote it; a date without a time zone is a local one.
    now
        The present moment, with its time zone.

    Raises
    ------
    ValueError
        When it is neither.
    """
    if (age := _AGE.fullmatch(text.strip())) is not None:
        try:
            return now - timedelta(**{_UNITS[age[2]]: float(age[1])})
        except OverflowError as error:
            raise ValueError(f"{text!r} is too long ago") from error
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is neither a date (2026-11-01) nor an age (90min, 2h, 7d)") from error


def row(job: Job, *, late: bool) -> dict[str, Any]:
    """Return what a script reads of a job; the keys never change."""
    return {
        "id": job.id,
        "state": job.state,
        "reason": None if job.reason is None else {"code": job.reason.code, "message": job.reason.message},
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "fingerprint": job.fingerprint,
        "bundle_digest": job.bundle_digest,
        "attempts": job.attempts,
        "opened_at": job.opened_at.isoformat(),
        "created_at": None if job.created_at is None else job.created_at.isoformat(),
        "updated_at": job.updated_at.isoformat(),
        "waiting_since": None if job.waiting_since is None else job.waiting_since.isoformat(),
        "waits_too_long": late,
        "sr": job.sr_path,
        "sr_sop_instance_uid": job.sr_sop_instance_uid,
        "outcome": job.outcome,
    }


def show(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print jobs as a table; those that wait for too long bear a mark."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="lungstage: research use only")
    for name, whole in {"job": True, "state": True, "study": False, "answer or reason": False, "since": True}.items():
        table.add_column(name, no_wrap=whole, overflow="fold")  # a UID that is cut short could not be looked for
    for one in rows:
        reason = one["reason"]
        text = f"{reason['code']}: {reason['message']}" if reason else answer_in_words(one["outcome"] or {})
        state = f"{one['state']} (!)" if one["waits_too_long"] else one["state"]
        since = datetime.fromisoformat(one["waiting_since"] or one["updated_at"]).astimezone()
        cells = (one["id"], state, one["study_instance_uid"], text, f"{since:%Y-%m-%d %H:%M}")
        # Text: a ROI's name is no markup
        table.add_row(*(Text(printable(str(cell))) for cell in cells), style="bold" if one["waits_too_long"] else None)
    Console().print(table)


def summary(counts: Mapping[JobState, int], shown: int, oldest: Job | None, now: datetime, age: timedelta) -> str:
    """Say in one line how the whole ledger stands.

    Parameters
    ----------
    counts
        How many jobs there are in each state.
    shown
        How many of them the table above shows.
    oldest
        The job that has waited longest, if any waits.
    now
        The present moment.
    age
        The wait that is too long.
    """
    total = sum(counts.values())
    parts = [f"{counts[state]} {state}" for state in JobState if counts.get(state)]
    line = f"{shown} of {total} jobs shown" + (f"; in all {', '.join(parts)}" if parts else "")
    if oldest is None or oldest.waiting_since is None:
        return f"{line}."
    line += f"; job {oldest.id} has waited longest, {in_words(now - oldest.waiting_since)}"
    return line + (f" (!: more than {in_words(age)})." if oldest.waits_longer_than(age, now) else ".")


def answer_in_words(outcome: Mapping[str, Any]) -> str:
    """Say an outcome's answer and its probability in one line; nothing where there is none yet."""
    if endpoint := outcome.get("endpoint"):
        return f"{endpoint['name']}: {endpoint['answer']} ({endpoint['probability']:.2f})"
    probability = outcome.get("probability_advanced")
    return "" if probability is None else f"{outcome.get('stage')} ({probability:.2f})"


def files_listed(records: Iterable[FileRecord], *, as_json: bool, paths: bool) -> str:
    """List files that could not be read, by hashes of their paths; with `paths` by these, which may name patients."""
    if as_json:
        rows = [
            {"file": path_hash(record.path), "reason": record.reason and asdict(record.reason)}
            | ({"path": printable(record.path)} if paths else {})
            for record in records
        ]
        return json.dumps(rows, indent=2)
    lines = (
        f"{printable(record.path) if paths else path_hash(record.path)}"
        f"  {record.reason and record.reason.code}  {record.reason and record.reason.message}"
        for record in records
    )
    return "\n".join(lines)


def happened(entry: Entry) -> str:
    """Say in a line what an entry adds to its event's name."""
    fields = entry.fields
    parts = []
    if reason := fields.get("reason"):
        parts.append(f"{reason['code']}: {reason['message']}")
    if "instances" in fields:
        parts.append(f"{len(fields['instances'])} instances needed, fingerprint {fields['fingerprint'][:12]}")
    if "answer" in fields:
        parts.append(answer_in_words(fields["answer"]))
    parts += sorted(fields.get("documents", {}))
    parts += [f"{key} {value}" for key, value in fields.items() if key not in _TOLD_ELSEWHERE | {"reason"}]
    if entry.repeats is not None:
        parts.append(f"the same as entry {entry.repeats}")
    return "; ".join(part for part in parts if part)


def show_history(history: JobHistory) -> None:
    """Print the history of a job as tables for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(value: object) -> Text:  # a ROI's name is no markup
        return Text(printable(str(value)), overflow="fold")

    job, console = history.job, Console()
    facts = Table(title=f"job {job.id}: research use only", show_header=False)
    known = {
        "state": job.state,
        "reason": job.reason and f"{job.reason.code}: {job.reason.message}",
        "answer": job.outcome and answer_in_words(job.outcome),
        "study": job.study_instance_uid,
        "series": job.series_instance_uid,
        "fingerprint": job.fingerprint,
        "bundle": job.bundle_digest,
        "attempts": job.attempts,
        "report": job.sr_path,
    }
    for name, value in known.items():
        if value is not None:
            facts.add_row(name, text(value))
    course = Table("entry", "time (UTC)", "event", "what", title="what happened")
    for entry in history.entries:
        course.add_row(*map(text, (entry.seq, entry.time[:19], entry.event.removeprefix("job_"), happened(entry))))
    needed = Table("kind", "SOP Instance UID", "content", title="what it needed")
    for one in history.instances:
        content = " ".join(filter(None, (one.get("digest", ""), one.get("pixels", ""))))
        needed.add_row(*map(text, (one.get("kind", ""), one.get("uid", ""), content)))
    written = Table("document", "SHA-256", title="what was delivered")
    for name, digest in history.documents.items():
        written.add_row(text(name), text(digest))
    for table in (facts, course, needed, written):
        if table.row_count:
            console.print(table)
    if not history.entries:
        console.print("The audit log here says nothing of this job.")
