"""What a validation found, in sentences and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from lungstage.training.validation.shift import LARGE

MIN_PATIENTS: Final = 100
"""Of each class: Collins GS, Ogundimu EO, Altman DG. Sample size considerations for the external validation of a
multivariable prognostic model. Stat Med 35(2), 2016."""

Record = Mapping[str, Any]

_WIDTH: Final = 160  # more than any of the tables needs


def warnings(record: Record) -> list[str]:
    """Tell what makes the figures doubtful, the gravest first."""
    told = []
    if record["trained_on_this_table"]:
        told.append(
            "THE BUNDLE WAS TRAINED ON THIS VERY TABLE. These are no external figures: they say nothing about patients "
            "that it has not seen."
        )
    if record["asked"] != record["endpoint"]["name"]:
        told.append(
            f"The bundle predicts {record['endpoint']['name']!r}, and the table's answers are those of "
            f"{record['asked']!r}. Whether both are the same question is for you to know: it cannot be checked."
        )
    if differences := record["extraction"]["differences"]:
        told.append(
            f"The table was measured otherwise than the bundle measures ({'; '.join(differences)}): "
            "the figures are those of wrong inputs."
        )
    if not record["extraction"]["declared"]:
        told.append(
            "The table does not declare how it was measured, so its numbers may not mean what the bundle's inputs mean."
        )
    table = record["table"]
    fewest = min(table["positives"], table["used"] - table["positives"])
    if fewest < MIN_PATIENTS:
        told.append(
            f"There are {fewest} patients of the rarer class; {MIN_PATIENTS} are advised at the least "
            "(Collins, Ogundimu & Altman 2016), so read the intervals and not the values."
        )
    return told


def summary(record: Record) -> list[str]:
    """Say what was found."""
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
        f"Its probabilities are {better} a constant guess at the training prevalence: Brier score "
        f"{figure(metrics['brier'])}, difference {figure(lift['brier'])}.",
        f"{prevalence['table']:.0%} of the patients are {record['endpoint']['positive']}, in training "
        f"{prevalence['training']:.0%}. The share observed less that predicted is {figure(surplus)}; with every logit "
        f"shifted by {prevalence['logit_shift']:+.2f} it is {figure(own['calibration']['in_the_large'])}, "
        f"and the Brier score {figure(own['metrics']['brier'])}.",
        f"At this cohort's own prevalence they are {better_own} a constant guess at it: Brier score "
        f"{figure(own['metrics']['brier'])}, difference {figure(lift_own)}. Recalibration there: slope "
        f"{figure(slope)}, intercept {figure(intercept)} (1 and 0 are best); lungstage-export recalibrate makes a "
        "bundle version of it.",
        f"The true class stays possible in {covered}, where {1 - conformal['alpha']:.0%} were aimed at; "
        f"{figure(conformal['indeterminate'])} are left indeterminate.",
        f"{domain['warn']['either']:.0%} of the tumours lie so far from training that the appliance would warn, and "
        f"{domain['max']['either']:.0%} so far that it would refuse.",
        f"{len(shifted)} of {len(record['features'])} features show a large shift against training (PSI above {LARGE}, "
        f"and above what chance reaches){': ' if shifted else ''}{', '.join(shifted)}.",
    ]


def print_validation(record: Record, console: Console) -> None:
    """Print what ``validation.json`` holds: warnings, tables, and what they say in words.

    A table is as wide as it has to be: what a narrow terminal wraps can be read, what is cut off cannot.
    """
    console = Console(file=console.file, width=max(_WIDTH, console.width), soft_wrap=True)
    for warning in record["warnings"]:
        console.print(f"Warning: {warning}", style="bold", markup=False)
    tables = (metric_table(record), answer_table(record), row_table(record), feature_table(record))
    console.print(*tables, *record["summary"], sep="\n", markup=False)


def metric_table(record: Record) -> Table:
    """Every metric and its gain over a constant guess, and both at the table's own prevalence."""
    table = _table("", "bundle", "less constant guess", "at own prevalence", "less constant guess")
    own, gain = (record["at_own_prevalence"][key] for key in ("metrics", "constant_guess"))
    for name, one in record["metrics"].items():
        difference = figure(record["constant_guess"]["difference"][name])
        label = name.upper() if name in ("auc", "ece") else name.replace("_", " ")
        there = (figure(own[name]), figure(gain["difference"][name])) if name in own else ("", "")
        table.add_row(label, figure(one), difference, *there)
    return table


def answer_table(record: Record) -> Table:
    """Each class that is answered: how often, how often rightly, and what the bundle says of that."""
    table = _table("answers", "at a prevalence of", "answered", "right in", "said by the bundle")
    for one in record["answers"].values():
        at = f"{one['prevalence']:.0%}"
        for name, told in one["classes"].items():
            right = "–" if told["predictive_value"] is None else figure(told["predictive_value"])
            table.add_row(name, at, str(told["answered"]), right, "–" if told["said"] is None else figure(told["said"]))
        table.add_row("indeterminate", at, str(one["indeterminate"]), "", f"{one['withheld']} of them withheld")
    return table


def row_table(record: Record) -> Table:
    """Whole and cut tumours, each by itself, whichever the figures above rest on."""
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
    """Each feature beside its training envelope."""
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
