"""Draw a new contour from a prompt: a person's diameter, box or point on the CT (``lungstage contour --diameter``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance import __version__
from lungstage.appliance.contour.drawing import CERTAIN_MM, Mask, draw
from lungstage.appliance.contour.prompts import Prompt
from lungstage.appliance.contour.windows import Point, Window, covered, extent
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.cases import assemble, the_one_case
from lungstage.appliance.dicom.completeness import ReferenceSlices
from lungstage.appliance.dicom.files import with_pixel_digest
from lungstage.appliance.dicom.geometry import prove_regular
from lungstage.appliance.dicom.identity import prove_one_patient
from lungstage.appliance.dicom.series import read_volume
from lungstage.appliance.dicom.stack import Stack
from lungstage.appliance.model.contour_bundle import ContourBundle
from lungstage.appliance.report.contour import Origin
from lungstage.appliance.staging.contouring import Drawn, affine_of, images_of, write_contour
from lungstage.appliance.staging.one_shot import Scan

NAME: Final = "Tumour"
"""Name of a region that a person draws here. The ROI rule accepts it."""

MOST_CORRECTIONS: Final = 400
"""Points of all corrections together; a stroke of the brush consists of points."""

LEAST_MM: Final = 5.0
MOST_MM: Final = 200.0
"""Limits of a diameter, and of the longest side of a box."""

_SAME_SLICE_MM = 2.0  # the ends of a line in one slice differ by rounding only
_FAR_MM = 40.0  # beyond twice the expected radius, a correction is a slip of the mouse
_AIR_HU = -850  # a line through ground glass has more than that
_BONE_HU = 300
_INNER = 0.8  # of the line: its ends may lie in lung
_STEPS = 41


def draw_contour(
    paths: Sequence[Path], prompt: Prompt, bundle: ContourBundle, out: Path, *, confirmed_by: str | None = None
) -> dict[str, Any]:
    """Draw the tumour that a prompt points at on the one CT series in `paths`, and write it as a SEG.

    Parameters
    ----------
    paths
        Files or folders.
    prompt
        What a person has drawn, in patient coordinates.
    bundle
        The network that draws.
    out
        Folder for the SEG; it is created.
    confirmed_by
        Name of the person who confirms the contour; None for a draft.

    Returns
    -------
    dict
        As :func:`staging.contouring.take_over`.

    Raises
    ------
    PersonNameError, Unavailable, OSError
        As :func:`staging.contouring.take_over`.
    """
    return write_contour(paths, partial(_drawn, prompt=prompt, bundle=bundle), out, confirmed_by=confirmed_by)


def _drawn(found: Scan, prompt: Prompt, bundle: ContourBundle) -> Drawn:
    require_size(prompt)
    require_corrections(prompt)
    case = the_one_case(assemble(images_of(found)), lambda one: True)
    prove_one_patient(case.headers)
    stack = Stack.of(case.images)
    spacing = prove_regular(stack.images, stack.normal, stack.depths)
    first = stack.images[0]
    grid = hd.VolumeGeometry(
        affine_of(first, spacing), (len(stack.images), first.rows, first.columns), coordinate_system="PATIENT"
    )
    require_inside(prompt, grid)
    require_one_slice(prompt, grid, stack.normal, spacing[0])
    shown, _, _ = covered(grid, Window.around(prompt.centre, prompt.span, grid))
    images = tuple(with_pixel_digest(image) for image in stack.images[shown])
    volume = read_volume(ReferenceSlices(images, spacing, ())).volume
    mask = draw_checked(volume, prompt, bundle)
    return Drawn(images, affine_of(images[0], spacing), mask, NAME, origin_of(bundle, prompt), is_whole=True)


def draw_checked(volume: hd.Volume, prompt: Prompt, bundle: ContourBundle, base: Mask | None = None) -> Mask:
    """Draw a contour (:func:`contour.drawing.draw`), and refuse a prompt beside every tumour.

    Raises
    ------
    Refused
        ``prompt_unsuitable``: the prompt lies in air or bone, or nothing was found there.
    """
    if base is None:
        require_tissue(prompt, volume)
    mask = draw(volume, prompt, bundle.network, base)
    if not mask.any():
        raise _refused(
            "The corrections leave nothing of the contour. Take the last one back" if prompt.corrections
            else "No contour was found there. Draw the longest diameter of the tumour, from edge to edge"
        )  # fmt: skip
    return mask


def origin_of(bundle: ContourBundle, prompt: Prompt) -> Origin:
    """Return how a contour was drawn, for its SEG: the network, and everything that it was given."""
    told = [(prompt.kind, prompt.points), ("include", prompt.include), ("exclude", prompt.exclude)]
    account = [(kind, " ".join(map(_told, points))) for kind, points in told if points]
    if prompt.smooth:
        account.append(("smooth", f"{prompt.smooth:g} mm"))
    manifest = bundle.manifest
    return Origin(
        f"lungstage {manifest.name}", manifest.version, f"lungstage {__version__}",
        account=(*account, ("bundle", bundle.digest[:12])),
    )  # fmt: skip


def _place(point: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.1f}' for value in point)}) mm"


def _told(point: Point) -> str:
    return ",".join(f"{value:.1f}" for value in point)


def require_size(prompt: Prompt) -> None:
    """Refuse a prompt that cannot be that of a tumour, whatever the CT shows."""
    if not all(math.isfinite(value) for point in (*prompt.points, *prompt.corrections) for value in point):
        raise _refused("A coordinate of the prompt is not a number. Give x,y,z in mm")
    if prompt.kind == "point":
        return
    first, second = prompt.points
    sides = [abs(a - b) for a, b in zip(first, second, strict=True)]
    size, what = (math.dist(first, second), "diameter") if prompt.kind == "diameter" else (max(sides), "box")
    if not LEAST_MM <= size <= MOST_MM:
        raise _refused(
            f"The {what} measures {size:.4g} mm. It must measure {LEAST_MM:g} to {MOST_MM:g} mm. Draw it from edge to "
            "edge of the tumour"
        )
    if prompt.kind == "box" and min(sides) < 1:
        raise _refused("The box is flat. Give two opposite corners that differ in x, y and z")


def require_corrections(prompt: Prompt) -> None:
    """Refuse too many corrections, and a point that belongs to the tumour and does not."""
    if len(prompt.corrections) > MOST_CORRECTIONS:
        raise _refused(
            f"There are too many corrections. At most {MOST_CORRECTIONS} points are possible. Confirm these, and "
            "correct anew"
        )
    for point in prompt.include:
        if any(math.dist(point, other) <= CERTAIN_MM for other in prompt.exclude):
            raise _refused(
                f"The point {_place(point)} is said to belong to the tumour, and not to belong to it. Keep one of the "
                "two corrections"
            )


def require_inside(prompt: Prompt, grid: hd.VolumeGeometry) -> None:
    """Refuse points outside the CT, and corrections far from the tumour.

    Half a voxel beyond the outer centres still belongs to the CT.
    """
    points = np.array([(*point, 1.0) for point in (*prompt.points, *prompt.corrections)])
    at = (np.linalg.inv(grid.affine) @ points.T)[:3].T
    outside = ((at < -0.5) | (at > np.array(grid.spatial_shape) - 0.5)).any(axis=1)
    if outside.any():
        (x, y, z), (x_end, y_end, z_end) = extent(grid)
        raise _refused(
            f"The point {_place(points[outside][0][:3])} lies outside the CT. The CT extends in x from {x:.1f} to "
            f"{x_end:.1f} mm, in y from {y:.1f} to {y_end:.1f} mm, in z from {z:.1f} to {z_end:.1f} mm. Give patient "
            "coordinates x,y,z in mm, as the viewer shows them"
        )
    furthest = 2 * prompt.reach + _FAR_MM
    for point in prompt.corrections:
        if (distance := math.dist(prompt.centre, point)) > furthest:
            raise _refused(
                f"The correction at {_place(point)} lies {distance:.0f} mm from the middle of the tumour. At most "
                f"{furthest:.0f} mm are possible. Take it back, or draw a new contour"
            )


def require_one_slice(prompt: Prompt, grid: hd.VolumeGeometry, normal: npt.NDArray[np.float64], step: float) -> None:
    """Refuse a diameter whose ends lie neither in one acquired slice nor in one axial plane of voxels.

    Parameters
    ----------
    prompt, grid
        What a person has drawn, and the voxels of the CT.
    normal, step
        (3,) unit vector across the acquired slices, and their distance in mm.
    """
    if prompt.kind != "diameter":
        return
    line = np.subtract(*map(np.array, prompt.points))
    steps = np.linalg.norm(grid.affine[:3, :3], axis=0)
    axial = int(np.argmax(np.abs(grid.affine[2, :3] / steps)))
    across, axially = abs(float(line @ normal)), abs(float(line @ grid.affine[:3, axial] / steps[axial]))
    if across > max(_SAME_SLICE_MM, step) and axially > max(_SAME_SLICE_MM, float(steps[axial])):
        raise _refused(
            f"The ends of the diameter lie on different slices, {across:.1f} mm apart. Draw both ends in one slice"
        )


def require_tissue(prompt: Prompt, volume: hd.Volume) -> None:
    """Refuse a prompt that lies in air or bone."""
    values = _along(prompt, volume)
    middle = float(np.median(values))
    if middle < _AIR_HU or middle > _BONE_HU:
        raise _refused(
            f"The prompt lies in {'air or healthy lung' if middle < _AIR_HU else 'bone'} (median {middle:.0f} HU). "
            "Draw it across the tumour"
        )


def _along(prompt: Prompt, volume: hd.Volume) -> npt.NDArray[np.float64]:
    """HU of the nearest voxels along the middle of the line, or along the middle of the box."""
    centre = np.array(prompt.centre)
    half = np.zeros(3) if prompt.kind == "point" else (np.array(prompt.points[1]) - prompt.points[0]) / 2
    shares = np.linspace(-_INNER, _INNER, _STEPS)[:, None]
    places = np.concatenate([centre + shares * half, np.ones((_STEPS, 1))], axis=1)
    at = np.rint((np.linalg.inv(volume.affine) @ places.T)[:3]).astype(int)
    at = np.clip(at, 0, np.array(volume.spatial_shape)[:, None] - 1)
    values: npt.NDArray[np.float64] = np.asarray(volume.array[tuple(at)], dtype=np.float64)
    return values


def _refused(message: str) -> Refused:
    return Refused(ReasonCode.PROMPT_UNSUITABLE, f"{message}.")
