"""Results of a command on the terminal: a table with one row per method, then sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lungstage.training.benchmarking.benchmark import in_order

Record = Mapping[str, Any]

_WIDTH: Final = 128  # width of the table for a file or pipe; a narrower terminal wraps the names


def print_evaluation(evaluation: Record, console: Console) -> None:
    """Print the content of ``evaluation.json``: metrics, verdicts, demonstration of leakage if present, warnings."""
    if not console.is_terminal:
        console = Console(file=console.file, width=max(_WIDTH, console.width))
    console.print(_methods(evaluation))
    for one in evaluation["verdicts"]:
        console.print(one["sentence"], soft_wrap=True, highlight=False)
    if (leakage := evaluation["leakage"]) is not None:
        console.print(_leakage(leakage))
    for warning in evaluation["warnings"]:
        console.print(Text(f"Warning: {warning}", style="bold yellow"), soft_wrap=True)


def print_benchmark(result: Record, console: Console) -> None:
    """Print the result of :func:`training.benchmarking.benchmark.benchmark_selectors`."""
    if not console.is_terminal:
        console = Console(file=console.file, width=max(_WIDTH, console.width))
    relevant = ", ".join(f"{signal} {count}" for signal, count in result["relevant"].items())
    caption = (
        f"Share of the relevant features ({relevant}) among the {result['features']} selected, mean over "
        f"{result['tables']} tables of each signal with 95 % t interval. Second line: GL-RFE minus the selector, on "
        "the same tables."
    )
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("selector")
    for signal in result["signals"]:
        table.add_column(signal, no_wrap=True, justify="right")
    for name in in_order(result):
        cells = [one[name] for one in result["signals"].values()]
        apart = ["" if "difference" not in cell else f"\n{_estimate(cell['difference'])}" for cell in cells]
        table.add_row(
            result["labels"][name],
            *(f"{_estimate(cell['recall'])}{more}" for cell, more in zip(cells, apart, strict=True)),
            style="bold" if name == "gl_rfe" else "",
        )
    console.print(table)


def print_comparison(record: Record, console: Console) -> None:
    """Print the content of ``results.json`` of a comparison: one row per selector, then the tests in words."""
    if not console.is_terminal:
        console = Console(file=console.file, width=max(_WIDTH, console.width))
    protocol, classifiers = record["protocol"], record["classifiers"]
    caption = (
        f"{len(record['tables'])} tables, {len(record['refused'])} left out. Values are means over tables. "
        f"Protocol {protocol['sha256'][:12]}. rank: mean rank. stab.: Nogueira's stability on disjoint halves."
    )
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("selector")
    for classifier in classifiers:
        table.add_column(f"AUC, {classifier}", no_wrap=True, justify="right")
        table.add_column("rank", no_wrap=True, justify="right")
    table.add_column("stab.", no_wrap=True, justify="right")
    for name in protocol["selectors"]:
        cells = [
            cell
            for one in classifiers.values()
            for cell in (f"{one['mean_auc'][name]['value']:.3f}", _number(one["mean_rank"][name]))
        ]
        stability = _number(record["stability"][name]["halves"]["value"])
        table.add_row(record["labels"][name], *cells, stability, style="bold" if name == "gl_rfe" else "")
    console.print(table)
    for sentence in record["verdicts"]:
        console.print(sentence, soft_wrap=True, highlight=False)
    for name, why in record["refused"].items():
        console.print(Text(f"Left out: {name}: {why}", style="bold yellow"), soft_wrap=True)


def _methods(evaluation: Record) -> Table:
    methods, endpoint = evaluation["methods"], evaluation["endpoint"]
    caption = (
        f"In brackets: {evaluation['interval']}\nGL-RFE minus it: paired difference of the AUC. It is not corrected "
        f"for {len(methods) - 1} comparisons, so one in twenty excludes 0 by chance. bal. acc.: balanced accuracy. "
        "ECE: expected calibration error. Slope: calibration slope; 1 is calibrated, below 1 is overconfident. "
        f"Coverage: share of the {endpoint['negative']} and of the {endpoint['positive']} cases whose conformal set "
        "contains the true class. Indet.: share of indeterminate cases. Stab.: Nogueira's stability of the selections "
        "over the folds."
    )
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("method", overflow="fold")
    for name in ("AUC", "GL-RFE minus it", "bal.\nacc.", "Brier", "ECE", "slope", "coverage", "indet.", "stab."):
        table.add_column(name, no_wrap=True, justify="right")
    for group in range(3):
        members = [one for one in methods.values() if _group(one) == group]
        table.add_section()
        for one in sorted(members, key=lambda one: (one["difference"] is not None, -one["metrics"]["auc"]["value"])):
            table.add_row(*_cells(one, endpoint), style="bold" if one["difference"] is None else "")
    return table


def _group(method: Record) -> int:
    if method["selector"] is None:
        return 2
    return 0 if method["classifier"] == "network" else 1


def _cells(method: Record, endpoint: Record) -> list[str]:
    figures, conformal, apart = method["metrics"], method["conformal"], method["difference"]
    covered = (conformal["coverage"][endpoint[side]] for side in ("negative", "positive"))
    return [
        method["label"],
        _estimate(figures["auc"]),
        "" if apart is None else _estimate(apart["auc"]),
        *(_number(figures[name]["value"]) for name in ("balanced_accuracy", "brier", "ece", "calibration_slope")),
        " ".join(map(_number, covered)),
        _number(conformal["indeterminate"]),
        "" if method["stability"] is None else _number(method["stability"]["value"]),
    ]


def _leakage(leakage: Record) -> Table:
    table = Table(
        title="WRONG ON PURPOSE: effect of data leakage", title_style="bold red", title_justify="left", box=box.SIMPLE,
        padding=(0, 1, 0, 0), pad_edge=False, caption=leakage["warning"], caption_justify="left",
    )  # fmt: skip
    table.add_column("")
    for name in leakage["honest"]:
        table.add_column(name.replace("auc", "AUC").replace("_", " "), no_wrap=True, justify="right")
    table.add_column("what is wrong")
    table.add_row("no leakage, every repeat", *map(_estimate, leakage["honest"].values()), "nothing")
    table.add_section()
    for one in leakage["variants"]:
        table.add_row(
            f"WRONG: {one['label']}", *map(_estimate, one["metrics"].values()), one["what_is_wrong"], style="red"
        )
    return table


def _estimate(figure: Record) -> str:
    value, low, high = (_number(figure[key]) for key in ("value", "low", "high"))
    return f"{value} ({low}, {high})"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
