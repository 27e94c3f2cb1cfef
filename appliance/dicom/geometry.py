"""The check that slices form one regular grid without tilt, and the tolerances for real positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.header import ImageHeader

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_ORIGINAL = "Send one original CT reconstruction from the PACS, with the region drawn on it."

# Slice positions may deviate from an even spacing by the effect of rounding to 0.01 mm, or by 2 %.
POSITION_TOLERANCE = 0.02
_SPACING_SHARE = 0.02
# The declared spacing replaces the measured one if they agree to this; that is 0.3 micrometres at 3 mm. Many writers
# round positions to single precision or to a few decimals. So the mean of a few steps has noise in the eighth digit,
# which would change with the region's length.
_NOMINAL_SHARE = 1e-4
# Scanners round positions to these (mm). For slices less than four times as far apart, rounding could explain anything.
_ROUNDINGS = (0.1, 0.01)
_FINEST = 4
_ROUNDED = 1e-4
# This many slices beyond either end of the region show whether its positions are rounded.
_RUN = 100
# 1 in 1000 is a tilt of 0.06 degrees.
_SHEAR_SHARE = 1e-3
_TILT_TOLERANCE = 0.05  # degrees; scanners write values up to this for "no tilt"


def normal_of(image: ImageHeader) -> Floats:
    """Slice normal: row direction × column direction (PS3.3 C.7.6.2.1.1)."""
    return np.cross(image.orientation[:3], image.orientation[3:])


def allowed(step: float) -> float:
    """Largest allowed distance (mm) of a slice from its place in an even spacing of `step`."""
    return max(POSITION_TOLERANCE, _SPACING_SHARE * step)


def rounding(depths: Floats) -> float:
    """Return the unit that positions were rounded to: 0.1 or 0.01 mm if all are multiples of it, else 0."""
    return next((q for q in _ROUNDINGS if np.abs(depths / q - np.rint(depths / q)).max() < _ROUNDED), 0.0)


def slack(step: float, depths: Floats) -> float:
    """Largest allowed distance (mm) of slices at these depths from their places in an even spacing of `step`."""
    quantum = rounding(depths)
    return max(allowed(step), quantum / 2 + _ROUNDED) if step >= _FINEST * quantum else allowed(step)


def _is_multiple(value: float, quantum: float) -> bool:
    return abs(value / quantum - round(value / quantum)) < _ROUNDED


def _is_explained_by_rounding(depths: Floats, places: Places, quantum: float) -> bool:
    """Whether an even step, rounded to `quantum`, gives these depths.

    A step that is a multiple of `quantum` gives even depths after rounding. So it cannot explain uneven depths.
    """
    i, j = np.triu_indices(len(depths), 1)
    lengths, counts = depths[j] - depths[i], places[j] - places[i]
    least, greatest = ((lengths - quantum) / counts).max(), ((lengths + quantum) / counts).min()
    if greatest - least < _ROUNDED and _is_multiple(least, quantum):
        return False
    return bool(least <= greatest + _ROUNDED)


def _run(series: Floats, depths: Floats, places: Places, step: float) -> tuple[Floats, Places]:
    """Add the slices of the series that continue the region's slices at either end."""
    reach = 0.3 * step  # more than any rounding: at most a quarter of a step, and half of that at either slice
    found = dict(zip(places.tolist(), depths.tolist(), strict=True))
    for way, place in ((-1, int(places[0])), (1, int(places[-1]))):
        for _ in range(_RUN):
            nearest = float(series[np.abs(series - (found[place] + way * step)).argmin()])
            if abs(nearest - (found[place] + way * step)) > reach:
                break
            place += way
            found[place] = nearest
    return np.array([found[place] for place in sorted(found)]), np.array(sorted(found))


def even_step(depths: Floats, places: Places, images: Sequence[ImageHeader], series: Floats | None = None) -> float:
    """Check that positions are evenly spaced except for noise or rounding; return their spacing in mm.

    Parameters
    ----------
    depths
        In ascending order, in mm along the slice normal.
    places
        Place of each depth, counted in slices; missing slices leave gaps in the numbers.
    images
        The slices, for their declared spacing and thickness.
    series
        Depths of all slices of the series. Rounding may explain a few slices, but not more of them.

    Raises
    ------
    Refused
        ``spacing_not_uniform``.
    """
    step = float((depths[-1] - depths[0]) / (places[-1] - places[0]))
    spacings = [image.spacing_between_slices for image in images if image.spacing_between_slices]
    thicknesses = [image.slice_thickness for image in images if image.slice_thickness]
    quantum = rounding(depths)
    if step < _FINEST * quantum:
        quantum = 0.0
    if np.abs(np.diff(depths) - np.diff(places) * step).max() > allowed(step):
        run, counted = (depths, places) if series is None else _run(series, depths, places, step)
        coarse = min(quantum, rounding(run))
        if not (coarse and _is_explained_by_rounding(run, counted, coarse)):
            gaps = np.diff(depths) / np.maximum(np.diff(places), 1)  # two slices may be closer than one step
            raise Refused(
                ReasonCode.SPACING_NOT_UNIFORM,
                f"The slices of the series are not evenly spaced: neighbours lie {gaps.min():.4g} to {gaps.max():.4g} "
                f"mm apart. {_ORIGINAL}",
            )
    for declared in (*spacings, *thicknesses):
        if abs(declared - step) <= _NOMINAL_SHARE * step:
            return declared
    # Rounding can hide the true spacing, and a mean over few slices would change with the region's length. If positions
    # show no rounding, a thickness that is only similar is not used as the spacing.
    is_uneven = np.ptp(depths - places * step) > _ROUNDED
    hidden = [*spacings, *(thicknesses if is_uneven else [])] if quantum else []
    for declared in hidden:
        if not _is_multiple(declared, quantum) and np.ptp(depths - places * declared) <= quantum + _ROUNDED:
            return declared
    return step


