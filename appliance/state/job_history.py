"""The history of one job: its entries in the audit log in order, and its present state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance.state import chain
from lungstage.appliance.state.audit import Entry
from lungstage.appliance.state.job import Job


@dataclass(frozen=True, slots=True)
class JobHistory:
    """One job with all its records.

    Attributes
    ----------
    job
        Its row in the ledger.
    entries
        Its entries in the audit log, oldest first, without archived files of the log.
    instances
        The instances that it needed when it was last ready.
    documents
        SHA-256 of the documents delivered last, by name.
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
            continue  # a job with the same number in an earlier, lost ledger
        if entry.event == "job_opened":
            told.clear()
        told.append(entry)
    instances = [entry.fields["instances"] for entry in told if entry.fields.get("instances")]
    delivered = [entry.fields["documents"] for entry in told if entry.event == "job_delivered"]
    return JobHistory(job, tuple(told), tuple(instances[-1]) if instances else (), delivered[-1] if delivered else {})
