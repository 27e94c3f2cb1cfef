"""``lungstage-train``: fit and evaluate models from a feature table."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from appliance.errors import ExitStatus, ReasonCode, Refused, Unavailable
from appliance.radiomics import parameters
from training import evaluation as evaluating
from training import fit as fitting
from training.cohort import Cohort, read_cohort
from training.folds import QUICK, Procedure
from training.folds import Progress as Report
from training.metrics import METRICS

app = typer.Typer(
    help="Train and evaluate lung cancer staging models from radiomic features. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


TableArgument = Annotated[
    Path, typer.Argument(metavar="TABLE", help="Feature table (CSV).", exists=True, dir_okay=False)
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run.", file_okay=False)]
CohortOption = Annotated[
    Path | None,
    typer.Option(
        "--cohort",
        metavar="FILE",
        help="TOML description of the table; default is the one beside it, else one known by the table's hash.",
        exists=True,
        dir_okay=False,
    ),
]
CutOption = Annotated[bool, typer.Option("--keep-cut-rows", help="Use rows with roi_touches_crop_edge as well.")]
SeedOption = Annotated[int, typer.Option(min=0, help="The one seed that everything random derives from.")]
MembersOption = Annotated[int | None, typer.Option(min=1, help="Networks in the ensemble. [default: 10]")]
RepeatsOption = Annotated[int | None, typer.Option(min=1, help="Repeats of the 5-fold. [default: 3]")]
QuickOption = Annotated[bool, typer.Option("--quick", help="Tiny settings, to try the commands; worthless figures.")]


@app.command()
def measure(
    cohort: Annotated[
        Path, typer.Argument(metavar="COHORT.csv", help="patient_id, path, roi, stage.", exists=True, dir_okay=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="features.csv", help="The feature table.", dir_okay=False)
    ],
    spec: Annotated[
        str, typer.Option(help="PyRadiomics parameter file, or 'all': the 106 at default settings.")
    ] = "all",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    match_by_geometry: Annotated[
        bool, typer.Option("--match-by-geometry", help="Go by position where image references resolve to nothing.")
    ] = False,
) -> None:
    """Measure a cohort of CT and ROI with the appliance's own extraction; refused cases are listed beside the table."""
    from training import measure as measuring

    subjects = measuring.read_subjects(cohort)
    chosen = parameters.read(spec)
    done: dict[str, measuring.Measured] = {}
    with _progress() as report:
        for one in measuring.measure_cohort(subjects, chosen, workers=workers, match_by_geometry=match_by_geometry):
            done[one.subject.patient_id] = one
            report("measured", len(done), len(subjects))
    in_order = [done[subject.patient_id] for subject in subjects]
    out.parent.mkdir(parents=True, exist_ok=True)
    measuring.write_table(in_order, chosen, cohort, out)
    refused = sum(one.features is None for one in in_order)
    console = Console()
    console.print(f"{len(in_order) - refused} measured, {refused} refused ({out.with_suffix('.refused.csv').name})")
    if refused == len(in_order):
        raise Refused(ReasonCode.TABLE_INVALID, "No case of the cohort could be measured.")


@app.command()
def fit(
    table: TableArgument,
    out: OutOption,
    cohort: CohortOption = None,
    keep_cut_rows: CutOption = False,
    seed: SeedOption = 0,
    members: MembersOption = None,
    repeats: RepeatsOption = None,
    quick: QuickOption = False,
) -> None:
    """Fit a model to TABLE; write RUN/model.npz and RUN/run.json."""
    used = read_cohort(table, cohort, keep_cut_rows=keep_cut_rows)
    every_row = used if keep_cut_rows else read_cohort(table, cohort, keep_cut_rows=True)
    procedure = _procedure(seed, members, repeats, quick)
    with _staged(out) as staging, _progress() as report:
        run = fitting.fit(used, every_row, procedure, report)
        run.save(staging)
    figures = run.record["out_of_fold"]["auc"]
    console = Console()
    console.print(_cohort_line(used), soft_wrap=True)
    console.print(f"AUC, out of fold: {figures['value']:.2f} ({figures['low']:.2f} to {figures['high']:.2f})")
    console.print("Selected: " + ", ".join(run.model.features), soft_wrap=True)


