"""Cohort lists: which studies of which patients to measure, and what is known of them beside their images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.training.cohorts.endpoint import STAGE, read_outcome
from lungstage.training.cohorts.table import PATIENT, parse_table, refuse
from lungstage.training.measuring.journal import Key

REQUIRED: Final = (PATIENT, "path", "roi")


@dataclass(frozen=True, slots=True)
class Subject:
    """One line of a cohort list.

    Attributes
    ----------
    patient_id, path, roi
        As the list has them: the study's folder or file, and the name of the region; an empty one leaves the choice to
        the rule.
    study
        The path from the list's own folder, absolute.
    carried
        Cells that the feature table takes over, by column: the stage, where it is there, and then all others.
    """

    patient_id: str
    path: str
    roi: str
    study: Path
    carried: Mapping[str, str]

    @property
    def key(self) -> Key:
        """What the journal knows it by."""
        return self.patient_id, self.path, self.roi


def read_subjects(file: Path) -> tuple[Subject, ...]:
    """Read a cohort list.

    Parameters
    ----------
    file
        CSV with ``patient_id``, ``path`` (from the list's own folder) and ``roi``, and with ``stage`` (early or
        advanced) or other columns that can be predicted.

    Raises
    ------
    Refused
        ``table_invalid``, naming column and line.
    """
    table = parse_table(file.read_bytes(), REQUIRED)
    stage = STAGE_GROUP.name
    if stage in table.columns:
        read_outcome(table, STAGE)
    others = [name for name in table.columns if name not in (*REQUIRED, stage)]
    if measured := [name for name in others if name.startswith("original_")]:
        refuse(f"The list has columns that are to be measured: {measured}; they cannot be carried into the table.")
    carried = [stage, *others] if stage in table.columns else others
    if not carried:
        refuse(f"The list lacks the column {stage}, and has no other that could be predicted.")
    subjects = []
    for row, (patient, path, roi) in enumerate(zip(*(table.columns[name] for name in REQUIRED), strict=True)):
        if not path:
            table.refuse("path", row, "it is empty")
        cells = {name: table.columns[name][row] for name in carried}
        subjects.append(Subject(patient, path, roi, (file.parent / path).absolute(), cells))
    return tuple(subjects)
