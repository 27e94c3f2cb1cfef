"""The commands about the past: ``lungstage audit``, ``lungstage show`` and ``lungstage replay``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lungstage.appliance.cli.options import BundleOption, ConfigOption, JsonOption, StateOption, state_folder
from lungstage.appliance.config.text import printable
from lungstage.appliance.contract.errors import ExitStatus, LungstageError, Refused, Unavailable
from lungstage.appliance.dicom.names import counted

if TYPE_CHECKING:
    from lungstage.appliance.dicom.header import Header
    from lungstage.appliance.report.readback import Account
    from lungstage.appliance.state.chain import Verdict
    from lungstage.appliance.state.job import Job

ACCESS_LOG = "page"
"""Folder of the page's access log in the state folder (:data:`page.settings.FOLDER`)."""

audit = typer.Typer(
    help="Check or print the audit log: the record of every job's files, bundle and answer.", no_args_is_help=True
)


class NoSuchJobError(LungstageError):
    """There is no job with this number."""


@audit.command()
def verify(
    state: StateOption = None,
    config: ConfigOption = None,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="HASH",
            help="Last hash that an earlier check printed. The log must still contain it.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the audit log is complete and unchanged.

    Every entry contains the hash of the entry before.
    If an entry does not fit, the command shows the first one. Exit status 3.
    The access log of the page is checked too, if there is one.
    """
    from lungstage.appliance.state.audit import numbered
    from lungstage.appliance.state.chain import verify as walk

    folder = state_folder(state, config)
    jobs = (
        _jobs(folder) if (folder / "ledger.sqlite").is_file() else None
    )  # read before the log, because the daemon writes the log first
    verdict = walk(folder, jobs, expected=expect)
    own = folder / ACCESS_LOG
    access = walk(own) if own.is_dir() and numbered(own) else None
    if as_json:
        typer.echo(json.dumps({**asdict(verdict), "access": access and asdict(access)}, indent=2))
    else:
        typer.echo(_verdict_in_words(verdict))
        if access is not None:
            typer.echo(f"access log of the page:\n{_verdict_in_words(access)}")
    if verdict.fault is not None or (access is not None and access.fault is not None):
        raise typer.Exit(ExitStatus.REFUSED)


@audit.command()
def dump(
    state: StateOption = None,
    config: ConfigOption = None,
    access: Annotated[bool, typer.Option("--access", help="Print the access log of the page instead.")] = False,
) -> None:
    """Print every entry of the audit log as one line of JSON."""
    from lungstage.appliance.state.chain import entries

    folder = state_folder(state, config)
    for entry in entries(folder / ACCESS_LOG if access else folder):
        typer.echo(json.dumps(entry.as_dict()))


def show(
    job_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the job, from lungstage jobs.")],
    state: StateOption = None,
    config: ConfigOption = None,
    full: Annotated[bool, typer.Option("--full", help="Also show UIDs, hashes and paths.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one job: its answer and warnings, then its history.

    The history lists every state with its reason,
    the number of instances that were used, and the documents that were written.
    """
    from lungstage.appliance.cli import jobs as job_tables
    from lungstage.appliance.cli import story
    from lungstage.appliance.config.settings import alert_age
    from lungstage.appliance.state.job_history import job_history
    from lungstage.appliance.state.jobs import utc_now

    folder = state_folder(state, config)
    job = next((job for job in _jobs(folder) if job.id == job_id), None)
    if job is None:
        raise NoSuchJobError(f"There is no job {job_id}. `lungstage jobs` lists all jobs.")
    history = job_history(job, folder)
    if not as_json:
        story.show(history, full=full)
        return
    told = {
        "job": job_tables.row(job, late=job.waits_longer_than(alert_age(config), utc_now())),
        "entries": [entry.as_dict() for entry in history.entries],
        "instances": history.instances,
        "documents": dict(history.documents),
    }
    typer.echo(json.dumps(told, indent=2))


def replay(
    report: Annotated[Path, typer.Argument(metavar="SR", help="Structured report (SR) that lungstage wrote.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="File or folder with the original CT and region. May be repeated. "
            "By default, the files that the state folder lists.",
            show_default=False,
        ),
    ] = None,
    bundle: BundleOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a report again from its original files, and list every difference.

    Exit status 3 if the new report is not identical to the old one, bit for bit.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of pydicom quote values, and a value may be a person's name
        try:
            answer = _replay(report, inputs, bundle, state, config)
        except Refused as error:  # the report or the bundle
            reason = {"code": str(error.reason.code), "message": error.reason.message}
            answer = _answer("refused", reason=reason)
    typer.echo(json.dumps(answer, allow_nan=False) if as_json else _replay_in_words(answer))
    if answer["status"] != "reproduced":
        raise typer.Exit(ExitStatus.REFUSED)


def _replay(
    path: Path, inputs: list[Path] | None, bundle: Path | None, state: Path | None, config: Path | None
) -> dict[str, Any]:
    from contextlib import nullcontext

    from lungstage.appliance.config.disks import held
    from lungstage.appliance.config.settings import SettingsError, setting_of
    from lungstage.appliance.config.shipped import bundle_folder
    from lungstage.appliance.model.bundle import load_bundle
    from lungstage.appliance.replay.originals import Witness
    from lungstage.appliance.replay.reproduce import replay
    from lungstage.appliance.report.readback import read_back

    report = read_back(path)
    model = bundle or setting_of("bundle", config)
    if model is None:
        raise SettingsError("Give the bundle with --bundle, or the daemon's settings file with --config.")
    try:
        folder = state_folder(state, config)
    except SettingsError:
        if inputs is None:
            raise
        folder = None
    has_log = folder is not None and folder.is_dir()
    with (
        held(folder, shared=True) if folder is not None and has_log else nullcontext()
    ):  # so that no original is deleted in the meantime
        witness = Witness.of(folder, report.account) if folder is not None and has_log else Witness()
        headers = _originals(inputs, folder, report.account)
        result = replay(report, headers, load_bundle(bundle_folder(model), engine=report.account.engine), witness)
    notes = [*result.notes]
    if result.changes and not witness.documents:
        notes.append(
            "This report is in no audit log. The content of its original files could not be compared one by one."
        )
    changes = [asdict(change) for change in result.changes]
    return _answer("changed" if changes else "reproduced", report.account.sop_instance_uid, changes, notes)


def _originals(inputs: list[Path] | None, folder: Path | None, account: Account) -> tuple[Header, ...]:
    from lungstage.appliance.replay.originals import from_state
    from lungstage.appliance.staging.one_shot import scan

    if inputs is not None:
        return scan(inputs).headers
    if folder is None or not (folder / "ledger.sqlite").is_file():
        raise Unavailable(f"There is no ledger in {folder}. Give the original files with --inputs.")
    return from_state(folder, account)


def _answer(
    status: str, sr: str | None = None, changes: Iterable[Any] = (), notes: Iterable[str] = (), reason: Any = None
) -> dict[str, Any]:
    return {"status": status, "reason": reason, "sr": sr, "changes": list(changes), "notes": list(notes)}


def _replay_in_words(answer: dict[str, Any]) -> str:
    lines = [f"note: {note}" for note in answer["notes"]]
    if answer["status"] == "refused":
        lines.append(f"refused: {answer['reason']['message']} [{answer['reason']['code']}]")
    elif answer["status"] == "reproduced":
        lines.append(f"reproduced bit for bit: {answer['sr']}")
    else:
        lines.append(f"not reproduced: {answer['sr']}")
        lines += [f"  {change['what']}: {change['message']}" for change in answer["changes"]]
    return "\n".join(map(printable, lines))


def _jobs(folder: Path) -> tuple[Job, ...]:
    from lungstage.appliance.state.database import DatabaseReader
    from lungstage.appliance.state.jobs import Jobs

    if not (folder / "ledger.sqlite").is_file():
        raise Unavailable(f"There is no ledger in {folder}. Give the daemon's state folder with --state.")
    with DatabaseReader(folder / "ledger.sqlite") as database:
        return Jobs(database).find()


def _verdict_in_words(verdict: Verdict) -> str:
    lines = [
        f"entry {seq} was written after a crash had left {size} bytes of an incomplete line"
        for seq, size in verdict.recovered
    ]
    if verdict.torn:
        lines.append(f"the last {verdict.torn} bytes are an incomplete line; the next start of the daemon repairs this")
    if verdict.first > 1:
        lines.append(f"entries 1 to {verdict.first - 1} are not in this folder; they may be in an archive")
    if verdict.fault is not None:
        fault = verdict.fault
        return "\n".join([*lines, f"not complete or changed: {fault.file}, line {fault.line}: {fault.why}"])
    files = counted(verdict.files, "file")
    lines.append(f"complete and unchanged: {verdict.entries} entries in {files}, up to number {verdict.last}")
    if verdict.jobs is not None:
        lines.append(f"they contain all {verdict.jobs} jobs that the ledger lists as delivered since the first entry")
    return "\n".join([*lines, f"last hash: {verdict.sha256}"])
