"""``lungstage check-report``: check a structured report against the rules."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lungstage.appliance.cli.options import JsonOption
from lungstage.appliance.contract.errors import ExitStatus


def check_report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Structured report (SR), a DICOM file.", readable=False)],
    as_json: JsonOption = False,
) -> None:
    """Check a structured report against the rules of TID 1500 and IHE AI Results.

    Exit status 3 if the report breaks a rule.
    """
    from lungstage.appliance.report.preflight import RULES, faults_in

    faults = faults_in(file.read_bytes())
    if as_json:
        typer.echo(json.dumps({"rules": len(RULES), "faults": [asdict(fault) for fault in faults]}, indent=2))
    else:
        for fault in faults:
            typer.echo(f"{fault.rule}: {fault.sentence} Found at: {fault.where}")
        typer.echo(
            f"{len(faults)} faults, {len(RULES)} rules checked." if faults else f"All {len(RULES)} rules are met."
        )
    if faults:
        raise typer.Exit(ExitStatus.REFUSED)
