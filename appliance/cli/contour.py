"""``lungstage contour``: a contour of another tool as a draft, or as one that a person confirmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lungstage.appliance.cli.one_shot import PathsArgument
from lungstage.appliance.cli.options import JsonOption
from lungstage.appliance.contract.errors import ExitStatus


def contour(
    paths: PathsArgument,
    source: Annotated[
        Path, typer.Option("--from", metavar="SEG|NIFTI", help="What another tool drew: a SEG, or a NIfTI mask.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the SEG.")],
    segment: Annotated[
        int | None, typer.Option(help="Of a SEG: number of the segment, where it has several.", show_default=False)
    ] = None,
    label: Annotated[
        int | None, typer.Option(help="Of a NIfTI mask: value of the region's voxels.", show_default=False)
    ] = None,
    component: Annotated[
        int | None,
        typer.Option(help="Which separate part, where there are several; the largest is 1.", show_default=False),
    ] = None,
    confirmed_by: Annotated[
        str | None,
        typer.Option(
            "--confirmed-by",
            metavar="NAME",
            help="Who looked at it and confirms it; else it is a draft.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a SEG of a contour that another tool drew: a draft, or confirmed by a person. Research use only."""
    from lungstage.appliance.report.contour import PersonNameError
    from lungstage.appliance.staging.contouring import Taken, take_over
    from lungstage.appliance.staging.one_shot import OptionsError

    try:
        answer = take_over(paths, Taken(source, segment, label, component, confirmed_by), out)
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error
    except PersonNameError as error:
        raise typer.BadParameter(str(error), param_hint="--confirmed-by") from error
    typer.echo(json.dumps(answer, allow_nan=False) if as_json else _in_words(answer))
    if answer["reason"] is not None:
        raise typer.Exit(ExitStatus.REFUSED)


def _in_words(answer: dict[str, Any]) -> str:
    from lungstage.appliance.config.text import printable

    reason, roi = answer["reason"], answer["roi"]
    if reason is not None:
        lines = [
            f"{answer['status']}: {reason['message']} [{reason['code']}]",
            "No contour was written. Research use only.",
        ]
    else:
        what = {
            "draft": "draft: no person has confirmed it; lungstage stage and the daemon refuse it (research use only)",
            "confirmed": "confirmed: lungstage stage and the daemon take it (research use only)",
        }
        x, y, z = roi["centre"]
        lines = [
            what[answer["status"]],
            f"region: {roi['name']}, {roi['voxels']} voxels, {roi['volume_mm3'] / 1000:.2f} ml, centre "
            f"({x:.1f}, {y:.1f}, {z:.1f}) mm",
            f"contour (SEG): {answer['seg']}",
        ]
    return "\n".join(map(printable, lines))
