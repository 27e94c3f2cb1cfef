"""``lungstage stage --batch``: a progress bar, a line for each study in results.csv, and a summary."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from lungstage.appliance.cli.answers import warnings_of
from lungstage.appliance.config.text import cell, printable
from lungstage.appliance.contract.errors import ExitStatus, ReasonCode
from lungstage.appliance.dicom.names import counted
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.staging.batch import Studies, find_studies, stage_each
from lungstage.appliance.staging.one_shot import Options, ignored_in_words

_COLUMNS = (
    "study_instance_uid", "status", "answer", "probability", "warnings", "reason_code", "reason", "roi", "volume_mm3",
    "distance", "outside", "sr", "pdf",
)  # fmt: skip


def run_batch(
    paths: Sequence[Path], bundle: Bundle, out: Path, options: Options, *, as_json: bool, files: bool
) -> ExitStatus:
    """Answer every study below some paths.

    Parameters
    ----------
    paths, bundle, out, options
        As for :func:`staging.batch.stage_each`.
    as_json
        Print one line of JSON for each study, and nothing else, to stdout.
    files
        List the files that could not be read.

    Returns
    -------
    ExitStatus
        Done; refused if any study was refused or held; a defect if any study had an internal error.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    counts: Counter[tuple[str, str]] = Counter()
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.csv"
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        open(results, "w", encoding="utf-8", newline="") as file,
    ):
        bar = progress.add_task("reading files", total=None)
        found = find_studies(paths)
        progress.update(bar, description="studies", total=len(found.files))
        features = bundle.manifest.feature_names
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*_COLUMNS, *features])
        for study, answer in stage_each(found, bundle, out, options):
            table.writerow(map(cell, (*_cells(study, answer), *_values(answer, features))))
            file.flush()  # so that the results so far are kept if the process ends
            counts[_kind(answer)] += 1
            if as_json:
                typer.echo(json.dumps({"study_instance_uid": study} | answer, allow_nan=False))
            progress.advance(bar)
    if not as_json:
        _summary(counts, found, results)
    if files:
        for path, why in found.unreadable:
            typer.echo(printable(f"{path}: {why}"), err=as_json)
    if any(reason == ReasonCode.INTERNAL_ERROR for _, reason in counts):
        return ExitStatus.DEFECT
    return ExitStatus.DONE if all(status == "staged" for status, _ in counts) else ExitStatus.REFUSED


def _kind(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a study is counted under: its status, and its answer or reason code."""
    reason = answer["reason"]
    told = reason["code"] if reason else answer["answer"]
    return answer["status"], str(told)


def _cells(study: str, answer: Mapping[str, Any]) -> Iterator[object]:
    reason, roi, domain = (answer[key] or {} for key in ("reason", "roi", "domain"))
    yield from (study, answer["status"], answer["answer"], answer["probability"], len(warnings_of(answer)))
    yield from (reason.get("code"), reason.get("message"), roi.get("name"), roi.get("volume_mm3"))
    yield from (domain.get("distance"), " ".join(domain.get("outside", ())))
    yield from (answer["sr"], (answer["documents"] or {}).get("pdf"))


def _values(answer: Mapping[str, Any], features: Sequence[str]) -> Iterator[object]:
    values = answer["features"] or {}
    return (values.get(name) for name in features)


def _summary(counts: Counter[tuple[str, str]], found: Studies, results: Path) -> None:
    """Print the number of studies for each result, and where the table is."""
    from rich.console import Console
    from rich.table import Table

    table = Table("studies", "status", "answer or reason", title="lungstage: research use only", title_justify="left")
    for (status, told), count in sorted(counts.items(), key=lambda item: (item[0][0] != "staged", -item[1], item[0])):
        table.add_row(str(count), status, printable(told))
    Console(highlight=False).print(table)
    typer.echo(f"{counts.total()} studies; one line for each in {results}.")
    if found.ignored:
        typer.echo(ignored_in_words(found.ignored))
    if found.unreadable:
        typer.echo(f"{counted(len(found.unreadable), 'DICOM file')} could not be read; --files lists them.")
