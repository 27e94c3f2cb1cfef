"""``lungstage contour``: draw a contour from a prompt, or convert one of another tool, to a SEG."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lungstage.appliance.cli.one_shot import PathsArgument
from lungstage.appliance.cli.options import JsonOption, out_folder
from lungstage.appliance.config.shipped import CONTOUR_BUNDLE, bundle_folder
from lungstage.appliance.contract.errors import ExitStatus

if TYPE_CHECKING:
    from lungstage.appliance.contour.prompts import Prompt

_DRAW: Final = "Draw a new contour"
_CONVERT: Final = "Convert a contour of another tool"

Place = tuple[float, float, float]


def _place(text: str) -> Place:
    """Read patient coordinates, x,y,z in mm."""
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a point. Give patient coordinates as x,y,z in mm.") from None
    if not all(map(math.isfinite, (x, y, z))):
        raise typer.BadParameter(f"{text!r} is not a point: every coordinate must be a number.")
    return x, y, z


def contour(
    paths: PathsArgument,
    out: Annotated[Path, typer.Option(parser=out_folder, metavar="DIR", help="Folder for the new SEG.")],
    diameter: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="X,Y,Z X,Y,Z",
            help="Ends of the tumour's longest diameter in one slice, in patient coordinates (mm).",
            show_default=False,
            rich_help_panel=_DRAW,
        ),
    ] = None,
    box: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="X,Y,Z X,Y,Z",
            help="Two opposite corners of a box around the tumour.",
            show_default=False,
            rich_help_panel=_DRAW,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,Z",
            help="One point inside the tumour.",
            show_default=False,
            rich_help_panel=_DRAW,
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,Z",
            help="Correction: a point that belongs to the tumour. Several are possible.",
            show_default=False,
            rich_help_panel=_DRAW,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,Z",
            help="Correction: a point that does not belong to it. Several are possible.",
            show_default=False,
            rich_help_panel=_DRAW,
        ),
    ] = None,
    bundle: Annotated[
        Path,
        typer.Option(
            parser=bundle_folder,
            metavar="BUNDLE",
            help="Bundle with the network that draws: a folder, or the name of a shipped one.",
            rich_help_panel=_DRAW,
        ),
    ] = CONTOUR_BUNDLE,  # type: ignore[assignment]
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="SEG|NIFTI",
            help="File of the other tool: a DICOM SEG or a NIfTI mask.",
            show_default=False,
            rich_help_panel=_CONVERT,
        ),
    ] = None,
    segment: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of the segment, if the SEG has several.",
            show_default=False,
            rich_help_panel=_CONVERT,
        ),
    ] = None,
    label: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Value of the region's voxels in a NIfTI mask.",
            show_default=False,
            rich_help_panel=_CONVERT,
        ),
    ] = None,
    component: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of the part, if the region has separate parts; the largest is 1.",
            show_default=False,
            rich_help_panel=_CONVERT,
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
    """Make a contour of the tumour as a DICOM SEG that lungstage can use. Research use only.

    Draw a new one from a diameter, a box or a point, or convert the contour of another tool.
    Without --confirmed-by the contour is a draft: "lungstage stage" and the daemon refuse it.
    """
    from lungstage.appliance.report.contour import PersonNameError
    from lungstage.appliance.staging.contouring import Taken, take_over
    from lungstage.appliance.staging.one_shot import OptionsError

    prompt = _prompt(diameter, box, at, include or [], exclude or [])
    try:
        if source is not None and prompt is None:
            answer = take_over(paths, Taken(source, segment, label, component, confirmed_by), out)
        elif prompt is not None and source is None:
            if any(given is not None for given in (segment, label, component)):
                raise typer.BadParameter("--segment, --label and --component need --from")
            answer = _draw(paths, prompt, bundle, out, confirmed_by)
        else:
            raise typer.BadParameter(
                "give exactly one of --diameter, --box and --at (to draw a contour) and --from (to convert one)"
            )
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error
    except PersonNameError as error:
        raise typer.BadParameter(str(error), param_hint="--confirmed-by") from error
    typer.echo(json.dumps(answer, allow_nan=False) if as_json else _in_words(answer))
    if answer["reason"] is not None:
        raise typer.Exit(ExitStatus.REFUSED)


def _prompt(
    diameter: tuple[str, str] | None,
    box: tuple[str, str] | None,
    at: str | None,
    include: list[str],
    exclude: list[str],
) -> Prompt | None:
    """Return the prompt that the options give; None without one."""
    from lungstage.appliance.contour.prompts import Kind, Prompt

    points: dict[Kind, tuple[str, ...]] = {"diameter": diameter or (), "box": box or (), "point": (at,) if at else ()}
    given: list[Kind] = [kind for kind, told in points.items() if told]
    if len(given) > 1:
        raise typer.BadParameter("give only one of --diameter, --box and --at")
    if not given and (include or exclude):
        raise typer.BadParameter("--include and --exclude correct a contour: they need --diameter, --box or --at")
    corrections = tuple(map(_place, include)), tuple(map(_place, exclude))
    return Prompt(given[0], tuple(map(_place, points[given[0]])), *corrections) if given else None


def _draw(paths: list[Path], prompt: Prompt, bundle: Path, out: Path, confirmed_by: str | None) -> dict[str, Any]:
    from lungstage.appliance.model.contour_bundle import load_contour_bundle
    from lungstage.appliance.staging.prompting import draw_contour

    return draw_contour(paths, prompt, load_contour_bundle(bundle), out, confirmed_by=confirmed_by)


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
