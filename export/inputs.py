"""Sections of the card on the model's inputs, and on measurement differences between training table and appliance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungstage.appliance.model.manifest import CovariateEntry, FeatureEntry
from lungstage.appliance.report.vocabulary import CONCEPTS
from lungstage.export.markdown import as_table, number, percent, span
from lungstage.export.selection import frequency

Record = Mapping[str, Any]


def inputs(record: Record, entries: Sequence[FeatureEntry], covariates: Sequence[CovariateEntry]) -> str:
    """Write the section *Inputs*: the features and the covariates, with their training distributions."""
    shares, of_what = frequency(record)
    rows = []
    for position, entry in enumerate(entries, 1):
        q, note = entry.training_quantiles, CONCEPTS[entry.name].note
        rows.append(
            [
                str(position),
                f"`{entry.name}`" + (f" ({note})" if note else ""),
                entry.unit,
                entry.ibsi or "none",
                number(entry.training_median),
                span(q["0.05"], q["0.95"]),
                percent(shares.get(entry.name, 0.0)) if shares else "",
            ]
        )
    chosen = f"selected in, of {of_what}" if shares else "selected in"
    head = ["", "PyRadiomics feature", "unit (UCUM)", "IBSI", "training median", "5 % to 95 % of training", chosen]
    parts = [as_table(head, rows)]
    if covariates:
        parts += [
            "Clinical covariates are the bundle's second input. Age and sex are read from the DICOM header. All "
            "covariates can be read from the site's table (setting `covariates`), which takes precedence. A missing "
            "value is replaced by the training median, and the report says so.",
            as_table(
                ["covariate", "input", "training median", "clipped to"],
                [
                    [entry.name, column.name, number(column.training_median), span(*column.limits)]
                    for entry in covariates
                    for column in entry.columns
                ],
            ),
            *(
                f"The reference level of {entry.name} is `{entry.levels[0]}`; its inputs are then 0."
                for entry in covariates
                if entry.levels
            ),
        ]
    return "\n\n".join(parts)


def skew(cohort: Record, names: Sequence[str]) -> str:
    """Compare the table's values with the appliance's measurement, for one case that both contain."""
    found = cohort.get("skew")
    if not found:
        return (
            "The training table was not compared with the appliance's extraction, because no image of a patient in the "
            "table was available."
        )
    rows = [
        [f"`{name}`", f"{100 * found['relative'][name]:+.2f} %", f"{found['in_iqr'][name]:+.3f}"]
        for name in names
        if name in found["relative"]
    ]
    return "\n\n".join(
        [
            f"Case: {found['case']}. Difference between the appliance's measurement and the training table:",
            as_table(["feature", "relative difference", "in interquartile ranges of the training rows"], rows),
            f"Cause: {found['cause']}.",
        ]
    )
