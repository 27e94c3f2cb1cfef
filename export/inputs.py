"""The card's account of what goes into the network, and of how the appliance's measurement differs from training's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungstage.appliance.model.manifest import CovariateEntry, FeatureEntry
from lungstage.appliance.report.vocabulary import CONCEPTS
from lungstage.export.markdown import as_table, number, percent, span
from lungstage.export.selection import frequency

Record = Mapping[str, Any]


def inputs(record: Record, entries: Sequence[FeatureEntry], covariates: Sequence[CovariateEntry]) -> str:
    """Write the section *Inputs*: the features and the covariates, as training saw them."""
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
    chosen = f"chosen in, of {of_what}" if shares else "chosen in"
    head = ["", "PyRadiomics feature", "unit (UCUM)", "IBSI", "training median", "5 % to 95 % of training", chosen]
    parts = [as_table(head, rows)]
    if covariates:
        parts += [
            "Clinical covariates, the bundle's second input. Age and sex are read from the DICOM header, and all of "
            "them from the site's table (setting `covariates`), which outranks it. What is missing is imputed by the "
            "training median, and the report says so.",
            as_table(
                ["covariate", "input", "training median", "clipped to"],
                [
                    [entry.name, column.name, number(column.training_median), span(*column.limits)]
                    for entry in covariates
                    for column in entry.columns
                ],
            ),
            *(
                f"Of {entry.name}, `{entry.levels[0]}` is the reference, at which its inputs are 0."
                for entry in covariates
                if entry.levels
            ),
        ]
    return "\n\n".join(parts)


def skew(cohort: Record, names: Sequence[str]) -> str:
    """Compare the table's values with the appliance's own for one case that both have."""
    found = cohort.get("skew")
    if not found:
        return (
            "The training table was not compared with the appliance's own extraction: no image of a patient in the "
            "table was at hand."
        )
    rows = [
        [f"`{name}`", f"{100 * found['relative'][name]:+.2f} %", f"{found['in_iqr'][name]:+.3f}"]
        for name in names
        if name in found["relative"]
    ]
    return "\n\n".join(
        [
            f"Case: {found['case']}. What the appliance measures of it, against the training table:",
            as_table(["feature", "relative difference", "in interquartile ranges of the training rows"], rows),
            f"Where it comes from: {found['cause']}.",
        ]
    )
