"""Make a report again from its original files, and compare it byte for byte with the old one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom

from lungstage.appliance import __version__
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.documents import LANGUAGES, DocumentOptions, formats_of
from lungstage.appliance.contract.errors import Held, Refused
from lungstage.appliance.dicom.cases import Case, assemble, the_one_case
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.dicom.roi import load_regions
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.replay import differences
from lungstage.appliance.replay.differences import Change, changed
from lungstage.appliance.replay.originals import Witness, needed, of_inputs
from lungstage.appliance.report.context import label
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.report.page_documents import page_names
from lungstage.appliance.report.page_objects import drawn_with
from lungstage.appliance.report.readback import Account, Report, read_back
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.covariates import Site

_MOST_ELEMENTS = 20  # listed at most for an edited report
_EFFECTS = frozenset(
    {
        "answer",
        "probability",
        "feature",
        "contribution",
        "robustness",
        "variation",
        "descriptor",
        "library_version",
        "report_file",
    }
)  # fmt: skip
_INPUT = Change(
    "input",
    "The report's UID is computed from pixels, region and header of the input. One of these has changed, or the UID "
    "was edited. Only the audit log from the time of the report shows which.",
)


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay.

    Attributes
    ----------
    changes
        All differences; empty if every document is identical, bit for bit.
    notes
        What was not known or could not be compared, in sentences.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def replay(report: Report, originals: Sequence[Header], bundle: Bundle, witness: Witness) -> Replay:
    """Make a report again, and compare.

    Parameters
    ----------
    report
        A structured report of lungstage. Its SEG is searched for beside it.
    originals
        Headers of all files that may be originals; more than necessary is no problem.
    bundle
        The model, with the engine that the report names.
    witness
        The entries of the audit log about the report.
    """
    then = report.account
    notes = [f"The report does not contain {what} exactly. It was made again without it." for what in then.unknown]
    noticed = [*_of_making(then, bundle), *_of_file(report, witness), *of_inputs(then, originals, witness)]
    needful = {*then.slices, then.roi}
    if any(change.what in ("slice_missing", "roi_missing") and change.subject in needful for change in noticed):
        return Replay(tuple(noticed), tuple(notes))
    try:
        case = the_one_case(assemble(needed(then, originals, witness)))
        documents = _stage(then, case, bundle, _pages(report, witness))
    except (Refused, Held) as error:
        noticed.append(Change("refused", f"The report cannot be made again. {error}", str(error.reason.code)))
        return Replay(tuple(noticed), tuple(notes))
    if documents[-1].content == report.content:
        # The report is identical, so these changes had no effect on it.
        notes += [change.message for change in noticed]
        found = [*_of_others(report, documents, witness, notes)]
        return Replay(tuple(found), tuple(notes))
    now = read_back(report.path, documents[-1].content)
    found = [*noticed, *_of_report(report, now, documents)]
    if then.sop_instance_uid != now.account.sop_instance_uid and all(change.what in _EFFECTS for change in found):
        found.append(_INPUT)
    return Replay(tuple(found), tuple(notes))


def _of_making(then: Account, bundle: Bundle) -> Iterator[Change]:
    if then.software != __version__:
        yield changed("software_version", "lungstage", then.software, __version__)
    if then.bundle_digest != bundle.digest:
        name = f"bundle ({then.bundle} then, {bundle.manifest.name} {bundle.manifest.version} now)"
        yield changed("bundle", name, then.bundle_digest, bundle.digest)


def _of_file(report: Report, witness: Witness) -> Iterator[Change]:
    known = witness.documents.get(report.account.name)
    digest = hashlib.sha256(report.content).hexdigest()
    if known and digest not in known:
        message = "This file is not the one that was delivered under its UID. It was edited, or made at another time."
        yield Change("report_file", message, report.account.name, sorted(known)[0], digest)


def _pages(report: Report, witness: Witness) -> tuple[DocumentOptions, ...]:
    """Find the formats and languages of the report's pages: those beside it and those that were delivered."""
    found = []
    for language in LANGUAGES:
        names = page_names(report.account.sop_instance_uid, language)
        there = [
            kind for kind, name in names.items() if name in witness.documents or (report.path.parent / name).is_file()
        ]
        if there:
            found.append(DocumentOptions(formats_of(there), language))
    return tuple(found) or (DocumentOptions(("sr",)),)


