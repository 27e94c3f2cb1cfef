"""From a CT and a prompt to a mask, with a network that is given as a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.contour.prompts import Floats, Prompt, channels
from lungstage.appliance.contour.windows import Point, Window, bring_back, covered, sample

Mask = npt.NDArray[np.bool_]

Network = Callable[[Floats, Floats], Floats]
"""HU (z, y, x) and channels (5, z, y, x) of a window to logits (z, y, x)."""

CORRECTION_SHARE: Final = 0.75
LEAST_REACH_MM: Final = 8.0
"""A correction changes the mask within this share of the tumour's expected radius, and at least within 8 mm."""

CERTAIN_MM: Final = 1.5
"""Voxels that are this close to a correction, and its nearest voxel, follow it, whatever the network says."""


def draw(volume: hd.Volume, prompt: Prompt, network: Network, base: Mask | None = None) -> Mask:
    """Draw the tumour that a prompt points at.

    Parameters
    ----------
    volume
        CT in HU (slices, rows, columns).
    prompt
        What a person has drawn.
    network
        The network of a contour bundle.
    base
        An existing contour that the prompt corrects; None to draw a new one.

    Returns
    -------
    ndarray
        (slices, rows, columns) bool, on the CT's voxels. A new contour is one connected part without holes, before
        corrections. Corrections change it around their points only. It may be empty.
    """
    if base is None:
        drawn = np.zeros(volume.spatial_shape, dtype=bool)
        box, found, seen = _found(volume, replace(prompt, include=(), exclude=()), network)
        drawn[box] = _one_part(found, prompt.centre, seen)
    else:
        drawn = base.copy()
    for group in _groups(prompt):
        box, wanted, seen = _found(volume, group, network)
        drawn[box] = _corrected(drawn[box], wanted, group, seen.get_geometry())
    if prompt.smooth:
        drawn = smoothed(drawn, volume, prompt.smooth)
    _follow(drawn, prompt, volume.get_geometry())
    return drawn


def _groups(prompt: Prompt) -> Iterator[Prompt]:
    """Separate corrections near the expected tumour from those far away: a window for these has larger voxels."""

    def is_near(point: Point) -> bool:
        return math.dist(prompt.centre, point) <= prompt.reach + LEAST_REACH_MM

    for near in (True, False):
        include, exclude = (
            tuple(point for point in points if is_near(point) is near) for points in (prompt.include, prompt.exclude)
        )
        if include or exclude:
            yield replace(prompt, include=include, exclude=exclude)


def _found(volume: hd.Volume, prompt: Prompt, network: Network) -> tuple[tuple[Any, ...], Mask, hd.Volume]:
    """Ask the network about the surroundings of a prompt: the box of voxels that it saw, its mask, and their HU."""
    window = Window.around(prompt.centre, prompt.span, volume.get_geometry())
    box = covered(volume.get_geometry(), window)
    seen: hd.Volume = volume[box]  # a whole CT would take most of the time
    logits = network(sample(seen, window), channels(prompt, window))
    return box, bring_back(logits, window, seen.get_geometry()) > 0, seen


def _corrected(drawn: Mask, wanted: Mask, prompt: Prompt, grid: hd.VolumeGeometry) -> Mask:
    """Take over what corrections changed: around their points, and in the direction of the nearest point only."""
    reach = max(LEAST_REACH_MM, CORRECTION_SHARE * prompt.reach)
    include, exclude = (_distances(points, reach, grid) for points in (prompt.include, prompt.exclude))
    added = (include <= np.minimum(exclude, reach)) & wanted
    removed = (exclude <= reach) & (exclude < include) & ~wanted
    corrected: Mask = (drawn | added) & ~removed
    return corrected


def _follow(drawn: Mask, prompt: Prompt, grid: hd.VolumeGeometry) -> None:
    """Let the voxels at the corrections follow them, in place."""
    reach = max(CERTAIN_MM, float(np.linalg.norm(grid.affine[:3, :3], axis=0).max()))
    for points, belongs in ((prompt.include, True), (prompt.exclude, False)):
        for point in points:
            box, distance = _around(point, reach, grid)
            drawn[box][distance <= max(CERTAIN_MM, float(distance.min(initial=np.inf)))] = belongs


def _distances(points: Sequence[Point], reach: float, grid: hd.VolumeGeometry) -> Floats:
    """Distance of each voxel to the nearest point in mm, up to `reach`; larger or infinite beyond."""
    distances = np.full(grid.spatial_shape, np.inf, dtype=np.float32)
    for point in points:
        box, distance = _around(point, reach, grid)
        np.minimum(distances[box], distance, out=distances[box])
    return distances


def _around(point: Point, reach: float, grid: hd.VolumeGeometry) -> tuple[tuple[Any, ...], Floats]:
    """Box of the voxels within `reach` mm of a point, and their distances to it in mm."""
    at = (np.linalg.inv(grid.affine) @ (*point, 1.0))[:3]
    steps = np.linalg.norm(grid.affine[:3, :3], axis=0)
    first = np.maximum(np.floor(at - reach / steps), 0).astype(int)
    last = np.minimum(np.ceil(at + reach / steps) + 1, grid.spatial_shape).astype(int)
    box = tuple(slice(int(a), max(int(a), int(b))) for a, b in zip(first, last, strict=True))
    squares = [((np.arange(s.start, s.stop) - c) * step) ** 2 for s, c, step in zip(box, at, steps, strict=True)]
    distance: Floats = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2]).astype(np.float32)
    return box, distance


def smoothed(mask: Mask, volume: hd.Volume, width: float) -> Mask:
    """Smooth a mask's surface with a Gaussian of `width` mm, and keep its number of voxels."""
    import SimpleITK as sitk  # deferred, as in :mod:`radiomics.grid`

    if not mask.any():
        return mask
    steps = np.linalg.norm(volume.affine[:3, :3], axis=0)
    margin = np.ceil(3 * width / steps).astype(int)
    where = np.argwhere(mask)
    low, high = np.maximum(where.min(axis=0) - margin, 0), np.minimum(where.max(axis=0) + margin + 1, mask.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    # The filter needs four voxels. Where the CT ends, the tumour goes on as it was.
    image = sitk.GetImageFromArray(np.pad(mask[box].astype(np.float32), 4, mode="edge"))
    image.SetSpacing(steps[::-1].tolist())
    blurred = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, width))[4:-4, 4:-4, 4:-4]
    count = int(np.count_nonzero(mask))
    # At one half a convex surface would move inwards.
    threshold = np.partition(blurred, -count, axis=None)[-count]
    result = np.zeros_like(mask)
    result[box] = blurred >= threshold
    return result


def _one_part(mask: Mask, centre: Point, volume: hd.Volume) -> Mask:
    """Keep the part at a point, without holes."""
    import SimpleITK as sitk

    if not mask.any():
        return mask
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True))
    part = (labels == _label_at(labels, centre, volume)).astype(np.uint8)
    filled: Mask = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(part))) > 0
    return filled


def _label_at(labels: npt.NDArray[np.uint32], point: Point, volume: hd.Volume) -> int:
    """Label of the part that contains a point, or else of the nearest one."""
    at = (np.linalg.inv(volume.affine) @ (*point, 1.0))[:3]
    inside = np.clip(np.round(at).astype(int), 0, np.subtract(labels.shape, 1))
    label = int(labels[tuple(inside)])
    if label:
        return label
    voxels = np.argwhere(labels)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    nearest = voxels[np.argmin((((voxels - at) * spacing) ** 2).sum(axis=1))]
    return int(labels[tuple(nearest)])
