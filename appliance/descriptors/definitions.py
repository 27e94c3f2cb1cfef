"""All descriptors with unit, formula, source of the formula, and what is known of their validity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Worth(StrEnum):
    """What is known of a descriptor's validity."""

    READERS = "agrees with readers"
    EXACT = "exact for this outline"
    COMPUTED = "computed, not validated"


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a descriptor.

    Attributes
    ----------
    name
        Its key in JSON, with its unit if it has one.
    title
        Its usual name.
    unit
        In UCUM; "1" for a share or ratio, "" for a class.
    formula, source
        Formula in words; paper, DICOM part or IBSI code.
    worth
        What is known of its validity.
    words
        From the lowest values to the highest; empty if there is only a number.
    """

    name: str
    title: str
    unit: str
    formula: str
    source: str
    worth: Worth
    words: tuple[str, ...] = ()


_OUTLINE = "the outline in an axial slice"

DEFINITIONS: Final = tuple(
    Definition(*row)
    for row in (
        ("long_axis_mm", "long axis", "mm", f"greatest distance between two points of {_OUTLINE}", "RECIST 1.1",
         Worth.EXACT),
        ("short_axis_mm", "short axis", "mm",
         "longest line at right angles to the long axis, across the same outline", "RECIST 1.1", Worth.EXACT),
        ("diameter_3d_mm", "3D diameter", "mm", "greatest distance between two points of the mask's surface mesh",
         "IBSI L0JK", Worth.EXACT),
        ("volume_mm3", "volume", "mm3", "number of voxels × volume of a voxel", "IBSI YEKZ", Worth.EXACT),
        ("effective_diameter_mm", "effective diameter", "mm", "(6 × volume / π)^⅓", "the ball of the same volume",
         Worth.EXACT),
        ("t_size_class", "T, size class only", "", "class of the long axis in mm, of the solid part if part-solid",
         "TNM, 9th edition", Worth.EXACT),
        ("solid_long_axis_mm", "long axis of the solid part", "mm",
         "long axis of what lies at −300 HU and above, averaged over 3 × 3 voxels", "TNM, 9th edition; Scholten 2015",
         Worth.COMPUTED),
        ("mean_hu", "texture", "[hnsf'U]", "mean HU of the tissue, without cavity walls and bone", "IBSI Q4LE",
         Worth.READERS, ("ground glass", "part-solid", "solid")),
        ("solid_share", "solid share", "1", "share of the tissue at −300 HU and above", "Scholten 2015",
         Worth.COMPUTED),
        ("radial_spread", "roundness", "1", f"standard deviation / mean of the radius of {_OUTLINE}, averaged by area",
         "Kilday 1993", Worth.READERS, ("round", "not round")),
        ("irregularity", "outline", "1", f"1 − perimeter of the hull / perimeter of {_OUTLINE}, averaged by area",
         "Zunic and Rosin 2004", Worth.READERS, ("smooth", "irregular")),
        ("margin_sharpness", "margin", "1",
         "logistic model of mean HU, effective diameter, outline and roundness: probability that readers call it sharp",
         "this project, on LIDC-IDRI", Worth.READERS, ("ill-defined", "sharp")),
        ("edge_slope_hu_per_mm", "edge slope", "[hnsf'U]/mm", "median of the steepest fall of HU across the outline",
         "this project", Worth.COMPUTED),
        ("edge_width_mm", "edge width", "mm", "median of the whole fall of HU / the steepest", "this project",
         Worth.COMPUTED),
        ("edge_offset_mm", "outline off the edge", "mm", "median distance of the outline from the steepest fall of HU",
         "this project", Worth.COMPUTED),
        ("contact_share", "contact with what is not lung", "1", "share of the surface with more than −500 HU beside it",
         "this project", Worth.COMPUTED),
        ("cavity_share", "cavity share", "1", "enclosed gas / all within the outer outline", "this project",
         Worth.COMPUTED),
        ("dense_share", "dense share", "1", "share above 200 HU, without bone", "Khan 2010", Worth.COMPUTED),
        ("air_share", "air within the outline", "1", "share below −800 HU outside cavities", "this project",
         Worth.COMPUTED),
        ("components", "separate parts", "1", "connected components of the mask", "this project", Worth.EXACT),
    )
)  # fmt: skip

BY_NAME: Final = {definition.name: definition for definition in DEFINITIONS}
