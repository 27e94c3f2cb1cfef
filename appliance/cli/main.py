"""The command line, ``lungstage``: parses, calls one use case, and ends with an exit status that scripts can trust.

0 done, 1 a defect of ours, 2 usage, 3 the data or the bundle was refused or held, 4 something was unavailable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lungstage.appliance import __version__
from lungstage.appliance.cli import check_report, contour, gateway, history, one_shot, page, service
from lungstage.appliance.cli.options import (
    BundleOption,
    ConfigOption,
    InboxOption,
    JsonOption,
    OutboxOption,
    StateOption,
    TrustedOption,
    state_folder,
)
from lungstage.appliance.config.shipped import bundle_folder, shipped_licences
from lungstage.appliance.contract.errors import ExitStatus, Held, Refused, Unavailable
from lungstage.appliance.state.job import JobState

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
        typer.echo(f"Licences: {'; '.join(['Apache-2.0 (code)', *shipped_licences()])}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print version and licences, and exit."),
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
    create: Annotated[bool, typer.Option("--create", help="Make the inbox where it is not there.")] = False,
) -> None:
    """Watch a folder and write a structured report for each study that is complete.

    Prints "ready" when it watches. SIGTERM or SIGINT ends it after the job in hand.
    """
    from lungstage.appliance.config import logs
    from lungstage.appliance.config.settings import load_settings
    from lungstage.appliance.intake.watch import Wake

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
    from lungstage.appliance.daemon.start import serve

    serve(settings, wake, lambda: print("ready", flush=True), create=create)  # noqa: T201


def _ledger_of(state: Path | None, config: Path | None) -> Path:
    path = state_folder(state, config) / "ledger.sqlite"
    if not path.is_file():
        raise Unavailable(f"There is no ledger in {path.parent}; --state names the state folder of the daemon.")
    return path


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
    patient: Annotated[
        str | None, typer.Option(help="Only jobs of the patient with this Patient ID.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table of comma-separated values.")] = False,
    files: Annotated[bool, typer.Option("--files", help="List the files that could not be read instead.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="With --files: their paths, which may name patients.")] = False,
) -> None:
    """List the jobs: which studies came, what became of each, and which wait for too long (!)."""
    from lungstage.appliance.cli import jobs as job_tables
    from lungstage.appliance.config.settings import alert_age
    from lungstage.appliance.state.database import DatabaseReader
    from lungstage.appliance.state.file_table import FileRecords
    from lungstage.appliance.state.jobs import Jobs, utc_now

    if as_csv and (as_json or files):
        raise typer.BadParameter("choose one form", param_hint="--csv")
    ledger = _ledger_of(state, config)
    database = DatabaseReader(ledger)
    if files:
        listed = job_tables.files_listed(FileRecords(database).unreadable(), as_json=as_json, paths=paths)
        typer.echo(listed, nl=bool(listed))
        return
    now = utc_now()
    try:
        moment = None if since is None else job_tables.moment(since, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    known, age = Jobs(database), alert_age(config)
    key = None if patient is None else _key_of(patient, ledger.parent)
    found = known.find(states=only or (), study=study, patient_key=key, since=moment, limit=limit)
    late = {job.id for job in found if job.waits_longer_than(age, now)}
    if as_json:
        typer.echo(json.dumps([job_tables.row(job, late=job.id in late) for job in found], indent=2))
        return
    if as_csv:
        typer.echo(job_tables.as_csv(found), nl=False)
        return
    job_tables.show(found, late)
    typer.echo(job_tables.summary(known.counts(), len(found), known.oldest_waiting(), now, age))
    if note := job_tables.clock_note(found, now):
        typer.echo(note)


def _key_of(patient: str, state: Path) -> str:
    """Hash a Patient ID as the state folder's files are; the ledger does not know the ID itself."""
    from lungstage.appliance.dicom.identity import patient_key
    from lungstage.appliance.state.secret import identity_key

    wanted = patient.strip()
    if not wanted:
        raise typer.BadParameter("which patient? A Patient ID is wanted", param_hint="--patient")
    return patient_key(wanted, identity_key(state, make=False))


@app.command()
def requeue(
    job_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Have a delivered, refused or held job's case examined afresh by the running daemon, or by the next."""
    from lungstage.appliance.state.database import Database
    from lungstage.appliance.state.ledger import Ledger

    job = Ledger(Database(_ledger_of(state, config))).requeue(job_id)
    typer.echo(f"Job {job.id} will be examined afresh.")


@app.command()
def backup(
    to: Annotated[Path, typer.Option("--to", help="The archive to write, say lungstage-2025-01-31.tar.")],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy ledger and audit log into one archive, while the daemon works; docs/maintenance.md says how to restore."""
    from lungstage.appliance.state.backup import back_up

    kept = back_up(state_folder(state, config), to)
    sizes = ", ".join(f"{name} ({size} bytes)" for name, size in kept.members)
    typer.echo(f"{kept.path}: {kept.jobs} jobs; {sizes}")


@app.command()
def health(state: StateOption = None, config: ConfigOption = None) -> None:
    """Exit 0 while the ledger is sound, the daemon goes round its loop and its canaries come through; else 4."""
    from lungstage.appliance.state.database import DatabaseReader
    from lungstage.appliance.state.heartbeat import prove_alive

    folder = state_folder(state, config)
    if (folder / "ledger.sqlite").exists():
        DatabaseReader(folder / "ledger.sqlite").close()
    try:
        alive = prove_alive(folder)
    except Unavailable as error:
        raise Unavailable(f"{error} `lungstage doctor` looks at the whole machine, and says what helps.") from error
    typer.echo(f"alive at {alive.at.isoformat(timespec='seconds')}; {alive.files} files, {alive.in_hand} in hand")


@app.command()
def verify(
    bundle: Annotated[
        Path, typer.Argument(parser=bundle_folder, metavar="BUNDLE", help="Its folder, or the name of a shipped one.")
    ],
    trusted_key: TrustedOption = None,
) -> None:
    """Hold a bundle's bytes to their hashes and its signature, and let it prove itself on this machine."""
    from lungstage.appliance.model.bundle import load_bundle
    from lungstage.appliance.model.signature import read_public_keys

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
    from lungstage.appliance.doctor import examination
    from lungstage.appliance.doctor.finding import Verdict

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
    from lungstage.appliance.config import explain as explaining

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

    from lungstage.appliance.commissioning import protocol, sheet
    from lungstage.appliance.commissioning.verdict import Verdict

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


app.command()(one_shot.stage)
app.command()(one_shot.measure)
app.command()(contour.contour)
app.command()(one_shot.demo)
app.command()(history.replay)
app.command()(history.show)
app.add_typer(history.audit, name="audit")
app.add_typer(page.page, name="page")
app.add_typer(gateway.gateway, name="gateway")
app.command("check-report")(check_report.check_report)
app.command()(service.install_service)
app.command()(service.uninstall_service)


def _fail(status: ExitStatus, sentence: str) -> NoReturn:
    print(f"lungstage: {sentence}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


def main() -> NoReturn:
    """Run the command line and end the process with its exit status."""
    import gc

    from lungstage.appliance.config.logs import defect
    from lungstage.appliance.config.offline import without_requests
    from lungstage.appliance.contract.errors import LungstageError

    without_requests()
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
