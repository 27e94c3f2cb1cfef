"""The original files of a report: where they are, which were used, and whether they are unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lungstage.appliance.dicom.files import with_pixel_digest
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.replay.differences import Change
from lungstage.appliance.report.readback import Account
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.state import chain
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.file_table import FileRecords


@dataclass(frozen=True, slots=True)
class Witness:
    """The entries of an audit log about a report; empty if there is no log.

    Attributes
    ----------
    documents
        SHA-256 of every file that was delivered, by file name.
    instances
        Its record of each instance that was used (:attr:`staging.pipeline.Plan.instances`), by SOP Instance UID.
    """

    documents: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    instances: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, state: Path, report: Account) -> Witness:
        """Find a report in the audit log of a state folder."""
        documents: dict[str, frozenset[str]] = {}
        fingerprint = None
        for entry in chain.entries(state, f'"sr":"{report.sop_instance_uid}"'):
            fingerprint = entry.fields.get("fingerprint")
            for name, digest in entry.fields.get("documents", {}).items():
                documents[name] = documents.get(name, frozenset()) | {digest}
        needed: dict[str, Mapping[str, str]] = {}
        if fingerprint is not None:
            for entry in chain.entries(state, fingerprint):
                needed |= {instance["uid"]: instance for instance in entry.fields.get("instances", ())}
        return cls(documents, needed)

    def knows(self, header: Header) -> bool:
        """Whether an instance has the same content as when the report was made."""
        return not any(self.unlike(header))

    def unlike(self, header: Header) -> tuple[bool, bool]:
        """Whether the header, and the pixels, of an instance differ from those when the report was made."""
        known = self.instances.get(name_of(header))
        if known is None:
            return False, False
        pixels = isinstance(header, ImageHeader) and with_pixel_digest(header).pixel_digest != known["pixels"]
        return header.digest != known["digest"], pixels


def name_of(header: Header) -> str:
    """Return the SOP Instance UID of a ROI object or image; with the number of its frame if there are several."""
    return header.name if isinstance(header, ImageHeader) else header.sop_instance_uid


def from_state(state: Path, report: Account) -> tuple[Header, ...]:
    """Read the files of a report's study that the ledger lists and that still exist."""
    with DatabaseReader(state / "ledger.sqlite") as database:
        files = FileRecords(database)
        paths = [Path(path) for study in report.studies for path in files.of_study(study)]
        return scan([path for path in paths if path.is_file()]).headers


def needed(report: Account, headers: Sequence[Header], witness: Witness) -> tuple[Header, ...]:
    """Choose the files that a report was made from. If an instance has several files, choose the unchanged ones."""
    wanted = {*report.before, *report.slices, *report.behind, report.roi, *witness.instances}
    if report.other_rois and not witness.instances:
        rois = (h for h in headers if isinstance(h, RoiHeader) and h.study_instance_uid in report.studies)
        wanted |= {header.sop_instance_uid for header in rois}
    chosen: list[Header] = []
    for name in wanted:
        found = [header for header in headers if name_of(header) == name]
        chosen += [header for header in found if witness.knows(header)] or found
    return tuple(chosen)


def of_inputs(report: Account, headers: Sequence[Header], witness: Witness) -> Iterator[Change]:
    """List each original file that is missing or changed."""
    slices = (*report.before, *report.slices, *report.behind)
    for uid in dict.fromkeys((*slices, report.roi, *witness.instances)):
        is_slice = uid in slices or witness.instances.get(uid, {}).get("kind") == "CT"
        kind, what = ("slice", "Slice") if is_slice else ("roi", "Region of interest object")
        found = [header for header in headers if name_of(header) == uid]
        if not found:
            yield Change(f"{kind}_missing", f"{what} {uid} is missing.", uid)
            continue
        if any(witness.knows(header) for header in found):
            continue
        header, pixels = witness.unlike(found[0])
        if header and kind == "roi":
            yield Change("roi_content", f"{what} {uid} has changed content.", uid)
        elif header:
            yield Change("slice_header", f"{what} {uid} has changed geometry or pixel encoding.", uid)
        if pixels:
            yield Change("slice_pixels", f"{what} {uid} has changed pixels.", uid)