@app.command()
def evaluate(
    table: TableArgument,
    out: OutOption,
    cohort: CohortOption = None,
    keep_cut_rows: CutOption = False,
    seed: SeedOption = 0,
    members: MembersOption = None,
    repeats: RepeatsOption = None,
    quick: QuickOption = False,
) -> None:
    """Evaluate the procedure on TABLE next to its comparators; write RUN/evaluation.json."""
    used = read_cohort(table, cohort, keep_cut_rows=keep_cut_rows)
    procedure = _procedure(seed, members, repeats, quick)
    with _staged(out) as staging, _progress() as report:
        evaluation, _ = evaluating.evaluate(used, procedure, report)
        evaluation["versions"] = fitting.versions()
        text = json.dumps(evaluation, indent=2, sort_keys=True, allow_nan=False)
        (staging / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    console = Console()
    console.print(_cohort_line(used), soft_wrap=True)
    console.print(_as_table(evaluation))


def main() -> None:
    """Run the command line; exit with :class:`ExitStatus`."""
    try:
        app()
    except Refused as refusal:
        typer.echo(f"refused: {refusal.reason.code}: {refusal.reason.message}", err=True)
        sys.exit(ExitStatus.REFUSED)
    except (OSError, Unavailable) as error:
        typer.echo(f"unavailable: {error}", err=True)
        sys.exit(ExitStatus.UNAVAILABLE)


def _procedure(seed: int, members: int | None, repeats: int | None, quick: bool) -> Procedure:
    base = QUICK if quick else Procedure()
    return replace(base, seed=seed, members=members or base.members, repeats=repeats or base.repeats)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out`, whose files move there once all of them are written.

    It is made at once, so that a destination that cannot be written is known before the work and not after.
    ``run.json`` goes first and comes back last: where it is, the other files belong to it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield staging
        out.mkdir(exist_ok=True)
        written = sorted(staging.iterdir(), key=lambda file: file.name == "run.json")
        if written[-1].name == "run.json":
            (out / "run.json").unlink(missing_ok=True)
        for file in written:
            file.replace(out / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _progress() -> Iterator[Report]:
    """Yield a function that shows progress on stderr."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in known:
                known[step] = bars.add_task(step, total=total)
            bars.update(known[step], completed=done)

        yield report


def _cohort_line(cohort: Cohort) -> str:
    left_out = "".join(f", {count} left out by {column}" for column, count in cohort.excluded.items() if count)
    advanced = int(cohort.stage.sum())
    return f"{cohort.description.name}: {len(cohort.stage)} patients, {advanced} advanced{left_out}"


def _as_table(evaluation: dict[str, Any]) -> Table:
    methods = evaluation["methods"]
    caption = f"Precision, recall and F1 are macro averages. Intervals: {evaluation['interval']}"
    table = Table("", box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    for method in methods:
        table.add_column(method, no_wrap=True, justify="right")
    labels = ("AUC", "accuracy", "bal. acc.", "precision", "recall", "F1", "Brier")
    for name, label in zip(METRICS, labels, strict=True):
        figures = [one[name] for one in methods.values()]
        table.add_row(label, *(f"{f['value']:.2f}\n{f['low']:.2f}–{f['high']:.2f}" for f in figures))
    conformal = [evaluation["conformal"][method] for method in methods]
    table.add_section()
    table.add_row("covers early", *(f"{c['coverage']['early']:.2f}" for c in conformal))
    table.add_row("covers adv.", *(f"{c['coverage']['advanced']:.2f}" for c in conformal))
    table.add_row("undecided", *(f"{c['indeterminate']:.2f}" for c in conformal))
    stability = [evaluation["stability"].get(method) for method in methods]
    table.add_row("stability", *("" if value is None else f"{value:.2f}" for value in stability))
    return table


if __name__ == "__main__":
    main()
