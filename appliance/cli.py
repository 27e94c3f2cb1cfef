"""The command line, ``lungstage``: parses, calls one use case, and ends with an exit status that scripts can trust.

0 done, 1 a defect of ours, 2 usage, 3 the data or the bundle was refused or held, 4 something was unavailable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from appliance import __version__, lookback
from appliance.errors import ExitStatus, Held, Refused, Unavailable
from appliance.job import JobState
from appliance.options import (
    BundleOption,
    ConfigOption,
    InboxOption,
    JsonOption,
    OutboxOption,
    StateOption,
    TrustedOption,
)

if TYPE_CHECKING:
    from appliance.database import Database
    from appliance.filetable import FileRecord
    from appliance.ledger import Ledger


app = typer.Typer(
    name="lungstage",
    help="From CT and a region of interest to a structured report. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    # typer's own tracebacks print local variables, which hold patient data.
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lungstage {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    inbox: InboxOption = None,
    outbox: OutboxOption = None,
    bundle: BundleOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    trusted_key: TrustedOption = None,
    roi: Annotated[
        str | None, typer.Option(help="ROI to use instead of the bundle's rule.", show_default=False)
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.", show_default=False)] = None,
) -> None:
    """Watch a folder and write a structured report for each study that is complete.

    Prints "ready" when it watches. SIGTERM or SIGINT ends it after the job in hand.
    """
    from appliance import logs
    from appliance.settings import load_settings
    from appliance.watch import Wake

    given: dict[str, Any] = {"inbox": inbox, "outbox": outbox, "bundle": bundle, "state": state}
    given |= {"trusted_keys": trusted_key or None, "roi_name": roi, "log_format": log_format}
    settings = load_settings(config, given)
    logs.configure(settings.log_format, settings.log_level)
    wake = Wake()

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal is meant
        wake.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Only now: loading the runtime takes a second in which a signal must already be heeded.
    from appliance.daemon import serve

    serve(settings, wake, lambda: print("ready", flush=True))  # noqa: T201


def _open_ledger(state: Path | None, config: Path | None) -> Ledger:
    from appliance.ledger import Ledger

    return Ledger(_open_database(state, config))


def _open_files(state: Path | None, config: Path | None) -> tuple[FileRecord, ...]:
    from appliance.filetable import FileTable

    return FileTable(_open_database(state, config), reader=__version__).unreadable()


def _open_database(state: Path | None, config: Path | None) -> Database:
    from appliance.database import Database
    from appliance.settings import state_of

    folder = state_of(state, config)
    if not (folder / "ledger.sqlite").is_file():
        raise Unavailable(f"There is no ledger in {folder}; --state names the state folder of the daemon.")
    return Database(folder / "ledger.sqlite")


@app.command()
def jobs(
    state: StateOption = None,
    config: ConfigOption = None,
    only: Annotated[
        list[JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.", show_default=False)
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only jobs of this Study Instance UID.", show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only jobs that changed since a date (2026-11-01) or age (2h).", show_default=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    files: Annotated[bool, typer.Option("--files", help="List the files that could not be read instead.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="With --files: their paths, which may name patients.")] = False,
) -> None:
    """List the jobs: which studies came, what became of each, and which wait for too long (!)."""
    from appliance import joblist
    from appliance.ledger import utc_now
    from appliance.settings import alert_age

    if files:
        listed = joblist.files_listed(_open_files(state, config), as_json=as_json, paths=paths)
        typer.echo(listed, nl=bool(listed))
        return
    now = utc_now()
    try:
        moment = None if since is None else joblist.moment(since, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    ledger, age = _open_ledger(state, config), alert_age(config)
    found = ledger.jobs(states=only or (), study=study, since=moment, limit=limit)
    rows = [joblist.row(job, late=joblist.waits_too_long(job, now, age)) for job in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    joblist.show(rows)
    typer.echo(joblist.summary(ledger.counts(), len(rows), ledger.oldest_waiting(), now, age))


@app.command()
def requeue(
    job_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Have a delivered, refused or held job's case examined afresh by the running daemon, or by the next."""
    job = _open_ledger(state, config).requeue(job_id)
    typer.echo(f"Job {job.id} will be examined afresh.")


