"""``lungstage contour``: convert a contour of another tool to a SEG, as a draft or confirmed by a person."""

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
        Path, typer.Option("--from", metavar="SEG|NIFTI", help="File of the other tool: a DICOM SEG or a NIfTI mask.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the new SEG.")],
    segment: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of the segment, if the SEG has several.", show_default=False),
    ] = None,
    label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Value of the region's voxels in a NIfTI mask.", show_default=False),
    ] = None,
    component: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of the part, if the region has separate parts; the largest is 1.",
            show_default=False,
        ),
    ] = None,
    confirmed_by: Annotated[
        str | None,
        typer.Option(
            "--confirmed-by",
            metavar="NAME",
            help="Person who checked the contour and confirms it. Without this option it is a draft.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a contour of another tool to a DICOM SEG that lungstage can use. Research use only.

    Without --confirmed-by the contour is a draft: "lungstage stage" and the daemon refuse it.
    """
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
            "draft": "draft: not confirmed by a person; lungstage stage and the daemon refuse it (research use only)",
            "confirmed": "confirmed: lungstage stage and the daemon accept it (research use only)",
        }
        x, y, z = roi["centre"]
        lines = [
            what[answer["status"]],
            f"region: {roi['name']}, {roi['voxels']} voxels, {roi['volume_mm3'] / 1000:.2f} ml, centre "
            f"({x:.1f}, {y:.1f}, {z:.1f}) mm",
            f"contour (SEG): {answer['seg']}",
        ]
    return "\n".join(map(printable, lines))