def _stage(then: Account, case: Case, bundle: Bundle, pages: Sequence[DocumentOptions]) -> tuple[Document, ...]:
    """Make the documents again: the page in each of its languages, everything else once, and the SR last."""
    site = Site(then.prevalence, {case.study_instance_uid: then.covariates})
    plan = _plan(then, case, bundle)
    made = [
        pipeline.stage(
            plan,
            bundle,
            created=then.created,
            site=site,
            predecessor=then.predecessor,
            documents=options,
            robustness=then.options,
            describes=bool(then.descriptors),
        ).documents
        for options in pages
    ]
    before = {document.name: document for documents in made for document in documents[:-1]}
    return (*before.values(), made[0][-1])


def _plan(then: Account, case: Case, bundle: Bundle) -> pipeline.Plan:
    """Make the plan with the same region: a person's choice, or the bundle's rule, or else a name that was given."""
    named = {region.name for roi in case.rois for region in load_regions(roi) if label(region.name) == then.roi_label}
    choice = None if then.chosen_number is None else RegionChoice(then.roi, then.chosen_number)
    plans: list[pipeline.Plan] = []
    refusals: list[Refused] = []
    for name in (None, *sorted(named)) if choice is None else (None,):
        try:
            plan = pipeline.prepare(
                case,
                bundle,
                settled=True,
                roi_name=name,
                match_by_geometry=then.match_by_geometry,
                choice=choice,
                beyond_mm=then.options.reach_mm,
            )
        except Refused as refusal:
            refusals.append(refusal)
            continue
        # Files that were received but not used are not among the originals, so the report's own text is taken.
        plan = replace(plan, ending=then.ending)
        region = plan.regions[0][0]
        if (region.source.sop_instance_uid, label(region.name)) == (then.roi, then.roi_label):
            return plan
        plans.append(plan)
    if not plans:
        raise refusals[0]
    return plans[0]


def _of_report(report: Report, now: Report, documents: Sequence[Document]) -> Iterator[Change]:
    """Explain why the bytes of a report are different now."""
    then = report.account
    yield from differences.of_accounts(then, now.account)
    if then.sop_instance_uid != now.account.sop_instance_uid:
        yield from differences.of_headers(report.dataset, now.dataset)
        yield from _of_masks(report, documents)
        return
    elements = [*differences.of_elements(report.dataset, now.dataset)]
    yield from elements[:_MOST_ELEMENTS]
    if len(elements) > _MOST_ELEMENTS:
        yield Change("element", f"{len(elements) - _MOST_ELEMENTS} more elements differ.")
    if not elements:
        yield Change("encoding", "Every element is the same, but the encoding of the file differs.")


def _of_masks(report: Report, documents: Sequence[Document]) -> Iterator[Change]:
    """Compare the SEG beside a report with the SEG that is made now, if both exist."""
    path = report.path.parent / f"SEG-{report.account.segmentation}.dcm"
    made = [document for document in documents if document.kind == "seg"]
    if not made or not path.is_file():
        return
    try:
        before, after = (pydicom.dcmread(source) for source in (path, io.BytesIO(made[0].content)))
        yield from differences.of_masks(before, after)
    except Exception:  # the file may contain anything, so every error of the parser means that it cannot be read
        yield Change("segmentation", f"{path.name} cannot be read.", path.name)


def _of_page(path: Path, document: Document) -> Iterator[Change]:
    """Explain why a page differs: a library or font has changed, or the page was edited."""
    then, now = (drawn_with(source) for source in (path, io.BytesIO(document.content)))
    for name in dict.fromkeys((*then, *now)) if then else ():
        if then.get(name) != now.get(name):
            yield changed("drawing", name, then.get(name, "not used"), now.get(name, "not used"), document.name)
    if then == now or not then:
        yield Change("page", f"{document.name} differs from the document that is made now.", document.name)


def _of_others(report: Report, documents: Sequence[Document], witness: Witness, notes: list[str]) -> Iterator[Change]:
    """Compare the other documents of an identical report: by their files or, if these are missing, by their hashes."""
    for document in documents[:-1]:
        path = report.path.parent / document.name
        known = witness.documents.get(document.name, frozenset())
        if path.is_file() or known:
            digests = {hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else known
            if document.sha256 not in digests:
                if document.kind == "seg":
                    yield Change(
                        "segmentation", f"{document.name} differs from the document that is made now.", document.name
                    )
                    yield from _of_masks(report, documents)
                else:
                    yield from _of_page(path, document)
        else:
            notes.append(f"{document.name} is not beside the report, so it was not compared.")
