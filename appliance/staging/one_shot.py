"""Stage or measure files and folders once, for ``lungstage stage`` and ``lungstage measure``."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lungstage.appliance.config.text import printable
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import Held, ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.dicom.cases import Case, assemble, the_one_case
from lungstage.appliance.dicom.files import looks_like_dicom, read_headers
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.dicom.names import counted
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.model.manifest import RoiRule
from lungstage.appliance.radiomics.nifti import is_nifti
from lungstage.appliance.report import outbox
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.report.readback import read_back
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.choosing import has_its_region
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.descriptors import describe_measured
from lungstage.appliance.staging.measure import Stopwatch, measure
from lungstage.appliance.staging.nifti_pair import measure_pair
from lungstage.appliance.staging.outcome import STEPS, Outcome, outcome
from lungstage.appliance.staging.refusal import explain


class OptionsError(ValueError):
    """An option does not fit the given files."""


_UID = re.compile(r"[0-9]+(?:\.[0-9]+){3,}")


@dataclass(frozen=True, slots=True)
class Options:
    """The user's options for region, slices and documents.

    Attributes
    ----------
    roi_name
        The region's name; with None the rule chooses.
    match_by_geometry
        Accept slices by position although the region refers to others.
    save_volume
        A folder to write the reference volume and its mask to.
    site
        The site's prevalence and covariates.
    documents
        Which documents to make, and in which language.
    refusal_page
        Whether to make a page for a refusal.
    robustness
        Whether and how to test the answer's robustness against changes of contour and scan.
    describes
        Whether to compute the tumour's descriptors.
    label
        Value of the region's voxels in a NIfTI mask; None means 1.
    """

    roi_name: str | None = None
    match_by_geometry: bool = False
    save_volume: Path | None = None
    site: Site = field(default_factory=Site)
    documents: DocumentOptions = field(default_factory=DocumentOptions)
    refusal_page: bool = False
    label: int | None = None
    robustness: RobustnessOptions = field(default_factory=RobustnessOptions)
    describes: bool = True


@dataclass(frozen=True)
class Scan:
    """Result of a scan: headers, number of files that are not DICOM, and unreadable DICOM files with the reason."""

    headers: tuple[Header, ...]
    ignored: int
    unreadable: tuple[tuple[Path, str], ...]

    def in_words(self) -> str:
        """Say which files cannot be read, and why. One is named: the caller may see file names."""
        path, why = self.unreadable[0]
        alike = sum(other == why for _, other in self.unreadable) - 1
        others = len(self.unreadable) - 1 - alike
        more = f" and {counted(alike, 'more file')} with the same fault" if alike else ""
        rest = f" {counted(others, 'file')} cannot be read for other reasons." if others else ""
        return f"'{printable(path.name)}'{more} cannot be read. {why}{rest}"

    def by_file(self, message: str) -> str:
        """Replace instance UIDs in a message by file names: the caller works with files, not with UIDs."""
        return _UID.sub(lambda found: self._files.get(found[0], found[0]), message)

    @cached_property
    def _files(self) -> dict[str, str]:
        """Text for the UID of each instance, and for each series the text of its first file."""
        paths: dict[str, dict[Path, None]] = {}
        first: dict[str, Path] = {}
        for header in sorted(self.headers, key=lambda header: str(header.path)):
            paths.setdefault(header.sop_instance_uid, {})[header.path] = None
            first.setdefault(header.series_instance_uid, header.path)
        times = Counter(path.name for path in {header.path for header in self.headers})

        def told(path: Path) -> str:
            return f"'{printable(path.name if times[path.name] == 1 else f'{path.parent.name}/{path.name}')}'"

        series = {uid: f"of {told(path)}" for uid, path in first.items()}
        return series | {uid: " and ".join(map(told, some)) for uid, some in paths.items()}


def files_in(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield every file. Links are followed, because the user chose the paths."""
    return (Path(os.path.realpath(path)) for path in _named(paths))


