"""The proof that slices form one regular, untilted grid, and how far real positions may stray from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.header import ImageHeader

Floats = npt.NDArray[np.float64]

# Slice positions may stray from an even spacing by what rounding to 0.01 mm explains, or by 2 %.
POSITION_TOLERANCE = 0.02
_SPACING_SHARE = 0.02
# A declared spacing is taken for the measured one when they agree to this; that is, to 0.3 micrometres at 3 mm.
_NOMINAL_SHARE = 1e-4
# 1 in 1000 is a tilt of 0.06 degrees.
_SHEAR_SHARE = 1e-3
_TILT_TOLERANCE = 0.05  # degrees; what scanners write for "none"


def normal_of(image: ImageHeader) -> Floats:
    """Slice normal: row direction × column direction (PS3.3 C.7.6.2.1.1)."""
    return np.cross(image.orientation[:3], image.orientation[3:])


def allowed(step: float) -> float:
    """How far, in mm, a slice may lie from its place in an even spacing of `step`."""
    return max(POSITION_TOLERANCE, _SPACING_SHARE * step)


def _nominal(step: float, images: Sequence[ImageHeader]) -> float:
    """Take the spacing that the slices declare where the measured one only differs by the rounding of positions.

    Positions are rounded to single precision or to a few decimals by many writers, so the mean of a few steps is
    noise in the eighth digit that would change with the ROI's length.
    """
    declared = [value for i in images for value in (i.spacing_between_slices, i.slice_thickness) if value]
    return next((value for value in declared if abs(value - step) <= _NOMINAL_SHARE * step), step)


def prove_regular(images: Sequence[ImageHeader], normal: Floats) -> tuple[float, float, float]:
    """Prove that `images` are one regular, untilted grid; return its spacing (slice, row, column) in mm."""
    first = images[0]
    if len({image.frame_of_reference_uid for image in images}) != 1:
        raise Refused(
            ReasonCode.FRAME_OF_REFERENCE_MISMATCH, "The slices of the series lie in different Frames of Reference."
        )
    if any(not np.allclose(image.orientation, first.orientation, atol=1e-4) for image in images):
        raise Refused(ReasonCode.ORIENTATION_VARIES, "The slices of the series differ in orientation.")
    if not np.allclose(
        np.reshape(first.orientation, (2, 3)) @ np.reshape(first.orientation, (2, 3)).T, np.eye(2), atol=1e-4
    ):
        raise Refused(ReasonCode.GEOMETRY_MISSING, "The slices' row and column directions are not at right angles.")
    if len({(i.rows, i.columns) for i in images}) != 1 or any(
        not np.allclose(i.pixel_spacing, first.pixel_spacing, rtol=1e-5) for i in images
    ):
        raise Refused(ReasonCode.GRID_VARIES, "The slices of the series differ in matrix size or pixel spacing.")
    if min(first.pixel_spacing) <= 0:
        raise Refused(ReasonCode.GEOMETRY_MISSING, "The slices' pixel spacing is not positive.")
    if len({image.rescale for image in images}) != 1 or len(first.rescale) != 2 or first.rescale[0] <= 0:
        raise Refused(
            ReasonCode.RESCALE_VARIES,
            "The slices of the series differ in their rescale to HU, or state none that is one.",
        )
    positions = np.array([image.position for image in images])
    offsets = positions - positions[0]
    depths = offsets @ normal
    shear = np.linalg.norm(offsets - np.outer(depths, normal), axis=1)
    if (shear > POSITION_TOLERANCE + _SHEAR_SHARE * np.abs(depths)).any() or any(
        abs(image.gantry_tilt or 0.0) > _TILT_TOLERANCE for image in images
    ):
        raise Refused(
            ReasonCode.GANTRY_TILT, "The series was acquired with a tilted gantry; its slices are not stacked squarely."
        )
    if len(images) == 1:
        if not first.slice_thickness or first.slice_thickness <= 0:
            raise Refused(ReasonCode.GEOMETRY_MISSING, "A single slice does not say how thick it is.")
        return (first.slice_thickness, first.pixel_spacing[0], first.pixel_spacing[1])
    gaps = np.diff(depths)
    step = float(depths[-1] / (len(images) - 1))
    if np.abs(gaps - step).max() > allowed(step):
        raise Refused(ReasonCode.SPACING_NOT_UNIFORM, "The slices of the series are not evenly spaced.")
    return (_nominal(step, images), first.pixel_spacing[0], first.pixel_spacing[1])
