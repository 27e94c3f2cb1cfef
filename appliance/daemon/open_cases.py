"""The open cases: all that is kept in memory of a study's life, from its first file to the end of its job.

The ledger keeps the rest, and all of this can be made again from it and the inbox. A closed case leaves nothing here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.state.job import Job
from lungstage.appliance.workers.messages import Answer, SealedPlan


def content_digest(case: Case) -> str:
    """Digest of everything known of a case's instances but where they lie; equal for any number of copies."""
    parts = {
        "\0".join(
            repr(getattr(header, field.name)) for field in fields(header) if field.name not in ("path", "pixel_span")
        )
        for header in case.headers
    }
    return hashlib.sha256("\n".join(sorted(parts)).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class InHand:
    """A claimed job: its number at the processes that stage it, then the answer that waits to be delivered."""

    job: Job
    ticket: int
    answer: Answer | None = None


@dataclass(slots=True)
class OpenCase:
    """A case whose job has not come to an end; moments are the daemon's monotonic clock's."""

    key: str
    changed_at: float
    version: int | None = None  # of the case as it was met, with the places of its files
    content: str = ""
    case: Case | None = None  # while it is worked on: a hundred cases that wait are many headers
    due: float | None = None  # when to examine it again although nothing came
    report_at: float | None = None  # when to report that it waits
    waits_until: float | None = None  # when what may still come counts as missing
    examined_at: float = float("-inf")
    cost: float = 0.0  # seconds that the last examination took
    failures: int = 0  # of examinations, by a defect of ours
    plan: SealedPlan | None = None  # what its ready job needs to be staged
    in_hand: InHand | None = None

    @property
    def at_hand(self) -> Case:
        """What it holds, while it is worked on."""
        if self.case is None:
            raise RuntimeError("a case was not fetched")
        return self.case

    def take(self, case: Case) -> None:
        """Work on it as it is now."""
        self.case, self.version, self.content = case, hash(case), content_digest(case)


class OpenCases(dict[str, OpenCase]):
    """The open cases by their keys.

    Attributes
    ----------
    bundle_digest
        Of the bundle that they are examined and answered by.
    """

    def __init__(self, bundle_digest: str) -> None:
        super().__init__()
        self.bundle_digest = bundle_digest

    def wake(self, key: str) -> OpenCase:
        """Return a case, which has rested for long where it is not here."""
        return self.setdefault(key, OpenCase(key, float("-inf")))

    def in_hand(self) -> list[InHand]:
        """Return the jobs in hand, in the order in which they were claimed."""
        return sorted((case.in_hand for case in self.values() if case.in_hand), key=lambda one: one.ticket)

    def close(self, job: Job) -> None:
        """Drop what is kept of a job that has come to its end, and its case where nothing more is to be done."""
        case = self[job.case_key]
        case.plan = case.in_hand = None
        if case.due is None and case.report_at is None and case.content == job.content:
            del self[job.case_key]
