"""Training examples: a window somewhere in a crop, changed as another patient, scanner or person would change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from lungstage.appliance.contour.prompts import Kind, Prompt, channels
from lungstage.appliance.contour.windows import MARGIN_MM, MULTIPLE, Window
from lungstage.training.contour import simulated
from lungstage.training.contour.cases import Case

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SIDES: Final = (64, 72, 80, 88)
"""Windows that fit into a crop of 92 mm, so that a network never sees where a crop ends."""

KINDS: Final[tuple[Kind, ...]] = ("diameter", "point", "box")
_KIND_SHARES: Final = (0.7, 0.2, 0.1)
_OFF_CENTRE: Final = 8
_ENDS: Final = 0.05  # share of windows in which the CT ends


@dataclass(frozen=True)
class Example:
    """One window; all arrays (z, y, x) on 1 mm."""

    hu: Floats
    mask: Mask
    prompt: Prompt
    window: Window

    def told(self, prompt: Prompt | None = None) -> Floats:
        """Return the channels (5, z, y, x) of a prompt; by default of the example's own."""
        return channels(self.prompt if prompt is None else prompt, self.window)


def side_of(mask: Mask) -> int:
    """Side of the window that the appliance would take, as far as a crop contains it."""
    extent = max(int(np.ptp(np.flatnonzero(mask.any(axis=axes)))) + 1 for axes in ((1, 2), (0, 2), (0, 1)))
    wanted = MULTIPLE * -(-int(extent + 2 * MARGIN_MM) // MULTIPLE)
    return min(max(wanted, SIDES[0]), SIDES[-1])


def draw(case: Case, side: int, rng: np.random.Generator) -> Example:
    """Make an example from a case.

    Parameters
    ----------
    side
        One of :data:`SIDES`.
    """
    up, across = (slice(None, None, int(step)) for step in rng.choice((-1, 1), 2))
    mirrored = up, slice(None), across  # back and front are never exchanged: every patient lies on the back
    hu, mask = case.hu[mirrored], case.mask[mirrored]
    while True:
        cut_hu, cut_mask = _cut(hu, mask, side, rng)
        if cut_mask.sum() >= 0.5 * mask.sum() or cut_mask.sum() > 4000:
            break
    kind: Kind = KINDS[int(rng.choice(len(KINDS), p=_KIND_SHARES))]
    lines = simulated.diameters(cut_mask)
    prompt = simulated.prompt(cut_mask, lines, kind if lines else "point", rng)
    if rng.random() < _ENDS:
        cut_hu, cut_mask = _ended(cut_hu, cut_mask, prompt.points[0][2], rng)
    return Example(_scanned(cut_hu, rng), cut_mask, prompt, Window((0.0, 0.0, 0.0), (side, side, side)))


def _ended(hu: Floats, mask: Mask, z: float, rng: np.random.Generator) -> tuple[Floats, Mask]:
    """Let the CT end above or below the prompt: the window then repeats its last slice, and nothing is drawn there."""
    hu, mask = hu.copy(), mask.copy()
    last = int(np.clip(z + rng.integers(1, 20), 0, len(hu) - 1))
    first = int(np.clip(z - rng.integers(1, 20), 0, len(hu) - 1))
    if rng.random() < 0.5:
        hu[last + 1 :], mask[last + 1 :] = hu[last], False
    else:
        hu[:first], mask[:first] = hu[first], False
    return hu, mask


def _cut(hu: npt.NDArray[np.int16], mask: Mask, side: int, rng: np.random.Generator) -> tuple[Floats, Mask]:
    """Cut a window near the tumour; in half of the cases turned and scaled, if it then lies within the crop."""
    size = hu.shape[0]
    turn, scale = rng.uniform(-0.2, 0.2), rng.uniform(0.8, 1.2)
    width = np.array([side * scale, *[side * scale * (abs(np.cos(turn)) + abs(np.sin(turn)))] * 2])
    if rng.random() < 0.5 or (width > size - 1).any():
        turn, scale, width = 0.0, 1.0, np.full(3, float(side))
    where = np.argwhere(mask)
    middle = (where.min(axis=0) + where.max(axis=0)) / 2 + rng.uniform(-_OFF_CENTRE, _OFF_CENTRE, 3)
    middle = np.clip(middle, (width - 1) / 2, size - 1 - (width - 1) / 2)
    if scale == 1.0:
        start = np.round(middle - (side - 1) / 2).astype(int)
        box = tuple(slice(s, s + side) for s in np.clip(start, 0, size - side).tolist())
        return hu[box].astype(np.float32), mask[box]
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[scale, 0, 0], [0, cos, -sin], [0, sin, cos]])  # window (z, y, x) to crop (z, y, x)
    return _turned(hu, matrix, middle, side), _turned(mask, matrix, middle, side) > 0.5


def _turned(
    values: npt.NDArray[np.generic], matrix: npt.NDArray[np.float64], middle: npt.NDArray[np.float64], side: int
) -> Floats:
    size = values.shape[0]
    half = (size - 1) / 2
    # torch counts x first, and from -1 to 1 between the middles of the outer voxels
    theta = np.concatenate(
        [matrix[::-1, ::-1] * (side - 1) / (size - 1), ((middle[::-1] - half) / half)[:, None]], axis=1
    )
    grid = functional.affine_grid(
        torch.tensor(theta[None], dtype=torch.float32), [1, 1, side, side, side], align_corners=True
    )
    image = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    sampled: Floats = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)[0, 0].numpy()
    return sampled


def _scanned(hu: Floats, rng: np.random.Generator) -> Floats:
    """Change an image as another scanner, protocol or dose might."""
    if rng.random() < 0.3:
        hu = _thick(hu, int(rng.integers(2, 6)))
    if rng.random() < 0.2:
        hu = ndimage.gaussian_filter(hu, rng.uniform(0.3, 0.8))
    if rng.random() < 0.5:
        noise = rng.standard_normal(hu.shape, dtype=np.float32)
        if rng.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, 0.7) * np.float32(3.0)
        hu = hu + noise * np.float32(rng.uniform(3, 30))
    changed: Floats = (hu * rng.uniform(0.97, 1.03) + rng.normal(0, 10)).astype(np.float32)
    return changed


def _thick(hu: Floats, slices: int) -> Floats:
    """Average over slices of `slices` mm, and interpolate back to 1 mm."""
    averaged = ndimage.uniform_filter1d(hu, slices, axis=0, mode="nearest")
    at = np.arange(0, len(hu), slices)
    place = np.clip(np.arange(len(hu)) / slices, 0, len(at) - 1)
    low = np.minimum(place.astype(int), len(at) - 2)
    share = (place - low).astype(np.float32)[:, None, None]
    thick: Floats = averaged[at[low]] * (1 - share) + averaged[at[low + 1]] * share
    return thick
