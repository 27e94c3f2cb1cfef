"""Cohort lists: the studies to measure, and other columns to copy into the feature table."""

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
"""The columns of PyRadiomics' batch list of NIfTI files. ``Label`` is optional."""
LABEL: Final = "Label"


@dataclass(frozen=True, slots=True)
class Subject:
    """One line of a cohort list.

    Attributes
    ----------
    patient_id, path, roi
        As in the list: the patient, the study's folder or file, and the region's name. If the name is empty, the ROI
        rule chooses the region.
    study
        The absolute path; a relative one starts at the list's folder.
    carried
        Cells that are copied to the feature table, by column: first the stage, if it exists, then all others.
    mask, label
        For a NIfTI image: the absolute path of its mask, and the label in it; `roi` then names both. None for DICOM.
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
        """Key of the subject in the journal."""
        return self.patient_id, self.path, self.roi


def read_subjects(file: Path) -> tuple[Subject, ...]:
    """Read a cohort list.

    Parameters
    ----------
    file
        CSV with ``patient_id``, ``path`` (relative to the list's folder) and ``roi``, and with ``stage`` (early or
        advanced) or other columns that can be predicted. Or PyRadiomics' batch list of NIfTI files: ``ID``, ``Image``
        and ``Mask``, ``Label`` if it is not 1, and any other columns.

    Raises
    ------
    Refused
        ``table_invalid``; the message names column and line.
    """
    content = file.read_bytes()
    is_batch = {*BATCH[1:]} <= {*column_names(content)}
    required = BATCH if is_batch else REQUIRED
    table = parse_table(content, required)
    carried = _carried(table, (*BATCH, LABEL, PATIENT) if is_batch else REQUIRED)
    if not carried and not is_batch:
        refuse(f"The list has no column that can be predicted. Add the column {STAGE_GROUP.name} or another outcome.")
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
    """Return the columns to copy into the feature table: the stage first, then all that are not `known`."""
    stage = STAGE_GROUP.name
    if stage in table.columns:
        read_outcome(table, STAGE)
    others = [name for name in table.columns if name not in (*known, stage)]
    if measured := [name for name in others if name.startswith("original_")]:
        refuse(f"The list already has feature columns: {measured}. Remove them; this command measures the features.")
    return [stage, *others] if stage in table.columns else others


def _label(table: Table, row: int) -> int:
    """Return the label of a row: a whole number, which pandas may have written as 2.0; 1 if the cell is empty."""
    cell = table.columns[LABEL][row] if LABEL in table.columns else ""
    if is_missing(cell):
        return 1
    whole = cell.removesuffix(".0")
    if not (whole.isascii() and whole.isdigit() and int(whole) > 0):
        table.refuse(LABEL, row, f"{cell!r} is not a whole number from 1")
    return int(whole)
