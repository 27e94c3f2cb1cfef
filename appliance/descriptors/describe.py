"""Describe a tumour in a radiologist's words, from a volume and a mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.descriptors import shape, size, surroundings
from lungstage.appliance.descriptors.calibration import LEAST_MM, Calibration, calibration
from lungstage.appliance.descriptors.crop import Crop, crop
from lungstage.appliance.descriptors.definitions import BY_NAME, DEFINITIONS, Definition, Worth
from lungstage.appliance.descriptors.density import Density, density
from lungstage.appliance.descriptors.values import Descriptor, Descriptors, Value
from lungstage.appliance.radiomics import compiled, mesh

Mask = npt.NDArray[np.bool_]

MOST_OFFSET_MM: Final = 1.0
MOST_AIR: Final = 0.10
MOST_BONE: Final = 0.10
LEAST_VISIBLE: Final = 0.25
THICKEST_MM: Final = 3.0
"""Largest distance of slices in 99 of 100 scans that LIDC's readers saw."""
_LEAST_LOOKED_AT = 0.75


@dataclass
class _Findings:
    """Collects the results for one tumour: values, reasons for missing ones, and caveats."""

    values: dict[str, Value] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    caveats: dict[str, list[str]] = field(default_factory=dict)

    def mind(self, caveat: str, *names: str) -> None:
        for name in names:
            self.caveats.setdefault(name, []).append(caveat)


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if value == 0 or value >= 0.005 else "< 1 %"


def _unfit(tumour: Crop, axes: size.Axes, edge: surroundings.Edge, inside: Density, parts: int) -> Iterator[str]:
    """Say why no words are given for the outline."""
    if axes.long < LEAST_MM:
        yield f"The long axis is {axes.long:.1f} mm; words are given only for at least {LEAST_MM:.0f} mm."
    if tumour.box[0].stop - tumour.box[0].start == 1:
        yield "The outline is on one slice only."
    if parts > 1:
        yield f"The outline has {parts} separate parts."
    if tumour.spacing[0] > THICKEST_MM:
        yield (
            f"The slices are {tumour.spacing[0]:.1f} mm apart; the readers had slices of at most {THICKEST_MM:.0f} mm."
        )
    if tumour.at_edge:
        yield "The outline reaches the edge of the image; the tumour may continue beyond it."
    if inside.air_share > MOST_AIR:
        yield (
            f"{_share(inside.air_share)} of the region is air or aerated lung (at most {_share(MOST_AIR)} in an "
            "outline of the tumour itself). A planning volume looks like this."
        )
    if inside.bone_share > MOST_BONE:
        yield (
            f"{_share(inside.bone_share)} of the region is bone or another dense structure that continues beyond the "
            "region."
        )
    if edge.visible < LEAST_VISIBLE or edge.offset_mm is None:
        yield (
            f"HU fall towards lung along {_share(edge.visible)} of the outline (at least {_share(LEAST_VISIBLE)} are "
            "needed to check that it follows the tumour)."
        )
    elif edge.offset_mm > MOST_OFFSET_MM:
        yield (
            f"The outline is {edge.offset_mm:.2f} mm (median) away from the steepest fall of HU (at most "
            f"{MOST_OFFSET_MM:.0f} mm in an outline of the tumour itself). A planning volume looks like this."
        )


