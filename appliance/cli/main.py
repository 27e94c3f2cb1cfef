"""The command line ``lungstage``: it parses the options, runs one use case and sets the exit status.

0 done, 1 internal error, 2 wrong usage, 3 data or bundle refused or held, 4 a disk, folder or port was unavailable.
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
    ADVANCED,
    SETTINGS,
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
    help="Read CT and a tumour contour (DICOM), and write a report with a model's answer. "
    "Research use only; not a medical device.\n\n"
    'First steps: "lungstage demo" shows an example, "lungstage stage" answers one study, '
    '"lungstage run" watches a folder.',
    no_args_is_help=True,
    add_completion=False,
    # The tracebacks of typer print local variables, and these contain patient data.
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
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print version and licences, and end."),
    ] = False,
) -> None:
    pass


_WHICH, _OUTPUT = "Which jobs", "Output"
_DAEMON, _JOBS, _CHECKS = "Run the daemon", "See and repeat its jobs", "Check results and software"
_STUDIES, _NETWORK = "Try it, and answer single studies", "Connect to the DICOM network"


# The help lists the panels in the order of their first commands.
app.command(rich_help_panel=_STUDIES)(one_shot.demo)
app.command(rich_help_panel=_STUDIES)(one_shot.stage)
app.command(rich_help_panel=_STUDIES)(one_shot.measure)
app.command(rich_help_panel=_STUDIES)(contour.contour)


@app.command(rich_help_panel=_DAEMON)
def run(
    inbox: InboxOption = None,
    outbox: OutboxOption = None,
    bundle: BundleOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    trusted_key: TrustedOption = None,
    roi: Annotated[
        str | None,
        typer.Option(
            help="Name of the region of interest (ROI) to measure, instead of the bundle's own rule.",
            show_default=False,
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            metavar="text|json",
            help="Format of the log lines on stderr.",
            show_default=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    create: Annotated[
        bool,
        typer.Option("--create", help="Create the inbox folder if it does not exist.", rich_help_panel=ADVANCED),
    ] = False,
) -> None:
    """Watch the inbox folder, and write a report for each complete study (daemon).

    Give --inbox, --outbox and --bundle, or a settings file with --config.
    An option takes precedence over the file.
    "lungstage settings" lists all other settings.

    The daemon prints "ready" when it has started.
    SIGTERM or SIGINT stops it after the current job.
    """
    from lungstage.appliance.config import logs
    from lungstage.appliance.config.settings import SettingsError, given_settings, load_settings
    from lungstage.appliance.intake.watch import Wake

    given: dict[str, Any] = {"inbox": inbox, "outbox": outbox, "bundle": bundle, "state": state}
    given |= {"trusted_keys": trusted_key or None, "roi_name": roi, "log_format": log_format}
    if (
        config is None
        and not any((inbox, outbox, bundle))
        and not given_settings().keys() & {"inbox", "outbox", "bundle"}
    ):
        raise SettingsError(
            "Give --inbox, --outbox and --bundle, or a settings file with --config. "
            "For example: lungstage run --inbox DIR --outbox DIR --bundle lung1-stage"
        )
    settings = load_settings(config, given)
    logs.configure(settings.log_format, settings.log_level)
    wake = Wake()

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        wake.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Import this only now: it takes a second, and a signal in that time must already stop the daemon.
    from lungstage.appliance.daemon.start import serve

    serve(settings, wake, lambda: print("ready", flush=True), create=create)  # noqa: T201


def _ledger_of(state: Path | None, config: Path | None) -> Path:
    path = state_folder(state, config) / "ledger.sqlite"
    if not path.is_file():
        raise Unavailable(f"There is no ledger in {path.parent}. Give the daemon's state folder with --state.")
    return path


@app.command(rich_help_panel=_JOBS)
def jobs(
    state: StateOption = None,
    config: ConfigOption = None,
    only: Annotated[
        list[JobState] | None,
        typer.Option(
            metavar="STATE",
            help=f"Only jobs in this state: {', '.join(JobState)}. May be repeated.",
            show_default=False,
            rich_help_panel=_WHICH,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="UID",
            help="Only jobs of the study with this Study Instance UID.",
            show_default=False,
            rich_help_panel=_WHICH,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only jobs that changed since this date (2026-11-01) or in this time (90min, 2h, 7d).",
            show_default=False,
            rich_help_panel=_WHICH,
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Only jobs of the patient with this Patient ID.",
            show_default=False,
            rich_help_panel=_WHICH,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the N newest jobs.", show_default=False, rich_help_panel=_WHICH),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.", rich_help_panel=_OUTPUT)] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a table of comma-separated values (CSV).", rich_help_panel=_OUTPUT)
    ] = False,
    files: Annotated[
        bool,
        typer.Option("--files", help="List the files that could not be read, not the jobs.", rich_help_panel=_OUTPUT),
    ] = False,
    paths: Annotated[
        bool,
        typer.Option(
            "--paths",
            help="With --files: show their paths. Paths may contain names of patients.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
) -> None:
    """List the jobs of the daemon: one line for each case, with state and answer or reason.

    A job that waits for too long (setting alert_after_seconds) is marked with !.
    """
    from lungstage.appliance.cli import jobs as job_tables
    from lungstage.appliance.config.settings import alert_age
    from lungstage.appliance.state.database import DatabaseReader
    from lungstage.appliance.state.file_table import FileRecords
    from lungstage.appliance.state.jobs import Jobs, utc_now

    if as_csv and (as_json or files):
        raise typer.BadParameter("use it without --json and --files", param_hint="--csv")
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
    """Hash a Patient ID with the state folder's key, because the ledger does not contain the ID itself."""
    from lungstage.appliance.dicom.identity import patient_key
    from lungstage.appliance.state.secret import identity_key

    wanted = patient.strip()
    if not wanted:
        raise typer.BadParameter("the Patient ID is empty; give one", param_hint="--patient")
    return patient_key(wanted, identity_key(state, make=False))