def _prove_alike(
    images: Sequence[ImageHeader], code: ReasonCode, what: str, is_like: Callable[[ImageHeader, ImageHeader], bool]
) -> None:
    """Refuse slices that differ, and name the first and one that differs from it; `what` is the element."""
    first = images[0]
    other = next((image for image in images if not is_like(image, first)), None)
    if other is not None:
        raise Refused(code, f"Slices {first.name} and {other.name} of the series differ in {what}. {_ORIGINAL}")


def prove_regular(
    images: Sequence[ImageHeader], normal: Floats, series: Floats | None = None
) -> tuple[float, float, float]:
    """Check that `images` form one regular grid without tilt; return its spacing (slice, row, column) in mm.

    `series` holds the depths of all slices of the series, as in `even_step`.
    """
    first = images[0]
    _prove_alike(
        images,
        ReasonCode.FRAME_OF_REFERENCE_MISMATCH,
        "Frame of Reference UID (0020,0052)",
        lambda image, like: image.frame_of_reference_uid == like.frame_of_reference_uid,
    )
    _prove_alike(
        images,
        ReasonCode.ORIENTATION_VARIES,
        "Image Orientation (0020,0037)",
        lambda image, like: np.allclose(image.orientation, like.orientation, atol=1e-4),
    )
    if not np.allclose(
        np.reshape(first.orientation, (2, 3)) @ np.reshape(first.orientation, (2, 3)).T, np.eye(2), atol=1e-4
    ):
        raise Refused(
            ReasonCode.GEOMETRY_MISSING,
            "The slices' row and column directions (Image Orientation, 0020,0037) are not at right angles. "
            f"{_ORIGINAL}",
        )
    _prove_alike(
        images,
        ReasonCode.GRID_VARIES,
        "matrix size (Rows, 0028,0010; Columns, 0028,0011)",
        lambda image, like: (image.rows, image.columns) == (like.rows, like.columns),
    )
    _prove_alike(
        images,
        ReasonCode.GRID_VARIES,
        "Pixel Spacing (0028,0030)",
        lambda image, like: np.allclose(image.pixel_spacing, like.pixel_spacing, rtol=1e-5),
    )
    if min(first.pixel_spacing) <= 0:
        raise Refused(
            ReasonCode.GEOMETRY_MISSING, f"The slices' Pixel Spacing (0028,0030) is not positive. {_ORIGINAL}"
        )
    _prove_alike(
        images,
        ReasonCode.RESCALE_VARIES,
        "Rescale Intercept or Slope (0028,1052; 0028,1053)",
        lambda image, like: image.rescale == like.rescale,
    )
    if len(first.rescale) != 2 or first.rescale[0] <= 0:
        raise Refused(
            ReasonCode.RESCALE_VARIES,
            "The slices have no usable Rescale Intercept (0028,1052) and Rescale Slope (0028,1053), which are needed "
            f"for HU. {_ORIGINAL}",
        )
    positions = np.array([image.position for image in images])
    offsets = positions - positions[0]
    depths = offsets @ normal
    shear = np.linalg.norm(offsets - np.outer(depths, normal), axis=1)
    if any(abs(image.gantry_tilt or 0.0) > _TILT_TOLERANCE for image in images):
        raise Refused(
            ReasonCode.GANTRY_TILT,
            "The series was acquired with a tilted gantry (Gantry/Detector Tilt, 0018,1120), so its slices are shifted "
            "sideways. Send a series without tilt, with the region drawn on it.",
        )
    if (shear > POSITION_TOLERANCE + _SHEAR_SHARE * np.abs(depths)).any():
        raise Refused(
            ReasonCode.GANTRY_TILT,
            f"The slices of the series are shifted sideways by up to {shear.max():.3g} mm. Possible causes are a "
            "tilted gantry, or a reconstruction centre that was changed within the series. Send a series without this "
            "shift, with the region drawn on it.",
        )
    if len(images) == 1:
        if not first.slice_thickness or first.slice_thickness <= 0:
            raise Refused(
                ReasonCode.GEOMETRY_MISSING,
                f"The region lies on a single slice, and this slice has no Slice Thickness (0018,0050). {_ORIGINAL}",
            )
        return (first.slice_thickness, first.pixel_spacing[0], first.pixel_spacing[1])
    depths = positions @ normal  # absolute, not relative to the first: only absolute positions show the rounding
    step = even_step(depths, np.arange(len(images)), images, series)
    return (step, first.pixel_spacing[0], first.pixel_spacing[1])