@app.command()
def backup(
    to: Annotated[Path, typer.Option("--to", help="The archive to write, say lungstage-2025-01-31.tar.")],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy ledger and audit log into one archive, while the daemon works; docs/maintenance.md says how to restore."""
    from appliance.backup import back_up
    from appliance.settings import state_of

    kept = back_up(state_of(state, config), to)
    sizes = ", ".join(f"{name} ({size} bytes)" for name, size in kept.members)
    typer.echo(f"{kept.path}: {kept.jobs} jobs; {sizes}")


@app.command()
def health(state: StateOption = None, config: ConfigOption = None) -> None:
    """Exit 0 while the daemon of a state folder goes round its loop and its canaries come through; else 4."""
    from appliance.heartbeat import prove_alive
    from appliance.settings import state_of

    alive = prove_alive(state_of(state, config))
    typer.echo(f"alive at {alive.at.isoformat(timespec='seconds')}; {alive.files} files, {alive.in_hand} in hand")


PathsArgument = Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, or folders of them.")]
RoiOption = Annotated[str | None, typer.Option("--roi", help="ROI to measure, instead of by rule.", show_default=False)]
GeometryOption = Annotated[
    bool,
    typer.Option("--match-by-geometry", help="Go by position where the ROI's image references resolve to nothing."),
]
SaveOption = Annotated[
    Path | None, typer.Option("--save-volume", help="Folder for volume and mask as NIfTI.", show_default=False)
]
EngineOption = Annotated[
    Literal["compiled", "reference"], typer.Option(help="What computes the features; reference: PyRadiomics itself.")
]
GridOption = Annotated[
    Literal["pyradiomics", "ibsi"],
    typer.Option(help="Process images as PyRadiomics does, or as IBSI's manual has it (docs/ibsi.md)."),
]


@app.command()
def stage(
    paths: PathsArgument,
    bundle: Annotated[Path, typer.Option(help="Folder of the model bundle.")],
    out: Annotated[Path, typer.Option(help="Folder for the structured report.")],
    roi: RoiOption = None,
    match_by_geometry: GeometryOption = False,
    save_volume: SaveOption = None,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Share of the positive class at this site, to correct to.", show_default=False),
    ] = None,
    covariates: Annotated[
        Path | None, typer.Option(help="CSV of covariates, which outranks the header.", show_default=False)
    ] = None,
    engine: EngineOption = "compiled",
    trusted_key: TrustedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stage one study from files or folders, and write its structured report."""
    from appliance.bundle import load_bundle
    from appliance.covariates import Site
    from appliance.oneshot import Options, stage_paths
    from appliance.signature import read_public_keys

    if prevalence is not None and not 0 < prevalence < 1:
        raise typer.BadParameter("a prevalence lies between 0 and 1", param_hint="--prevalence")

    def run_once() -> dict[str, Any]:
        options = Options(roi, match_by_geometry, save_volume, Site.read(prevalence, covariates))
        verified = load_bundle(bundle, engine=engine, trusted=read_public_keys(trusted_key or ()))
        return stage_paths(paths, verified, out, options)

    _answer(run_once, as_json)


@app.command()
def measure(
    paths: PathsArgument,
    spec: Annotated[str, typer.Option(help="PyRadiomics parameter file, or 'all': the 106 at default settings.")],
    roi: RoiOption = None,
    match_by_geometry: GeometryOption = False,
    save_volume: SaveOption = None,
    engine: EngineOption = "compiled",
    grid: GridOption = "pyradiomics",
    as_json: JsonOption = False,
) -> None:
    """Measure the features of one study, without a model."""
    from appliance.oneshot import Options, measure_paths
    from appliance.radiomics import parameters
    from appliance.roi_rule import ROI_RULE

    options = Options(roi, match_by_geometry, save_volume)

    def run_once() -> dict[str, Any]:
        return measure_paths(paths, ROI_RULE, replace(parameters.read(spec, grid), engine=engine), options)

    _answer(run_once, as_json)


def _answer(run_once: Callable[[], dict[str, Any]], as_json: bool) -> None:
    """Print what a one-shot command found, and exit 3 where it was held or refused."""
    import warnings

    from appliance.outcome import outcome

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote what they mind, and that may be a person's name
            answer = run_once()
    except Refused as error:  # the bundle, the spec or a table; the data's own refusals are outcomes already
        answer = outcome(status="refused", reason=error.reason)
    typer.echo(json.dumps(answer, allow_nan=False) if as_json else _in_words(answer))
    if answer["status"] != "staged":
        raise typer.Exit(ExitStatus.REFUSED)


def _in_words(answer: dict[str, Any]) -> str:
    """Put an outcome into lines for a person."""
    from appliance.joblist import printable

    return "\n".join(map(printable, _lines_of(answer)))


def _lines_of(answer: dict[str, Any]) -> list[str]:
    lines = [f"warning: {warning}" for warning in answer["warnings"]]
    if answer["reason"] is not None:
        return [*lines, f"{answer['status']}: {answer['reason']['message']} [{answer['reason']['code']}]"]
    roi = answer["roi"]
    lines.append(f"region: {roi['name']}, {roi['voxels']} voxels, {roi['volume_mm3'] / 1000:.2f} ml")
    if answer["domain"] is None:  # measured, and no model asked
        return [*lines, *(f"{name}: {value}" for name, value in answer["features"].items())]
    endpoint = answer.get("endpoint")
    if endpoint is None:
        lines.append(f"stage: {answer['stage']} (research use only)")
        lines.append(f"probability of advanced stage: {100 * answer['probability_advanced']:.1f} %")
    else:
        lines.append(f"{endpoint['name']}: {endpoint['answer']} (research use only)")
        lines.append(f"probability of the positive class: {100 * endpoint['probability']:.1f} %")
    strongest = sorted(answer["contributions"].items(), key=lambda item: -abs(item[1]))[:5]
    lines.append("strongest contributions (logit): " + ", ".join(f"{name} {value:+.3f}" for name, value in strongest))
    return [*lines, f"report: {answer['sr']}"] if answer["sr"] else lines


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the model bundle.")],
    trusted_key: TrustedOption = None,
) -> None:
    """Hold a bundle's bytes to their hashes and its signature, and let it prove itself on this machine."""
    from appliance.bundle import load_bundle
    from appliance.signature import read_public_keys

    proven = load_bundle(bundle, trusted=read_public_keys(trusted_key or ()))
    typer.echo(f"{proven.manifest.name} {proven.manifest.version} is whole and gives its golden case: {proven.digest}")
    typer.echo(f"It is signed by {proven.signer}." if proven.signer else "It is not signed.")


