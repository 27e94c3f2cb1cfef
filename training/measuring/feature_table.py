"""The files that a measured cohort becomes: feature table, list of refusals, description."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.spec import ExtractionSpec
from training.cohorts.description import read_description
from training.cohorts.table import PATIENT, refuse
from training.measuring.measure import Measured


def refusals(out: Path) -> Path:
    """Where the list of refusals of a feature table is."""
    return out.with_suffix(".refused.csv")


def check_description(out: Path, spec: ExtractionSpec) -> None:
    """Refuse, as ``table_invalid``, to write a table beside a description that says that it was measured otherwise."""
    description = out.with_suffix(".toml")
    if description.exists() and read_description(description).extraction != dict(spec.settings):
        refuse(f"{description.name} says that its table was measured otherwise.")


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
        already there is left alone (see :func:`check_description`), for its source and licence are somebody's work.
    """
    rows = [
        [one.subject.patient_id, *one.subject.carried.values(), *one.entry.features]
        for one in measured
        if one.entry.features is not None
    ]
    _write_csv(out, [PATIENT, *measured[0].subject.carried, *spec.features], rows)
    refused = [
        [one.subject.patient_id, one.entry.code, one.entry.message] for one in measured if one.entry.features is None
    ]
    _write_csv(refusals(out), [PATIENT, "code", "message"], refused)
    description = out.with_suffix(".toml")
    if not description.exists():
        facts = {
            "name": listed.stem,
            "source": f"measured by lungstage {__version__} from the list {listed.name}",
            "licence": "undeclared",
            "citation": "undeclared",
        }
        settings = sorted(spec.settings.items())
        lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
        lines += ["", "[extraction]", *(f"{key} = {json.dumps(value)}" for key, value in settings)]
        description.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
