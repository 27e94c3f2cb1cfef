"""Output of ``lungstage jobs``, for a person or a script."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from lungstage.appliance.cli.answers import STATES, answer_in_words, site_time, warnings_of
from lungstage.appliance.config.text import cell, in_words, path_hash, printable
from lungstage.appliance.state.job import Job, JobState

if TYPE_CHECKING:
    from lungstage.appliance.state.file_table import FileRecord

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_CLOCK_TOLERANCE = timedelta(minutes=1)  # a time service may correct the clock by this much
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """Read a point in time: a date, a date and time, or an age such as ``90min``, ``2h`` or ``7d``.

    Parameters
    ----------
    text
        As a person wrote it. A date without a time zone is a local one.
    now
        The present time, with its time zone.

    Raises
    ------
    ValueError
        When the text is none of these.
    """
    if (age := _AGE.fullmatch(text.strip())) is not None:
        try:
            return now - timedelta(**{_UNITS[age[2]]: float(age[1])})
        except OverflowError as error:
            raise ValueError(f"{text!r} is too long ago; give a later date or a shorter age") from error
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is neither a date (2026-11-01) nor an age (90min, 2h, 7d)") from error


def row(job: Job, *, late: bool) -> dict[str, Any]:
    """Return a job for a script; the keys never change."""
    return {
        "id": job.id,
        "state": job.state,
        "reason": None if job.reason is None else {"code": job.reason.code, "message": job.reason.message},
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "study_date": job.study_date,
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


def show(jobs: Iterable[Job], late: Container[int]) -> None:
    """Print jobs as a table that fits into 80 columns.

    Parameters
    ----------
    jobs
        The jobs, in the order of the table.
    late
        Numbers of the jobs that wait for too long; they are marked.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="lungstage: research use only", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name != _FOLDED, overflow="fold")
    for job in jobs:
        # Text, because the name of a ROI is not markup
        cells = (Text(printable(text)) for text in _cells(job, late=job.id in late))
        table.add_row(*cells, style="bold" if job.id in late else None)
    Console(highlight=False).print(table)


_FOLDED = "answer or reason"
_COLUMNS = ("job", "received", "study date", "state", _FOLDED, "warn.")


def _cells(job: Job, *, late: bool) -> Iterator[str]:
    yield str(job.id)
    yield site_time(job.opened_at)
    yield job.study_date or ""
    yield f"{STATES[job.state]} !" if late else STATES[job.state]
    reason = f"{job.reason.message} [{job.reason.code}]" if job.reason else ""
    yield " ".join(filter(None, (answer_in_words(job.outcome or {}), reason)))
    yield str(len(warnings_of(job.outcome))) if job.outcome else ""


def as_csv(jobs: Iterable[Job]) -> str:
    """Write jobs as CSV: times in UTC, and also the UIDs."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        (
            "job", "received", "study_date", "state", "answer", "probability", "warnings", "reason_code", "reason",
            "updated", "study_instance_uid", "series_instance_uid", "sr",
        )
    )  # fmt: skip
    for job in jobs:
        outcome = job.outcome or {}
        asked = outcome.get("endpoint") or {
            "answer": outcome.get("stage"),
            "probability": outcome.get("probability_advanced"),
        }
        cells = (
            job.id, job.opened_at.isoformat(), job.study_date, job.state, asked["answer"], asked["probability"],
            len(warnings_of(outcome)) if job.outcome else None, job.reason and job.reason.code,
            job.reason and job.reason.message, job.updated_at.isoformat(), job.study_instance_uid,
            job.series_instance_uid, job.sr_path,
        )  # fmt: skip
        writer.writerow(map(cell, cells))
    return buffer.getvalue()


def clock_note(jobs: Iterable[Job], now: datetime) -> str:
    """Say that the clock was set back if jobs have times in the future; empty if none has."""
    ahead = [job.id for job in jobs if max(job.opened_at, job.updated_at) > now + _CLOCK_TOLERANCE]
    if not ahead:
        return ""
    which = f"Job {ahead[0]} has a time" if len(ahead) == 1 else f"{len(ahead)} jobs have times"
    order = "The jobs are listed in the order of their numbers."
    return f"{which} later than now ({site_time(now)}): the clock was set back. {order}"


def summary(counts: Mapping[JobState, int], shown: int, oldest: Job | None, now: datetime, age: timedelta) -> str:
    """Summarise the whole ledger in one line.

    Parameters
    ----------
    counts
        Number of jobs in each state.
    shown
        Number of jobs in the table above.
    oldest
        The job that has waited longest, if any job waits.
    now
        The present time.
    age
        The age at which a job waits for too long.
    """
    total = sum(counts.values())
    parts = [f"{counts[state]} {state}" for state in JobState if counts.get(state)]
    line = f"{shown} of {total} jobs shown" + (f"; in all {', '.join(parts)}" if parts else "")
    if oldest is None or oldest.waiting_since is None:
        return f"{line}."
    line += f"; job {oldest.id} has waited longest, {in_words(now - oldest.waiting_since)}"
    return line + (f" (!: more than {in_words(age)})." if oldest.waits_longer_than(age, now) else ".")


def files_listed(records: Iterable[FileRecord], *, as_json: bool, paths: bool) -> str:
    """List files that could not be read, by the hash of the path; with `paths` by the path, which may name patients."""
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