@app.command()
def doctor(
    inbox: InboxOption = None,
    outbox: OutboxOption = None,
    bundle: BundleOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    trusted_key: TrustedOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at all that a daemon with these settings needs; one line each, with the remedy. Ends with 3 on a problem."""
    from appliance.doctor import examination
    from appliance.doctor.finding import Verdict

    given: dict[str, Any] = {"inbox": inbox, "outbox": outbox, "bundle": bundle, "state": state}
    given |= {"trusted_keys": trusted_key or None}
    findings = examination.examine(config, given)
    typer.echo(examination.as_json(findings) if as_json else examination.in_words(findings))
    if examination.worst(findings) is Verdict.PROBLEM:
        raise typer.Exit(ExitStatus.REFUSED)


@app.command()
def settings(
    config: ConfigOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Explain every setting; this is also what happens without an option.")
    ] = False,
    template: Annotated[bool, typer.Option("--template", help="Print a settings file to begin with instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Say which settings are in force, where each comes from, its default and what it means."""
    from appliance import explain as explaining

    if template and (explain or as_json or config):
        raise typer.BadParameter("a template comes alone", param_hint="--template")
    if template:
        typer.echo(explaining.template())
        return
    explained = explaining.explain(config)
    typer.echo(explaining.as_json(explained) if as_json else explaining.in_words(explained))


@app.command()
def commission(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="TOML file of the plan, or the folder of a plan.toml.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report; by default 'reports' beside the plan.", show_default=False),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Record the reference cases anew, in place of what was expected of them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Accept the appliance at a site, and check that it stays what it was; exit 3 where a check fails."""
    import warnings
    from datetime import datetime

    from appliance.commissioning import protocol, sheet
    from appliance.commissioning.verdict import Verdict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote what they mind, and that may be a person's name
        report = protocol.commission(plan, datetime.now().astimezone(), record=record)
    beside = plan if plan.is_dir() else plan.parent
    paths = sheet.write_sheets(report, out or beside / "reports")
    if as_json:
        typer.echo(sheet.as_json(report), nl=False)
    else:
        typer.echo("\n".join([*sheet.summary(report), f"{report.verdict}: {paths[-1]}"]))
    if report.verdict is Verdict.FAIL:
        raise typer.Exit(ExitStatus.REFUSED)


@app.command()
def demo(
    bundle: Annotated[Path, typer.Option(help="Folder of the model bundle.")] = Path("models/lung1-stage"),
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for inbox, outbox and state; by default a temporary one.")
    ] = None,
) -> None:
    """Send a generated phantom study through the real daemon, and read its report back."""
    import tempfile

    from appliance.demo import run_demo

    place = folder or Path(tempfile.mkdtemp(prefix="lungstage-demo-"))
    result = run_demo(bundle, place)
    typer.echo(_in_words(result.outcome))
    typer.echo(f"report came {result.seconds:.1f} s after the last file, and was read back: {result.title}")


app.command()(lookback.replay)
app.command()(lookback.show)
app.add_typer(lookback.audit, name="audit")


def _fail(status: ExitStatus, sentence: str) -> NoReturn:
    print(f"lungstage: {sentence}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


def main() -> NoReturn:
    """Run the command line and end the process with its exit status."""
    import gc

    from appliance.errors import LungstageError
    from appliance.logs import defect

    # Imports make a hundred thousand objects that stay; looking through them again and again for cycles is a third of
    # a short command's time. The daemon turns it on again once it has started.
    gc.disable()
    try:
        sys.exit(app(standalone_mode=True))
    except (Refused, Held) as error:
        _fail(ExitStatus.REFUSED, f"{error} [{error.reason.code}]")
    except Unavailable as error:
        _fail(ExitStatus.UNAVAILABLE, str(error))
    except LungstageError as error:  # settings, requeue: what was asked for cannot be done
        _fail(ExitStatus.USAGE, str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.DONE)
    except OSError as error:
        _fail(ExitStatus.UNAVAILABLE, f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": "))
    except Exception as error:
        # The message is left out: it may quote what a file says of a person.
        told = defect(error)
        _fail(ExitStatus.DEFECT, f"a defect of ours: {told['error']} at {told['frames']}")


if __name__ == "__main__":
    main()
