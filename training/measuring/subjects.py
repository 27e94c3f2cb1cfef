"""Cohort lists: which studies of which patients to measure, and what is known of them beside their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.appliance.radiomics.nifti import is_nifti
from lungstage.training.cohorts.endpoint import STAGE, read_outcome
from lungstage.training.cohorts.table import PATIENT, Table, column_names, is_missing, parse_table, refuse
from lungstage.training.measuring.journal import Key

REQUIRED: Final = (PATIENT, "path", "roi")
BATCH: Final = ("ID", "Image", "Mask")
"""The columns of PyRadiomics' batch list of NIfTI files; it may have ``Label``, too."""
LABEL: Final = "Label"


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
    mask, label
        Of a NIfTI image its mask, absolute, and the label in it, which `roi` then says both; None of DICOM.
    """

    patient_id: str
    path: str
    roi: str
    study: Path
    carried: Mapping[str, str]
    mask: Path | None = None
    label: int | None = None

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
        advanced) or other columns that can be predicted. Or PyRadiomics' batch list of NIfTI files: ``ID``, ``Image``
        and ``Mask``, ``Label`` where it is not 1, and any other columns.

    Raises
    ------
    Refused
        ``table_invalid``, naming column and line.
    """
    content = file.read_bytes()
    is_batch = {*BATCH[1:]} <= {*column_names(content)}
    required = BATCH if is_batch else REQUIRED
    table = parse_table(content, required)
    carried = _carried(table, (*BATCH, LABEL, PATIENT) if is_batch else REQUIRED)
    if not carried and not is_batch:
        refuse(f"The list lacks the column {STAGE_GROUP.name}, and has no other that could be predicted.")
    subject = _nifti_subject if is_batch else _dicom_subject
    return tuple(
        subject(table, row, file.parent, {name: table.columns[name][row] for name in carried})
        for row in range(len(table.lines))
    )


def _dicom_subject(table: Table, row: int, folder: Path, carried: Mapping[str, str]) -> Subject:
    patient, path, roi = (table.columns[name][row] for name in REQUIRED)
    if not path:
        table.refuse("path", row, "it is empty")
    return Subject(patient, path, roi, (folder / path).absolute(), carried)


def _nifti_subject(table: Table, row: int, folder: Path, carried: Mapping[str, str]) -> Subject:
    patient, image, mask = (table.columns[name][row] for name in BATCH)
    for name, cell in zip(BATCH[1:], (image, mask), strict=True):
        if not is_nifti(Path(cell)):
            table.refuse(name, row, f"{cell!r} is not the name of a NIfTI file (.nii or .nii.gz)")
    label, (study, drawn) = _label(table, row), ((folder / cell).absolute() for cell in (image, mask))
    return Subject(patient, image, f"label {label} of {mask}", study, carried, drawn, label)


def _carried(table: Table, known: Sequence[str]) -> list[str]:
    """Return the columns that the feature table takes over: the stage first, and then all that are not `known`."""
    stage = STAGE_GROUP.name
    if stage in table.columns:
        read_outcome(table, STAGE)
    others = [name for name in table.columns if name not in (*known, stage)]
    if measured := [name for name in others if name.startswith("original_")]:
        refuse(f"The list has columns that are to be measured: {measured}; they cannot be carried into the table.")
    return [stage, *others] if stage in table.columns else others


def _label(table: Table, row: int) -> int:
    """Return the label of a row: a whole number, which pandas may have written as 2.0; 1 where the cell is empty."""
    cell = table.columns[LABEL][row] if LABEL in table.columns else ""
    if is_missing(cell):
        return 1
    whole = cell.removesuffix(".0")
    if not (whole.isascii() and whole.isdigit() and int(whole) > 0):
        table.refuse(LABEL, row, f"{cell!r} is not a whole number from 1")
    return int(whole)
