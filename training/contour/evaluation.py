"""How well contours from simulated prompts agree with the expert's, beside two methods without a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungstage.appliance.commissioning.statistics import intraclass_correlations
from lungstage.appliance.contour.drawing import Network, draw
from lungstage.appliance.contour.prompts import Kind, Prompt, squares_from, squares_from_line
from lungstage.appliance.contour.windows import Window
from lungstage.appliance.dicom.names import counted
from lungstage.appliance.radiomics import mesh
from lungstage.training.contour import simulated
from lungstage.training.contour.cases import Case

Mask = npt.NDArray[np.bool_]
Method = Callable[[hd.Volume, Prompt], Mask]

AFFINE: Final = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
"""From voxel (z, y, x) of a crop to (x, y, z) in mm."""

CORRECTIONS: Final = 2


@dataclass(frozen=True, slots=True)
class Drawn:
    """One contour of one tumour.

    Attributes
    ----------
    patient, method
        Patient, and how it was drawn.
    dice
        Overlap with the expert's contour.
    volume, sphericity
        Of the contour: mm³, and 1 for a ball.
    expert_volume, expert_sphericity
        The same of the expert's contour.
    """

    patient: str
    method: str
    dice: float
    volume: float
    sphericity: float
    expert_volume: float
    expert_sphericity: float


def volume_of(case: Case) -> hd.Volume:
    """Return the crop as a volume of 1 mm."""
    return hd.Volume(case.hu, AFFINE, coordinate_system="PATIENT")


def dice(a: Mask, b: Mask) -> float:
    """Overlap of two masks (Dice coefficient); 1 if both are empty."""
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


def shape_of(mask: Mask, spacing: float = 1.0) -> tuple[float, float]:
    """Mesh volume in mm³ and sphericity (IBSI RNU0, QCFX); NaN if the mask is empty."""
    if not mask.any():
        return math.nan, math.nan
    area, volume = mesh.surface_and_volume(np.pad(mask, 1), (spacing,) * 3)
    return volume, (36 * math.pi * volume**2) ** (1 / 3) / area


def evaluate(
    cases: Sequence[Case],
    network: Network,
    *,
    kinds: Sequence[Kind] = ("diameter", "point", "box"),
    rivals: bool = True,
    seed: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> list[Drawn]:
    """Draw each case with each kind of prompt, twice, and with corrections, and with the methods without a network.

    Parameters
    ----------
    cases
        Patients that the network has not seen.
    network
        The network as a function, as :func:`contour.drawing.draw` takes it.
    rivals
        Whether to draw with :func:`random_walker` and :func:`region_growing` too.
    report
        Called after each case with the number of cases done.
    """
    found = []
    for done, case in enumerate(cases, start=1):
        rng = _chance(case, seed)
        volume, lines = volume_of(case), simulated.diameters(case.mask)
        for kind in kinds:
            first, second = (simulated.prompt(case.mask, lines, kind, rng) for _ in range(2))
            drawn = draw(volume, first, network)
            found.append(_compared(case, kind, drawn))
            other = draw(volume, second, network)
            found.append(_compared(replace(case, mask=drawn), f"{kind}, drawn again", other))
            if kind == "diameter":
                each = corrected(case, volume, first, drawn, network, rng)
                found += [
                    _compared(case, f"diameter, {counted(n, 'correction')}", one) for n, one in enumerate(each, 1)
                ]
                if rivals:
                    found += [_compared(case, name, method(volume, first)) for name, method in RIVALS.items()]
        report(done)
    return found


def corrected(
    case: Case, volume: hd.Volume, prompt: Prompt, drawn: Mask, network: Network, rng: np.random.Generator
) -> Iterator[Mask]:
    """Correct a contour :data:`CORRECTIONS` times, each time its largest mistake; yields every corrected contour."""
    for _ in range(CORRECTIONS):
        if (correction := simulated.correction(case.mask, drawn, rng)) is not None:
            prompt, _mask = simulated.with_correction(prompt, drawn, *correction)
            drawn = draw(volume, prompt, network)
        yield drawn


def from_diameter(case: Case, network: Network, seed: int = 0) -> tuple[Prompt, Mask, Mask]:
    """Draw a case as :func:`evaluate` does: its first diameter, the contour, and the contour after all corrections."""
    rng = _chance(case, seed)
    volume, lines = volume_of(case), simulated.diameters(case.mask)
    prompt, _ = (simulated.prompt(case.mask, lines, "diameter", rng) for _ in range(2))
    drawn = draw(volume, prompt, network)
    *_, last = corrected(case, volume, prompt, drawn, network, rng)
    return prompt, drawn, last


def _chance(case: Case, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *case.patient.encode()])


def _compared(case: Case, method: str, drawn: Mask) -> Drawn:
    return Drawn(case.patient, method, dice(case.mask, drawn), *shape_of(drawn), *shape_of(case.mask))


def random_walker(volume: hd.Volume, prompt: Prompt) -> Mask:
    """Random walks (Grady, IEEE PAMI 28, 2006) from a cylinder along the line, and from beyond the expected tumour.

    Its settings are the best of six that were tried on patients of the training.
    """
    from skimage.segmentation import random_walker as walk

    hu, line, distance = _around(volume, prompt)
    radius = prompt.reach
    seeds = np.zeros(hu.shape, dtype=np.int8)
    seeds[(distance > 1.1 * radius) | (hu < _LUNG)] = 2
    seeds[(line < max(1.0, 0.4 * radius)) & (distance < 0.8 * radius)] = 1
    labels = walk(np.clip(hu, *_SOFT_TISSUE) / np.ptp(_SOFT_TISSUE), seeds, beta=1000, mode="cg_j", tol=1e-3)
    walked: Mask = labels == 1
    return walked


def region_growing(volume: hd.Volume, prompt: Prompt) -> Mask:
    """Grow from the line over voxels that are as dense as it, within the expected tumour."""
    hu, line, distance = _around(volume, prompt)
    seed = (line < 1.0) & (distance < 0.8 * prompt.reach)
    values = hu[seed]
    allowed = (np.abs(hu - values.mean()) < 2.5 * max(values.std(), 20)) & (distance < 1.1 * prompt.reach)
    grown: Mask = ndimage.binary_propagation(seed & allowed, mask=allowed)
    return ndimage.binary_fill_holes(grown)


RIVALS: Final[dict[str, Method]] = {"random walker": random_walker, "region growing": region_growing}
_LUNG: Final = -500
_SOFT_TISSUE: Final = (-160, 240)


def _around(volume: hd.Volume, prompt: Prompt) -> tuple[Any, Any, Any]:
    """HU of a crop, each voxel's distance to the line, and to its middle, in mm."""
    hu = np.asarray(volume.array, dtype=np.float32)
    z, y, x = hu.shape
    crop = Window((0.0, 0.0, 0.0), (x, y, z))
    return hu, np.sqrt(squares_from_line(crop, *prompt.points)), np.sqrt(squares_from(crop, prompt.centre, (1.0,) * 3))


def summarise(drawn: Sequence[Drawn]) -> dict[str, dict[str, Any]]:
    """Summarise contours by method.

    Returns
    -------
    dict
        For each method: ``patients``, ``dice_median``, ``dice_tenth_percentile``; and ``volume_icc`` and
        ``sphericity_icc``, the ICC(2,1) of the logarithms between method and expert, None if a contour is empty.
    """
    methods: dict[str, list[Drawn]] = {}
    for one in drawn:
        methods.setdefault(one.method, []).append(one)
    summary = {}
    for method, every in methods.items():
        overlaps = np.array([one.dice for one in every])
        summary[method] = {
            "patients": len(every),
            "dice_median": float(np.median(overlaps)),
            "dice_tenth_percentile": float(np.percentile(overlaps, 10)),
            "volume_icc": _icc([(one.volume, one.expert_volume) for one in every]),
            "sphericity_icc": _icc([(one.sphericity, one.expert_sphericity) for one in every]),
        }
    return summary


def _icc(pairs: Sequence[tuple[float, float]]) -> float | None:
    values = np.log(np.array(pairs))
    return float(intraclass_correlations(values)[0]) if len(values) > 1 and np.isfinite(values).all() else None