@app.command(rich_help_panel=_JOBS)
def requeue(
    job_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the job, from lungstage jobs.")],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Process a delivered, refused or held job again.

    The running daemon does this. If no daemon is running, the next one does it after its start.
    """
    from lungstage.appliance.state.database import Database
    from lungstage.appliance.state.ledger import Ledger

    job = Ledger(Database(_ledger_of(state, config))).requeue(job_id)
    typer.echo(f"Job {job.id} will be processed again.")


@app.command(rich_help_panel=_DAEMON)
def backup(
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="Archive to write, for example lungstage-2025-01-31.tar.")
    ],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy ledger and audit log into one archive. The daemon can keep running.

    docs/maintenance.md explains how to restore the archive.
    """
    from lungstage.appliance.state.backup import back_up

    kept = back_up(state_folder(state, config), to)
    sizes = ", ".join(f"{name} ({size} bytes)" for name, size in kept.members)
    typer.echo(f"{kept.path}: {kept.jobs} jobs; {sizes}")


@app.command(rich_help_panel=_DAEMON)
def health(state: StateOption = None, config: ConfigOption = None) -> None:
    """Check that the daemon works: exit status 0 if it does, 4 if not.

    It checks ledger, heartbeat, overdue jobs and the last canary (test study).
    "lungstage doctor" checks the whole machine.
    """
    from lungstage.appliance.state.database import DatabaseReader
    from lungstage.appliance.state.heartbeat import prove_alive

    folder = state_folder(state, config)
    if (folder / "ledger.sqlite").exists():
        DatabaseReader(folder / "ledger.sqlite").close()
    try:
        beat = prove_alive(folder)
    except Unavailable as error:
        raise Unavailable(
            f"{error} Run `lungstage doctor`: it checks the whole machine and says what to do."
        ) from error
    typer.echo(
        f"last heartbeat {beat.at.isoformat(timespec='seconds')}; "
        f"{beat.files} files, {beat.in_hand} jobs being processed"
    )


@app.command(rich_help_panel=_CHECKS)
def verify(
    bundle: Annotated[
        Path,
        typer.Argument(
            parser=bundle_folder, metavar="BUNDLE", help="Folder of the bundle, or the name of a shipped one."
        ),
    ],
    trusted_key: TrustedOption = None,
) -> None:
    """Check a model bundle: hashes, signature, and self-test on this machine.

    The self-test computes or draws a generated phantom (golden case) and compares it.
    Exit status 3 if a check fails.
    """
    from lungstage.appliance.model.bundle import load_bundle
    from lungstage.appliance.model.bundle_files import no_bundle
    from lungstage.appliance.model.contour_bundle import draws_contours, load_contour_bundle
    from lungstage.appliance.model.signature import read_public_keys

    if not os.path.isdir(bundle):
        raise no_bundle(bundle)  # of either kind
    load = load_contour_bundle if draws_contours(bundle) else load_bundle
    verified = load(bundle, trusted=read_public_keys(trusted_key or ()))
    name = f"{verified.manifest.name} {verified.manifest.version}"
    typer.echo(f"{name} is complete and passes its self-test: {verified.digest}")
    typer.echo(f"It is signed by {verified.signer}." if verified.signer else "It is not signed.")


@app.command(rich_help_panel=_DAEMON)
def doctor(
    inbox: InboxOption = None,
    outbox: OutboxOption = None,
    bundle: BundleOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    trusted_key: TrustedOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check everything that the daemon needs, and say how to solve each problem.

    Give the same options or settings file as for "lungstage run".
    It prints one line for each check. Exit status 3 if there is a problem.
    """
    from lungstage.appliance.doctor import examination
    from lungstage.appliance.doctor.finding import Verdict

    given: dict[str, Any] = {"inbox": inbox, "outbox": outbox, "bundle": bundle, "state": state}
    given |= {"trusted_keys": trusted_key or None}
    findings = examination.examine(config, given)
    typer.echo(examination.as_json(findings) if as_json else examination.in_words(findings))
    if examination.worst(findings) is Verdict.PROBLEM:
        raise typer.Exit(ExitStatus.REFUSED)


@app.command(rich_help_panel=_DAEMON)
def settings(
    config: ConfigOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Explain every setting. This is the default.")] = False,
    template: Annotated[
        bool, typer.Option("--template", help="Print a settings file with all settings and comments instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Show every setting: its value, where the value comes from, its default and its meaning."""
    from lungstage.appliance.config import explain as explaining

    if template and (explain or as_json or config):
        raise typer.BadParameter("use it without any other option", param_hint="--template")
    if template:
        typer.echo(explaining.template())
        return
    explained = explaining.explain(config)
    typer.echo(explaining.as_json(explained) if as_json else explaining.in_words(explained))


@app.command(rich_help_panel=_CHECKS)
def commission(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="TOML file of the plan, or a folder that contains plan.toml.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the sheet; by default 'reports' beside the plan.", show_default=False),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Record the results of the reference cases again. They replace the expected results."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a site's acceptance checks by a plan, and write a sheet to sign.

    Run it before the first use, and again after every change.
    Exit status 3 if a check fails.
    docs/commissioning.md explains the plan and the checks.
    """
    import warnings
    from datetime import datetime

    from lungstage.appliance.commissioning import protocol, sheet
    from lungstage.appliance.commissioning.verdict import Verdict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of pydicom quote values, and a value may be a person's name
        report = protocol.commission(plan, datetime.now().astimezone(), record=record)
    beside = plan if plan.is_dir() else plan.parent
    paths = sheet.write_sheets(report, out or beside / "reports")
    if as_json:
        typer.echo(sheet.as_json(report), nl=False)
    else:
        typer.echo("\n".join([*sheet.summary(report), f"{report.verdict}: {paths[-1]}"]))
    if report.verdict is Verdict.FAIL:
        raise typer.Exit(ExitStatus.REFUSED)


app.command(rich_help_panel=_CHECKS)(history.replay)
app.command(rich_help_panel=_JOBS)(history.show)
app.add_typer(history.audit, name="audit", rich_help_panel=_CHECKS)
app.add_typer(page.page, name="page", rich_help_panel=_JOBS)
app.add_typer(gateway.gateway, name="gateway", rich_help_panel=_NETWORK)
app.command("check-report", rich_help_panel=_CHECKS)(check_report.check_report)
app.command(rich_help_panel=_DAEMON)(service.install_service)
app.command(rich_help_panel=_DAEMON)(service.uninstall_service)


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
    # Imports make a hundred thousand objects that stay. Searching them for cycles again and again takes a third of a
    # short command's time. The daemon turns the collector on again after its start.
    gc.disable()
    try:
        sys.exit(app(standalone_mode=True))
    except (Refused, Held) as error:
        _fail(ExitStatus.REFUSED, f"{error} [{error.reason.code}]")
    except Unavailable as error:
        _fail(ExitStatus.UNAVAILABLE, str(error))
    except LungstageError as error:  # settings, requeue: the request cannot be fulfilled
        _fail(ExitStatus.USAGE, str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.DONE)
    except OSError as error:
        _fail(ExitStatus.UNAVAILABLE, f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": "))
    except Exception as error:
        # The message is left out, because it may quote a person's data from a file.
        about = defect(error)
        _fail(ExitStatus.DEFECT, f"internal error (please report it): {about['error']} at {about['frames']}")


if __name__ == "__main__":
    main()