def _sizes(found: _Findings, tumour: Crop, axes: size.Axes, parts: int) -> None:
    voxels = int(tumour.mask.sum())
    padded = np.pad(tumour.mask[tumour.box], 1)
    volume = voxels * tumour.voxel_mm3
    found.values |= {
        "long_axis_mm": axes.long,
        "short_axis_mm": axes.short,
        "diameter_3d_mm": mesh.diameters(padded, tumour.spacing, 8)[3],
        "volume_mm3": volume,
        "effective_diameter_mm": size.effective_diameter(volume),
        "components": parts,
    }
    if parts > 1:
        found.mind(
            f"The outline has {parts} separate parts. The axes are those of the part with the longest axis; all other "
            "values are of all parts.",
            "long_axis_mm", "short_axis_mm", "diameter_3d_mm", "volume_mm3", "effective_diameter_mm",
        )  # fmt: skip
    if tumour.box[0].stop - tumour.box[0].start == 1:
        found.mind(
            "The outline is on one slice only, so its extent across slices is that of this slice.",
            "diameter_3d_mm", "volume_mm3", "effective_diameter_mm",
        )  # fmt: skip
    if tumour.spacing[0] > THICKEST_MM:
        found.mind(
            f"The slices are {tumour.spacing[0]:.1f} mm apart, so the extent across them is coarse.",
            "diameter_3d_mm", "volume_mm3", "effective_diameter_mm",
        )  # fmt: skip
    if tumour.at_edge:
        found.mind(
            "The outline reaches the edge of the image; the tumour may continue beyond it.",
            "long_axis_mm", "short_axis_mm", "diameter_3d_mm", "volume_mm3", "effective_diameter_mm",
        )  # fmt: skip


def _size_class(found: _Findings, inside: Density, texture: str | None, voxel_mm: float) -> None:
    """Find the size class: by the long axis, in a part-solid tumour by its solid part; none for ground glass."""
    long_axis, diameter = float(found.values["long_axis_mm"]), float(found.values["diameter_3d_mm"])
    whole, name = size.t_size_class(long_axis), "t_size_class"
    found.reasons["solid_long_axis_mm"] = "It is measured only in a part-solid tumour."
    if texture == "ground glass":
        found.reasons[name] = (
            "Ground glass is classed by its solid part, but none was found. By the whole tumour the size class would "
            f"be {whole}."
        )
        return
    measured = long_axis
    if texture == "part-solid":
        if not inside.solid_outlines:
            reason = "The tumour is part-solid, but its solid part is too small to be measured."
            found.reasons |= dict.fromkeys((name, "solid_long_axis_mm"), reason)
            return
        del found.reasons["solid_long_axis_mm"]
        measured = found.values["solid_long_axis_mm"] = size.axes(inside.solid_outlines).long
        found.mind(
            f"The class is that of the solid part ({measured:.0f} mm), because the tumour is part-solid; by the whole "
            f"tumour it would be {whole}.",
            name,
        )
    found.values[name] = own = size.t_size_class(measured)
    for other in {size.t_size_class(measured - voxel_mm), size.t_size_class(measured + voxel_mm)} - {own}:
        found.mind(f"The size is within one voxel ({voxel_mm:.1f} mm) of {other}.", name)
    if texture is None:
        found.mind("This holds for a solid tumour; it is not known whether this tumour is solid.", name)
    if texture != "part-solid" and (by_3d := size.t_size_class(diameter)) != own:
        found.mind(f"By the 3D diameter ({diameter:.0f} mm) it would be {by_3d}.", name)


def _tissue(found: _Findings, inside: Density, contrast: bool | None) -> None:
    found.values |= {
        "cavity_share": inside.cavity_share, "dense_share": inside.dense_share, "air_share": inside.air_share,
    }  # fmt: skip
    if inside.mean_hu is None or inside.solid_share is None:
        reason = "Without bone, cavity and cavity walls, no tissue is left within the outline."
        found.reasons |= dict.fromkeys(("mean_hu", "solid_share", "margin_sharpness"), reason)
    else:
        found.values |= {"mean_hu": inside.mean_hu, "solid_share": inside.solid_share}
    if inside.bone_share:
        found.mind(
            f"{_share(inside.bone_share)} of the region is bone or another dense structure that continues beyond the "
            "region; it is left out.",
            "mean_hu", "solid_share", "dense_share",
        )  # fmt: skip
    if inside.cavity_share:
        found.mind("The cavity and the voxels next to it are left out.", "mean_hu", "solid_share")
    if contrast:
        found.mind("Contrast medium was given, which raises HU.", "mean_hu", "solid_share", "dense_share")
    elif contrast is None and inside.dense_share:
        found.mind("It is not known whether contrast medium was given; it would raise HU.", "dense_share")


