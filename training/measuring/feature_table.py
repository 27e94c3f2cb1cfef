"""Files of a measured cohort: feature table, list of refusals, list of warnings, description."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungstage.appliance import __version__
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.model.manifest import ContourSource
from lungstage.appliance.staging.choosing import ASSISTED
from lungstage.training.cohorts.description import Counts, read_description
from lungstage.training.cohorts.table import PATIENT, refuse
from lungstage.training.files import write_whole
from lungstage.training.measuring.measure import Measured

_COUNTS = re.compile(r"^\[measured\][^\[]*", re.MULTILINE)


def refusals(out: Path) -> Path:
    """Path of the list of refusals of a feature table."""
    return out.with_suffix(".refused.csv")


def warned(out: Path) -> Path:
    """Path of the list of warnings of a feature table."""
    return out.with_suffix(".warnings.csv")


def check_description(out: Path, spec: ExtractionSpec) -> None:
    """Refuse (``table_invalid``) to write a table beside a description of other extraction settings."""
    description = out.with_suffix(".toml")
    if not description.exists():
        return
    found = read_description(description)
    if found.extraction != dict(spec.settings):
        refuse(
            f"The existing {description.name} describes a table that was measured with other settings. Write the table "
            "under another name, or move that file away."
        )
    if found.measured is not None and not _COUNTS.search(description.read_text(encoding="utf-8")):
        refuse(
            f"{description.name} gives the number of measured studies, but not in a section [measured]. Move the keys "
            "listed, measured and refused into that section."
        )


def write_table(measured: Sequence[Measured], spec: ExtractionSpec, listed: Path, out: Path) -> None:
    """Write the feature table, the list of refusals beside it, and the description of how it was measured.

    Parameters
    ----------
    measured
        Results in the order of the rows.
    spec
        What was measured.
    listed
        The cohort list.
    out
        The feature table. ``<stem>.refused.csv``, ``<stem>.toml`` and, if there are warnings, ``<stem>.warnings.csv``
        are written beside it. In an existing description only the numbers of studies are changed (see
        :func:`check_description`), because a person may have written its source and licence.
    """
    rows = [
        [one.subject.patient_id, *one.subject.carried.values(), *one.entry.features]
        for one in measured
        if one.entry.features is not None
    ]
    write_whole(out, _csv([PATIENT, *measured[0].subject.carried, *spec.features], rows))
    refused = [
        [one.subject.patient_id, one.entry.code, one.entry.message] for one in measured if one.entry.features is None
    ]
    write_whole(refusals(out), _csv([PATIENT, "code", "message"], refused))
    warnings = [[one.subject.patient_id, warning] for one in measured for warning in one.entry.warnings]
    if warnings:
        write_whole(warned(out), _csv([PATIENT, "message"], warnings))
    else:
        warned(out).unlink(missing_ok=True)
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
        lines += [f"contours = {json.dumps(_contour_sources(measured))}"]
        lines += ["", "[extraction]", *(f"{key} = {json.dumps(value)}" for key, value in settings)]
        description.write_text("\n".join(lines) + "\n", encoding="utf-8")
    outcomes = [one.outcome for one in measured]
    _count(description, Counts(listed=len(rows + refused), measured=len(rows), refused=outcomes.count("refused")))


def _contour_sources(measured: Sequence[Measured]) -> list[ContourSource]:
    """Who drew the contours of the table's rows."""
    rows = [one.entry.warnings for one in measured if one.entry.features is not None]
    assisted = sum(ASSISTED in warnings for warnings in rows)
    by: dict[ContourSource, bool] = {"assisted": assisted > 0, "expert": assisted < len(rows)}
    return [source for source, drew in by.items() if drew] or ["expert"]


def _count(description: Path, counts: Counts) -> None:
    """Write the numbers of studies into a description. They replace those of an earlier run."""
    if read_description(description).measured == counts:
        return
    kept = _COUNTS.sub("", description.read_text(encoding="utf-8")).rstrip()
    block = "".join(f"{key} = {value}\n" for key, value in counts)
    write_whole(description, f"{kept}\n\n[measured]\n{block}".encode())


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return file.getvalue().encode("utf-8", errors="backslashreplace")
