"""The open cases: the data about a case that the daemon keeps in memory, from its first file to the end of its job.

The ledger keeps the rest. All data here can be made again from the ledger and the inbox. A closed case is removed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.state.job import Job
from lungstage.appliance.workers.messages import Answer, SealedPlan


def content_digest(case: Case) -> str:
    """Return the digest of a case's headers without file paths; any number of copies gives the same digest."""
    parts = {
        "\0".join(
            repr(getattr(header, field.name)) for field in fields(header) if field.name not in ("path", "pixel_span")
        )
        for header in case.headers
    }
    return hashlib.sha256("\n".join(sorted(parts)).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class InHand:
    """A claimed job: its number at the processes that stage it, then the answer that waits for delivery."""

    job: Job
    ticket: int
    answer: Answer | None = None


@dataclass(slots=True)
class OpenCase:
    """A case whose job has not ended; times are those of the daemon's monotonic clock."""

    key: str
    changed_at: float
    version: int | None = None  # of the case when it was last read, with the paths of its files
    content: str = ""
    case: Case | None = None  # only during an examination: the headers of a hundred waiting cases need much memory
    due: float | None = None  # when to examine it again even if no file arrived
    report_at: float | None = None  # when to report that it waits
    waits_until: float | None = None  # when slices that may still arrive count as missing
    examined_at: float = float("-inf")
    cost: float = 0.0  # seconds that the last examination took
    failures: int = 0  # examinations that ended with an internal error
    plan: SealedPlan | None = None  # the plan by which its ready job is staged
    in_hand: InHand | None = None

    @property
    def at_hand(self) -> Case:
        """The case during an examination."""
        if self.case is None:
            raise RuntimeError("the case has not been fetched")
        return self.case

    def take(self, case: Case) -> None:
        """Use this version of the case from now on."""
        self.case, self.version, self.content = case, hash(case), content_digest(case)


class OpenCases(dict[str, OpenCase]):
    """The open cases by key.

    Attributes
    ----------
    bundle_digest
        Digest of the bundle that examines and answers the cases.
    """

    def __init__(self, bundle_digest: str) -> None:
        super().__init__()
        self.bundle_digest = bundle_digest

    def wake(self, key: str) -> OpenCase:
        """Return a case; one that is not open counts as unchanged for a long time."""
        return self.setdefault(key, OpenCase(key, float("-inf")))

    def in_hand(self) -> list[InHand]:
        """Return the jobs being processed, in the order in which they were claimed."""
        return sorted((case.in_hand for case in self.values() if case.in_hand), key=lambda one: one.ticket)

    def close(self, job: Job) -> None:
        """Drop the data of a finished job, and its case if nothing is left to do."""
        case = self[job.case_key]
        case.plan = case.in_hand = None
        if case.due is None and case.report_at is None and case.content == job.content:
            del self[job.case_key]