def _surroundings(found: _Findings, tumour: Crop, edge: surroundings.Edge) -> None:
    if edge.offset_mm is None or edge.slope_hu_per_mm is None or edge.width_mm is None:
        reason = "HU do not fall towards lung anywhere along the outline."
        found.reasons |= dict.fromkeys(("edge_slope_hu_per_mm", "edge_width_mm", "edge_offset_mm"), reason)
    else:
        found.values |= {
            "edge_slope_hu_per_mm": edge.slope_hu_per_mm, "edge_width_mm": edge.width_mm,
            "edge_offset_mm": edge.offset_mm,
        }  # fmt: skip
        if edge.visible < LEAST_VISIBLE:
            found.mind(
                f"This was measured along the {_share(edge.visible)} of the outline where HU fall towards lung.",
                "edge_slope_hu_per_mm", "edge_width_mm", "edge_offset_mm",
            )  # fmt: skip
    touching = surroundings.contact(tumour)
    if touching.share is None or touching.looked_at < _LEAST_LOOKED_AT:
        found.reasons["contact_share"] = (
            f"The images show the surroundings of only {_share(touching.looked_at)} of the surface "
            f"(at least {_share(_LEAST_LOOKED_AT)} are needed)."
        )
    else:
        found.values["contact_share"] = touching.share


def _badge(definition: Definition, known: Calibration) -> str:
    if definition.worth is not Worth.READERS:
        return str(definition.worth)
    of = known.agreement[definition.name]
    return f"{definition.worth}: AUROC {of.auroc:.2f} ({of.lesions} lesions), not pathology"


def _described(definition: Definition, found: _Findings, unfit: tuple[str, ...], known: Calibration) -> Descriptor:
    name = definition.name
    value, reason = found.values.get(name), found.reasons.get(name)
    word = percentile = None
    if definition.words and value is not None:
        if unfit:
            reason = " ".join(unfit)
        else:
            word = definition.words[known.band(name, float(value))]
            percentile = known.percentile(name, float(value))
    caveats = tuple(found.caveats.get(name, ()))
    agreement = known.agreement[name] if definition.worth is Worth.READERS else None
    return Descriptor(definition, value, word, percentile, _badge(definition, known), reason, caveats, agreement)


def describe(
    volume: hd.Volume, mask: Mask, *, contrast: bool | None = None, known: Calibration | None = None
) -> Descriptors:
    """Describe a tumour.

    Parameters
    ----------
    volume
        (slices, rows, columns) in HU, with axial slices. The 6 mm around the mask are used, as far as available.
    mask
        (slices, rows, columns).
    contrast
        Whether contrast medium was given; None if not known.
    known
        The calibration on readers' ratings; by default the shipped one.

    Returns
    -------
    Descriptors
        Every descriptor with its value, or why there is none. Words and percentiles are given only if the outline is
        fit for them: a planning volume is not an outline of the tumour.

    Raises
    ------
    Refused
        ``roi_empty`` if the mask contains no voxel.
    """
    if not mask.any():
        raise Refused(ReasonCode.ROI_EMPTY, "The region contains no voxel. Draw it larger, and export again.")
    known = known or calibration()
    tumour = crop(volume, mask)
    parts, axes = compiled.components(tumour.mask), size.axes(tumour.outlines)
    edge, inside = surroundings.edge(tumour), density(tumour)
    unfit = tuple(_unfit(tumour, axes, edge, inside, parts))
    found = _Findings()
    _sizes(found, tumour, axes, parts)
    _tissue(found, inside, contrast)
    _surroundings(found, tumour, edge)
    spread, irregular = shape.radial_spread(tumour.outlines), shape.irregularity(tumour.outlines)
    found.values |= {"radial_spread": spread, "irregularity": irregular}
    texture = None
    if inside.mean_hu is not None:
        diameter = float(found.values["effective_diameter_mm"])
        found.values["margin_sharpness"] = known.margin(inside.mean_hu, diameter, irregular, spread)
        if not unfit:
            texture = BY_NAME["mean_hu"].words[known.band("mean_hu", inside.mean_hu)]
    _size_class(found, inside, texture, max(tumour.spacing[1:]))
    return Descriptors(
        tuple(_described(definition, found, unfit, known) for definition in DEFINITIONS), unfit, known.source
    )
