"""A cohort list of CT and ROI into a feature table, through the appliance's own extraction.

What is trained on is then measured exactly as a patient will be measured, so the two cannot drift apart.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.errors import LungstageError, ReasonCode, Refused
from appliance.oneshot import Options, measure_paths
from appliance.radiomics import parameters
from appliance.roi_rule import ROI_RULE
from appliance.spec import ExtractionSpec
from training.cohort import is_advanced, parse_table, read_description

COLUMNS = ("patient_id", "path", "roi", "stage")


@dataclass(frozen=True, slots=True)
class Subject:
    """One line of a cohort list.

    Attributes
    ----------
    patient_id
        As the list has it.
    path
        Folder or file of the study.
    roi
        Name of the region; empty leaves the choice to the rule.
    stage
        early or advanced.
    """

    patient_id: str
    path: Path
    roi: str
    stage: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of a subject: features by name, or why there are none."""

    subject: Subject
    features: dict[str, float | None] | None
    code: str
    message: str


def read_subjects(table: Path) -> tuple[Subject, ...]:
    """Read a cohort list: CSV with ``patient_id``, ``path`` (from the list's own folder), ``roi`` and ``stage``.

    Raises
    ------
    Refused
        ``table_invalid``, naming column and line.
    """
    columns, lines = parse_table(table.read_bytes(), COLUMNS)
    subjects = []
    for patient, path, roi, stage, line in zip(*(columns[name] for name in COLUMNS), lines, strict=True):
        is_advanced(stage, line)
        if not path:
            raise Refused(ReasonCode.TABLE_INVALID, f"Column path is empty in line {line}.")
        subjects.append(Subject(patient, table.parent / path, roi, stage))
    return tuple(subjects)


def _measure(subject: Subject, spec_text: str, order: tuple[str, ...], match_by_geometry: bool) -> Measured:
    """Measure one subject; runs in a worker process."""
    try:
        spec = parameters.parse(spec_text, order=order)
        answer = measure_paths([subject.path], ROI_RULE, spec, Options(subject.roi or None, match_by_geometry))
    except (LungstageError, OSError) as error:
        return Measured(subject, None, "unavailable", str(error))
    if answer["status"] != "staged":
        return Measured(subject, None, answer["reason"]["code"], answer["reason"]["message"])
    return Measured(subject, answer["features"], "", "")


def measure_cohort(
    subjects: Sequence[Subject], spec: ExtractionSpec, *, workers: int, match_by_geometry: bool = False
) -> Iterator[Measured]:
    """Measure subjects in parallel processes.

    Yields
    ------
    Measured
        One for each subject, in the order in which they are done.
    """
    text = parameters.render(spec)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_measure, subject, text, spec.features, match_by_geometry) for subject in subjects]
        for future in as_completed(futures):
            yield future.result()


def write_table(measured: Sequence[Measured], spec: ExtractionSpec, listed: Path, out: Path) -> None:
    """Write the feature table, the list of refusals beside it, and the description of how it was measured.

    Parameters
    ----------
    measured
        In the order in which they are to be written.
    spec
        What was measured.
    listed
        The cohort list.
    out
        The feature table; ``<stem>.refused.csv`` and ``<stem>.toml`` are written beside it. A description that is
        already there and says the same of the extraction is left alone, for its source and licence are somebody's work.

    Raises
    ------
    Refused
        ``table_invalid`` where the description beside the table says that it was measured otherwise.
    """
    description = out.with_suffix(".toml")
    extraction = dict(spec.settings)
    if description.exists() and read_description(description).extraction != extraction:
        raise Refused(ReasonCode.TABLE_INVALID, f"{description.name} says that its table was measured otherwise.")
    good = [one for one in measured if one.features is not None]
    rows = [[one.subject.patient_id, one.subject.stage, *(one.features or {}).values()] for one in good]
    _write_csv(out, ["patient_id", "stage", *spec.features], rows)
    refused = [[one.subject.patient_id, one.code, one.message] for one in measured if one.features is None]
    _write_csv(out.with_suffix(".refused.csv"), ["patient_id", "code", "message"], refused)
    if not description.exists():
        facts = {
            "name": listed.stem,
            "source": f"measured by lungstage {__version__} from the list {listed.name}",
            "licence": "undeclared",
            "citation": "undeclared",
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
        lines += ["", "[extraction]", *(f"{key} = {json.dumps(value)}" for key, value in sorted(extraction.items()))]
        description.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    part.replace(path)
