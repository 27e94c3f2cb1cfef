"""Output of ``lungstage show``: a job's answer and warnings, then its history; UIDs only if asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from lungstage.appliance.cli.answers import (
    STATES,
    answer_in_words,
    chance_in_words,
    site_time,
    warnings_of,
    worth_in_words,
)
from lungstage.appliance.config.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from lungstage.appliance.state.audit import Entry
    from lungstage.appliance.state.job import Job
    from lungstage.appliance.state.job_history import JobHistory

_TOLD_ELSEWHERE = frozenset(
    {
        "job", "study", "series", "fingerprint", "bundle", "software", "instances", "answer", "documents", "created",
        "sr", "reason",
    }
)  # fmt: skip


def show(history: JobHistory, *, full: bool) -> None:
    """Print the history of a job for a person.

    Parameters
    ----------
    history
        History of the job.
    full
        Whether to show UIDs, hashes and paths.
    """
    from rich.console import Console

    console = Console(highlight=False)
    for line in _head(history.job):
        console.print(printable(line), markup=False)
    if full:
        console.print(_identifiers(history.job))
    console.print(_course(history, full=full))
    if not history.entries:
        console.print("The audit log in this folder has no entry for this job.")
    for table in _contents(history) if full else ():
        console.print(table)
    if not full:
        console.print(printable(_in_short(history)), markup=False)


def _head(job: Job) -> Iterator[str]:
    yield f"job {job.id}: research use only"
    outcome = job.outcome or {}
    yield answer_in_words(outcome) or "no answer"
    yield from filter(None, (chance_in_words(outcome), worth_in_words(outcome)))
    if job.reason is not None:
        yield f"{job.reason.message} [{job.reason.code}]"
    warnings = warnings_of(job.outcome or {})
    if job.outcome:
        yield f"warnings: {len(warnings) or 'none'}"
    yield from (f"  - {warning}" for warning in warnings)
    of = f", of a study of {job.study_date}" if job.study_date else ""
    yield f"{STATES[job.state]} since {site_time(job.updated_at)}; received {site_time(job.opened_at)}{of}"


def _in_short(history: JobHistory) -> str:
    kinds = ", ".join(sorted(name.partition("-")[0] for name in history.documents)) or "none"
    needed = f"used: {len(history.instances)} instances; delivered: {kinds}"
    return f"{needed}. --full also shows UIDs, hashes and paths."


def _identifiers(job: Job) -> Table:
    known = {
        "study": job.study_instance_uid,
        "series": job.series_instance_uid,
        "fingerprint": job.fingerprint,
        "bundle": job.bundle_digest,
        "attempts": job.attempts,
        "report": job.sr_path,
    }
    table = _table(title="identifiers", show_header=False)
    for name, value in known.items():
        if value is not None:
            _add(table, name, value)
    return table


def _course(history: JobHistory, *, full: bool) -> Table:
    table = _table("entry", "time", "event", "what", title="history")
    for entry in history.entries:
        when = site_time(datetime.fromisoformat(entry.time))
        _add(table, entry.seq, when, entry.event.removeprefix("job_"), happened(entry, full=full))
    return table


def _contents(history: JobHistory) -> Iterator[Table]:
    needed = _table("kind", "SOP Instance UID", "content", title="instances used")
    for one in history.instances:
        content = " ".join(filter(None, (one.get("digest", ""), one.get("pixels", ""))))
        _add(needed, one.get("kind", ""), one.get("uid", ""), content)
    written = _table("document", "SHA-256", title="documents delivered")
    for name, digest in history.documents.items():
        _add(written, name, digest)
    return (table for table in (needed, written) if table.row_count)


def _table(*columns: str, title: str, show_header: bool = True) -> Table:
    from rich.table import Table

    return Table(*columns, title=title, title_justify="left", show_header=show_header)


def _add(table: Table, *cells: object) -> None:
    from rich.text import Text

    # Text, because the name of a ROI is not markup. Folded, because a shortened UID could not be searched for.
    table.add_row(*(Text(printable(str(cell)), overflow="fold") for cell in cells))


def happened(entry: Entry, *, full: bool) -> str:
    """Return the details of an entry in one line."""
    fields = entry.fields
    parts = []
    if reason := fields.get("reason"):
        parts.append(f"{reason['message']} [{reason['code']}]")
    if "instances" in fields:
        fingerprint = f", fingerprint {fields['fingerprint'][:12]}" if full else ""
        parts.append(f"{len(fields['instances'])} instances needed{fingerprint}")
    if "answer" in fields:
        parts.append(answer_in_words(fields["answer"]))
    if full:
        parts += sorted(fields.get("documents", {}))
        parts += [f"{key} {value}" for key, value in fields.items() if key not in _TOLD_ELSEWHERE]
    if entry.repeats is not None:
        parts.append(f"same as entry {entry.repeats}")
    return "; ".join(part for part in parts if part)
