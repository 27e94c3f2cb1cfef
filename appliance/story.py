"""The whole story of one job: what the audit log was told of it, in order, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance import chain
from appliance.audit import Entry
from appliance.job import Job
from appliance.joblist import answer_in_words, printable

_TOLD_ELSEWHERE = frozenset(
    {"job", "study", "series", "fingerprint", "bundle", "software", "instances", "answer", "documents", "created", "sr"}
)


@dataclass(frozen=True, slots=True)
class Story:
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


def tell(job: Job, state: Path) -> Story:
    """Gather the story of a job from the audit log of its state folder."""
    told: list[Entry] = []
    for entry in chain.entries(state, f'"job":{job.id},'):
        if entry.fields.get("job") != job.id or entry.fields.get("study") != job.study_instance_uid:
            continue  # a job of the same number in a ledger that was lost
        if entry.event == "job_opened":
            told.clear()
        told.append(entry)
    instances = [entry.fields["instances"] for entry in told if entry.fields.get("instances")]
    delivered = [entry.fields["documents"] for entry in told if entry.event == "job_delivered"]
    return Story(job, tuple(told), tuple(instances[-1]) if instances else (), delivered[-1] if delivered else {})


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


def print_story(story: Story) -> None:
    """Print a story as tables for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(value: object) -> Text:  # a ROI's name is no markup
        return Text(printable(str(value)), overflow="fold")

    job, console = story.job, Console()
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
    for entry in story.entries:
        course.add_row(*map(text, (entry.seq, entry.time[:19], entry.event.removeprefix("job_"), happened(entry))))
    needed = Table("kind", "SOP Instance UID", "content", title="what it needed")
    for one in story.instances:
        content = " ".join(filter(None, (one.get("digest", ""), one.get("pixels", ""))))
        needed.add_row(*map(text, (one.get("kind", ""), one.get("uid", ""), content)))
    written = Table("document", "SHA-256", title="what was delivered")
    for name, digest in story.documents.items():
        written.add_row(text(name), text(digest))
    for table in (facts, course, needed, written):
        if table.row_count:
            console.print(table)
    if not story.entries:
        console.print("The audit log here says nothing of this job.")
