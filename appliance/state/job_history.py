"""The history of one job: what the audit log was told of it, in order, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance.state import chain
from lungstage.appliance.state.audit import Entry
from lungstage.appliance.state.job import Job


@dataclass(frozen=True, slots=True)
class JobHistory:
    """One job with everything that is known of it.

    Attributes
    ----------
    job
        Its row in the ledger.
    entries
        What the audit log says of it, oldest first; what lies in an archive is not among it.
    instances
        What it needed when it was last ready.
    documents
        SHA-256 by name of what was delivered last.
    """

    job: Job
    entries: tuple[Entry, ...]
    instances: tuple[Mapping[str, str], ...]
    documents: Mapping[str, str]


def job_history(job: Job, state: Path) -> JobHistory:
    """Gather the history of a job from the audit log of its state folder."""
    told: list[Entry] = []
    for entry in chain.entries(state, f'"job":{job.id},'):
        if entry.fields.get("job") != job.id or entry.fields.get("study") != job.study_instance_uid:
            continue  # a job of the same number in a ledger that was lost
        if entry.event == "job_opened":
            told.clear()
        told.append(entry)
    instances = [entry.fields["instances"] for entry in told if entry.fields.get("instances")]
    delivered = [entry.fields["documents"] for entry in told if entry.event == "job_delivered"]
    return JobHistory(job, tuple(told), tuple(instances[-1]) if instances else (), delivered[-1] if delivered else {})
