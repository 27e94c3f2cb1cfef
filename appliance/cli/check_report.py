"""The command that holds a structured report to the rules, ``lungstage check-report``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lungstage.appliance.cli.options import JsonOption
from lungstage.appliance.contract.errors import ExitStatus


def check_report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A structured report.", readable=False)],
    as_json: JsonOption = False,
) -> None:
    """Hold a structured report to TID 1500 and IHE's AI Results; exit 3 where it breaks a rule."""
    from lungstage.appliance.report.preflight import RULES, faults_in

    faults = faults_in(file.read_bytes())
    if as_json:
        typer.echo(json.dumps({"rules": len(RULES), "faults": [asdict(fault) for fault in faults]}, indent=2))
    else:
        for fault in faults:
            typer.echo(f"{fault.rule}: {fault.sentence} Broken by: {fault.where}")
        typer.echo(f"{len(faults)} faults, {len(RULES)} rules." if faults else f"All {len(RULES)} rules hold.")
    if faults:
        raise typer.Exit(ExitStatus.REFUSED)