def _named(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            for folder, subfolders, names in os.walk(path, onerror=_cannot_read):
                subfolders.sort()
                yield from (Path(folder) / name for name in sorted(names))
        elif path.exists():
            yield path
        else:
            raise Unavailable(f"There is no file or folder {path}.")


def _cannot_read(error: OSError) -> None:
    raise error


def scan(paths: Sequence[Path]) -> Scan:
    """Read the headers of every DICOM file in `paths`, folders included.

    Raises
    ------
    Unavailable
        A given path does not exist.
    OSError
        A file or folder cannot be read. It could contain a file that the case needs.
    """
    headers: list[Header] = []
    key = secrets.token_bytes(32)  # new in each run: the hashes are compared only with one another
    unreadable: list[tuple[Path, str]] = []
    ignored = 0
    for path in files_in(paths):
        try:
            headers += read_headers(path, hash_pixels=False, key=key)
        except Refused as refused:
            if path.is_file() and looks_like_dicom(path):
                unreadable.append((path, refused.reason.message))
            else:
                ignored += 1
    return Scan(tuple(headers), ignored, tuple(unreadable))


def _the_case(found: Scan, rule: RoiRule, options: Options) -> Case:
    if not found.headers and found.unreadable:
        raise Refused(ReasonCode.DICOM_UNREADABLE, f"{found.in_words()} There is no other DICOM file.")
    return the_one_case(assemble(found.headers), lambda case: has_its_region(case, rule, options.roi_name))


def _blame_unreadable(error: Held, found: Scan) -> Held | Refused:
    """Name damaged files as the cause, if they may be the missing ones."""
    if not found.unreadable or error.reason.code not in (
        ReasonCode.SLICES_MISSING,
        ReasonCode.CT_MISSING,
        ReasonCode.NO_ROI,
    ):
        return error
    return Refused(
        ReasonCode.DICOM_UNREADABLE, f"{found.in_words()} What can be read is not enough. {error.reason.message}"
    )


def ignored_in_words(files: int) -> str:
    """Say how many files are not DICOM and were ignored."""
    return "1 file is not DICOM and was ignored." if files == 1 else f"{files} files are not DICOM and were ignored."


def _found_warnings(found: Scan, told: str) -> tuple[str, ...]:
    """Warn of files that were left out, unless `told` already names them."""
    ignored = (ignored_in_words(found.ignored),) if found.ignored else ()
    left_out = len(found.unreadable)
    if not left_out or found.in_words() in told:
        return ignored
    return (*ignored, f"{left_out} {'file was' if left_out == 1 else 'files were'} left out. {found.in_words()}")


def _settle(result: Outcome, found: Scan | None, watch: Stopwatch) -> Outcome:
    """Add the warnings about files and the seconds, which are known only at the end."""
    reason, first = result["reason"], []
    if found is not None:
        reason = reason and reason | {"message": found.by_file(reason["message"])}
        first = list(_found_warnings(found, reason["message"] if reason else ""))
    return result | {
        "reason": reason,
        "warnings": first + result["warnings"],
        "seconds": {step: watch.seconds.get(step) for step in STEPS},
    }


def _run(paths: Sequence[Path], answer: Any, rule: RoiRule, options: Options, watch: Stopwatch) -> Outcome:
    """Scan the paths and call `answer` with the case; a refusal or a hold becomes an outcome."""
    found: Scan | None = None
    with watch.step("total"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values, and these may be a person's name
        try:
            with watch.step("scan"):
                found = scan(paths)
            try:
                result = answer(_the_case(found, rule, options))
            except Held as held:
                raise _blame_unreadable(held, found) from held
        except Refused as error:
            result = outcome(status="refused", reason=error.in_full())
        except Held as error:
            result = outcome(status="held", reason=error.in_full())
    return _settle(result, found, watch)


def stage_paths(paths: Sequence[Path], bundle: Bundle, out: Path | None, options: Options) -> Outcome:
    """Stage the one case in `paths`, and write its documents to `out`, if given.

    Returns
    -------
    dict
        The outcome of the command contract. If the same case is staged into the same folder again, its report there
        stays unchanged.

    Raises
    ------
    Unavailable
        A path does not exist.
    OSError
        `out` cannot be written to.
    OptionsError
        A path names a NIfTI file.
    """
    if any(map(is_nifti, paths)):
        raise OptionsError("a model answers for DICOM files only; measure NIfTI files with lungstage measure")
    watch = Stopwatch()

    def answer(case: Case) -> Outcome:
        try:
            return staged(case)
        except Refused as error:
            if out is None or not options.refusal_page:
                raise
            reason, now = error.in_full(), datetime.now().astimezone().replace(microsecond=0)
            documents = explain(case, reason, bundle, now, options.documents)
            return outcome(status="refused", reason=reason) | {"documents": _deliver(documents, out)}

    def staged(case: Case) -> Outcome:
        with watch.step("roi"):
            plan = pipeline.prepare(
                case,
                bundle,
                settled=True,
                roi_name=options.roi_name,
                match_by_geometry=options.match_by_geometry,
                beyond_mm=options.robustness.reach_mm,
            )
        made_at = partial(
            pipeline.stage,
            plan,
            bundle,
            site=options.site,
            watch=watch,
            save_volume=options.save_volume,
            documents=options.documents if out is not None else DocumentOptions(("sr",)),
            robustness=options.robustness,
            describes=options.describes,
        )
        made = made_at(created=datetime.now().astimezone().replace(microsecond=0))
        delivered: dict[str, str] = {}
        if out is not None:
            if (earlier := _moment_of(out / made.documents[-1].name)) is not None:
                made = made_at(created=earlier)  # new documents get the report's time, so that replay reproduces all
            with watch.step("report"):
                delivered = _deliver(made.documents, out)
        unused = bool(options.site.covariates) and not bundle.manifest.covariates
        told = ["The model uses no covariates. The covariates table was not used."] if unused else []
        return made.outcome | {
            "sr": delivered.get("sr"),
            "documents": delivered or None,
            "warnings": made.outcome["warnings"] + told,
        }

    return _run(paths, answer, bundle.manifest.roi_rule, options, watch)


def _moment_of(report: Path) -> datetime | None:
    """Return when the report at this path was made; None if there is no lungstage report."""
    with contextlib.suppress(Refused, OSError):
        if report.is_file() and not report.is_symlink():
            return read_back(report).account.created
    return None


def _deliver(documents: Sequence[Document], out: Path) -> dict[str, str]:
    """Write documents; return their paths by kind (of several of one kind, the first)."""
    out.mkdir(parents=True, exist_ok=True)
    delivered: dict[str, str] = {}
    for document, path in zip(documents, outbox.deliver(documents, out), strict=True):
        delivered.setdefault(document.kind, str(path))
    return delivered


def _pair_of(paths: Sequence[Path], options: Options) -> tuple[Path, Path]:
    if len(paths) != 2 or not all(map(is_nifti, paths)):
        raise OptionsError("give two files: the NIfTI image and then its mask (IMAGE.nii.gz MASK.nii.gz)")
    if options.roi_name is not None or options.match_by_geometry:
        raise OptionsError(
            "--roi and --match-by-geometry are for DICOM files only; choose the region of a NIfTI mask with --label"
        )
    return paths[0], paths[1]


def measure_paths(paths: Sequence[Path], rule: RoiRule, spec: ExtractionSpec, options: Options) -> Outcome:
    """Measure the one case in `paths`, or a pair of NIfTI files (image and mask), without a model.

    Returns
    -------
    dict
        The outcome of the command contract; ``status`` is ``measured`` if the features were measured.

    Raises
    ------
    Unavailable
        A path does not exist.
    OptionsError
        One NIfTI file, or more than two; or an option that does not fit the given files.
    """
    watch = Stopwatch()
    if any(map(is_nifti, paths)):
        image, mask = _pair_of(paths, options)
        with watch.step("total"):
            try:
                result = measure_pair(
                    image, mask, spec, watch,
                    label=options.label, save_volume=options.save_volume, describes=options.describes,
                )  # fmt: skip
            except Refused as error:
                result = outcome(status="refused", reason=error.in_full())
        return _settle(result, None, watch)
    if options.label is not None:
        raise OptionsError("--label is for NIfTI masks only; choose a DICOM region by its name with --roi")

    def answer(case: Case) -> Outcome:
        with watch.step("roi"):
            plan = pipeline.plan_measurement(
                case,
                rule,
                spec,
                settled=True,
                roi_name=options.roi_name,
                match_by_geometry=options.match_by_geometry,
                drafts=True,
            )
        measurement = measure(plan.regions, spec, watch, save_volume=options.save_volume)
        warnings = plan.warnings + measurement.warnings
        with watch.step("descriptors"):
            descriptors = describe_measured(measurement) if options.describes else None
        return outcome(
            status="measured",
            measurement=measurement,
            others=plan.others,
            warnings=warnings,
            descriptors=descriptors,
        )

    return _run(paths, answer, rule, options, watch)
