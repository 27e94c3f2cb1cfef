"""Results of a validation in sentences, and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from lungstage.training.validation.shift import LARGE

MIN_PATIENTS: Final = 100
"""Advised minimum per class: Collins GS, Ogundimu EO, Altman DG. Sample size considerations for the external validation
of a multivariable prognostic model. Stat Med 35(2), 2016."""

Record = Mapping[str, Any]

_WIDTH: Final = 160  # wide enough for every table


def warnings(record: Record) -> list[str]:
    """List reasons to doubt the figures, the most serious first."""
    told = []
    if record["trained_on_this_table"]:
        told.append(
            "THE BUNDLE WAS TRAINED ON THIS TABLE. This is not an external validation: the figures say nothing about "
            "new patients. Use another cohort."
        )
    if record["asked"] != record["endpoint"]["name"]:
        told.append(
            f"The bundle predicts {record['endpoint']['name']!r}, but the table's outcome is {record['asked']!r}. "
            "Check that both are the same endpoint: the software cannot check it."
        )
    if differences := record["extraction"]["differences"]:
        told.append(
            f"The table was measured with other settings than the bundle's ({'; '.join(differences)}): "
            "the figures come from wrong inputs."
        )
    if not record["extraction"]["declared"]:
        told.append(
            "The table has no description of its extraction settings. They may differ from the bundle's; check them."
        )
    table = record["table"]
    fewest = min(table["positives"], table["used"] - table["positives"])
    if fewest < MIN_PATIENTS:
        told.append(
            f"There are {fewest} patients of the rarer class; at least {MIN_PATIENTS} are advised "
            "(Collins, Ogundimu & Altman 2016). Read the intervals, not the values."
        )
    return told


def summary(record: Record) -> list[str]:
    """Summarise the results in sentences."""
    metrics, lift = record["metrics"], record["constant_guess"]["difference"]
    prevalence, conformal, domain = record["prevalence"], record["conformal"], record["domain"]
    own, surplus = record["at_own_prevalence"], record["calibration"]["in_the_large"]
    slope, intercept, lift_own = (
        own["calibration"]["slope"], own["calibration"]["intercept"], own["constant_guess"]["difference"]["brier"],
    )  # fmt: skip
    better_own = "better than" if lift_own["high"] < 0 else "not shown to be better than"
    covered = ", ".join(f"{figure(one)} of {name}" for name, one in conformal["coverage"].items())
    shifted = [name for name, one in record["features"].items() if one["verdict"] == "large shift"]
    ranks = (
        "ranks patients better than chance"
        if metrics["auc"]["low"] > 0.5
        else "is not shown to rank better than chance"
    )
    better = "better than" if lift["brier"]["high"] < 0 else "not shown to be better than"
    return [
        f"The bundle {ranks}: AUC {figure(metrics['auc'])}.",
        f"Its probabilities are {better} the training prevalence as a constant prediction: Brier score "
        f"{figure(metrics['brier'])}, difference {figure(lift['brier'])}.",
        f"{prevalence['table']:.0%} of the patients are {record['endpoint']['positive']}; in training "
        f"{prevalence['training']:.0%}. The observed minus the predicted share is {figure(surplus)}. With every logit "
        f"shifted by {prevalence['logit_shift']:+.2f} it is {figure(own['calibration']['in_the_large'])}, "
        f"and the Brier score is {figure(own['metrics']['brier'])}.",
        f"After correction to this cohort's prevalence the probabilities are {better_own} that prevalence as a "
        f"constant prediction: Brier score {figure(own['metrics']['brier'])}, difference {figure(lift_own)}. "
        f"Recalibration after the correction: slope {figure(slope)}, intercept {figure(intercept)} (1 and 0 are best). "
        "lungstage-export recalibrate makes a recalibrated bundle.",
        f"The conformal set contains the true class in {covered}; the target is {1 - conformal['alpha']:.0%}. "
        f"{figure(conformal['indeterminate'])} of the patients are indeterminate.",
        f"The appliance would warn about {domain['warn']['either']:.0%} of the tumours because of their distance from "
        f"the training cohort. It would refuse {domain['max']['either']:.0%}.",
        f"{len(shifted)} of {len(record['features'])} features show a large shift from training (PSI above {LARGE} "
        f"and above the level of chance){': ' if shifted else ''}{', '.join(shifted)}.",
    ]


def print_validation(record: Record, console: Console) -> None:
    """Print the content of ``validation.json``: warnings, tables, and the summary.

    Tables keep their full width. A narrow terminal wraps the lines, but no text is cut off.
    """
    console = Console(file=console.file, width=max(_WIDTH, console.width), soft_wrap=True)
    for warning in record["warnings"]:
        console.print(f"Warning: {warning}", style="bold", markup=False)
    tables = (metric_table(record), answer_table(record), row_table(record), feature_table(record))
    console.print(*tables, *record["summary"], sep="\n", markup=False)


def metric_table(record: Record) -> Table:
    """Every metric and its difference from a constant prediction, also at the table's own prevalence."""
    table = _table("", "bundle", "minus constant", "at own prevalence", "minus constant")
    own, gain = (record["at_own_prevalence"][key] for key in ("metrics", "constant_guess"))
    for name, one in record["metrics"].items():
        difference = figure(record["constant_guess"]["difference"][name])
        label = name.upper() if name in ("auc", "ece") else name.replace("_", " ")
        there = (figure(own[name]), figure(gain["difference"][name])) if name in own else ("", "")
        table.add_row(label, figure(one), difference, *there)
    return table


def answer_table(record: Record) -> Table:
    """Each answer: how often it is given, how often it is right, and the bundle's own statement."""
    table = _table("answers", "at a prevalence of", "answered", "right in", "bundle's statement")
    for one in record["answers"].values():
        at = f"{one['prevalence']:.0%}"
        for name, told in one["classes"].items():
            right = "–" if told["predictive_value"] is None else figure(told["predictive_value"])
            table.add_row(name, at, str(told["answered"]), right, "–" if told["said"] is None else figure(told["said"]))
        table.add_row("indeterminate", at, str(one["indeterminate"]), "", f"{one['withheld']} of them withheld")
    return table


def row_table(record: Record) -> Table:
    """Whole and cut tumours separately, independent of the rows that the other tables use."""
    negative, positive = record["endpoint"]["negative"], record["endpoint"]["positive"]
    table = _table("tumours", "patients", positive, "AUC", "Brier", f"coverage {negative}", f"coverage {positive}")
    for name, one in record["rows"].items():
        if one is None:
            table.add_row(name, "0", *[""] * 5)
            continue
        figures = (one["auc"], one["brier"], one["coverage"][negative], one["coverage"][positive])
        said = ("–" if each is None else figure(each) for each in figures)
        table.add_row(name, str(one["patients"]), str(one["positives"]), *said)
    return table


def feature_table(record: Record) -> Table:
    """Each feature compared with its training distribution."""
    table = _table("", "PSI", "", "shift in IQR", "below", "above", "missing")
    for name, one in record["features"].items():
        shift = one["median_shift_in_iqr"]
        shares = (f"{one[part]:.0%}" for part in ("below", "above", "missing"))
        said = "" if shift is None else f"{shift:+.2f}"
        table.add_row(name.removeprefix("original_"), f"{one['psi']:.2f}", one["verdict"], said, *shares)
    return table


def figure(one: Mapping[str, float]) -> str:
    """Write a value with its interval."""
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
