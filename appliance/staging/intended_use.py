"""Whether the model may answer at all: acquisition, voxels and distance to the training cohort against its limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydicom.sr.codedict import codes

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import StagingResult
from lungstage.appliance.dicom.coded import SNOMED_RT, Coded, in_snomed_ct
from lungstage.appliance.dicom.completeness import ReferenceSlices
from lungstage.appliance.dicom.geometry import normal_of
from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.names import named
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.model.manifest import IntendedUse
from lungstage.appliance.staging.measure import Measurement

# Aerated lung: denser than the air around a patient, thinner than fat. A lung tumour has some of it within reach;
# a sarcoma of the thigh has muscle and fat there (figures in docs/decisions.md).
LUNG_HU = (-950, -500)
_LUNG_REACH = 10.0  # mm
_LUNG_SHARE = 0.05

# Terms of PS3.16 Annex L that a message may quote; anything else could be somebody's free text.
_OTHER_BODY_PARTS = frozenset(
    {
        "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BLADDER", "BRAIN", "BREAST", "CSPINE", "ELBOW", "EXTREMITY",
        "FOOT", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE", "NECK",
        "PELVIS", "SHOULDER", "SKULL", "SPINE", "THIGH", "TSPINE", "WHOLEBODY", "WRIST",
    }
)  # fmt: skip
# Anatomic Regions that a lung tumour may be said to lie in (SNOMED CT; SNOMED RT is translated).
_LUNG_OR_CHEST = frozenset(
    {
        "39607008", "3341006", "44029006", "74101002",  # lung; the right, the left, both
        "31094006", "45653009", "90572001", "40020002",  # lobe of lung; an upper, a lower, a middle one
        "42400003", "72481006", "266005", "44714003", "41224006",  # lobes of the right, of the left lung
        "86598002", "72674008", "955009",  # apex, bronchopulmonary segment, bronchus
        "51185008", "816094009", "43799004",  # thorax, chest, chest cavity
    }
)  # fmt: skip
_WITHIN = "Send a reconstruction within that, with the region drawn on it"
_UNLIKE = "Look whether the region is the whole tumour and nothing else; if it is, no answer can be given"
_AXIAL_COSINE = 0.9  # an axial slice may be turned by 25 degrees, but no further


def _outside(message: str, *regions: str) -> Refused:
    return Refused(ReasonCode.OUTSIDE_INTENDED_USE, f"The model is not meant for this study: {message}.", regions)


def _takes(limits: tuple[float, float], unit: str) -> str:
    return f"and the model takes {limits[0]:g} to {limits[1]:g} {unit}"


def _between(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def prove_acquisition(images: Sequence[ImageHeader], use: IntendedUse) -> None:
    """Refuse images whose headers say that they lie outside the model's intended use.

    Raises
    ------
    Refused
        ``outside_intended_use``, for the first image that does.
    """
    for image in images:
        if image.body_part and image.body_part not in use.body_parts:
            known = f" ({image.body_part})" if image.body_part in _OTHER_BODY_PARTS else ""
            raise _outside(
                f"the Body Part Examined (0018,0015) is not the chest{known}. If it is one, correct the element in the "
                "PACS; if not, nothing helps"
            )
        # A frame of an Enhanced CT need not say AXIAL, but, e.g., VOLUME (PS3.3 C.8.16.1.3); its orientation tells.
        if "ORIGINAL" not in image.image_type[:1] or not (image.frame or "AXIAL" in image.image_type):
            raise _outside(
                "the images are not original axial CT (Image Type, 0008,0008). Send the axial series that the scanner "
                "made, with the region drawn on it"
            )
        if image.orientation and abs(normal_of(image)[2]) < _AXIAL_COSINE:
            raise _outside(
                "the slices are not axial (Image Orientation, 0020,0037). Send the axial series, with the region drawn "
                "on it"
            )
        if image.slice_thickness is not None and not _between(image.slice_thickness, use.slice_thickness_mm):
            raise _outside(
                f"the slice thickness (0018,0050) is {image.slice_thickness:g} mm, "
                f"{_takes(use.slice_thickness_mm, 'mm')}. {_WITHIN}"
            )
        if image.pixel_spacing and not all(_between(v, use.pixel_spacing_mm) for v in image.pixel_spacing):
            raise _outside(
                f"the pixel spacing (0028,0030) is {max(image.pixel_spacing):g} mm, "
                f"{_takes(use.pixel_spacing_mm, 'mm')}. {_WITHIN}"
            )


def prove_series(slices: Sequence[ImageHeader], use: IntendedUse) -> None:
    """Refuse at once a series of which no slice is fit, whatever else it lacks.

    That one slice is unfit is no matter here: it may be one that nobody needs.
    """
    refusals: list[Refused] = []
    for image in slices:
        try:
            prove_acquisition([image], use)
        except Refused as refusal:
            refusals.append(refusal)
        else:
            return
    raise refusals[0]


def prove_anatomy(region: Region) -> None:
    """Refuse a segment that its own file places anywhere else than in the lung or the chest.

    Raises
    ------
    Refused
        ``outside_intended_use``.
    """
    for code in map(in_snomed_ct, region.anatomy):
        if not _is_lung_or_chest(code):
            # A file's own words could be anything; DICOM's can be told.
            meanings = (known.meaning for known in codes.SCT.concepts.values() if code[:2] == (known.value, "SCT"))
            raise _outside(
                f"the Anatomic Region of {named(region.name)} is neither lung nor chest but "
                f"{next(meanings, 'something else')}. If it is coded wrongly, correct the SEG",
                region.name,
            )


def _is_lung_or_chest(code: Coded) -> bool:
    value, scheme, *_ = code
    # All of T-28... is lung; DICOM translates but a few of them.
    return (scheme == "SCT" and value in _LUNG_OR_CHEST) or (scheme in SNOMED_RT and value.startswith("T-28"))


def prove_slices(slices: ReferenceSlices, use: IntendedUse) -> None:
    """Refuse reference slices outside the model's intended use: their headers, and how far they lie apart.

    Raises
    ------
    Refused
        ``outside_intended_use``.
    """
    prove_acquisition(slices.images, use)
    if not _between(slices.spacing[0], use.slice_thickness_mm):
        raise _outside(
            f"the slices lie {slices.spacing[0]:g} mm apart, {_takes(use.slice_thickness_mm, 'mm')}. {_WITHIN}"
        )


def prove_voxels(measurement: Measurement, use: IntendedUse) -> tuple[str, ...]:
    """Refuse voxels outside the model's intended use; return what is merely worth a warning."""
    lowest, highest = measurement.hu_range
    if not (_between(lowest, use.hu_range) and _between(highest, use.hu_range)):
        raise _outside(
            f"the region holds values from {lowest:g} to {highest:g} HU, {_takes(use.hu_range, 'HU')}. Look for "
            "metal in the region, and for a wrong Rescale Intercept or Slope (0028,1052; 0028,1053). If it is neither, "
            "no answer can be given"
        )
    if measurement.voxels.volume.array.min() > LUNG_HU[1]:
        # What a header says is a CT of the chest may be an MR, or have lost its rescale intercept.
        raise _outside(
            "no voxel of the slices is as thin as lung or air, so the values cannot be a chest's in HU. Look at "
            "Rescale Intercept and Slope (0028,1052; 0028,1053), and send the CT as the scanner made it"
        )
    if all(image.body_part for image in measurement.slices.images):
        return ()
    if _lung_around(measurement) < _LUNG_SHARE:
        raise _outside(
            "the images do not say which body part they show, and there is no lung next to the tumour. Look "
            "at whether region and CT belong together; if they do, set Body Part Examined (0018,0015) in the PACS"
        )
    return ("The images do not say which body part they show; lung was found next to the tumour.",)


def _lung_around(measurement: Measurement) -> float:
    """Measure which share of the shell around the region, in its own slices, is aerated lung."""
    spacing = measurement.slices.spacing
    reach = [0, *(int(np.ceil(_LUNG_REACH / step)) for step in spacing[1:])]
    box = tuple(
        slice(max(0, int(index.min()) - far), int(index.max()) + far + 1)
        for index, far in zip(np.nonzero(measurement.mask), reach, strict=True)
    )
    shell = measurement.voxels.volume.array[box][shell_around(measurement.mask[box], spacing, _LUNG_REACH)]
    return float(((shell >= LUNG_HU[0]) & (shell <= LUNG_HU[1])).mean()) if shell.size else 0.0


def shell_around(mask: npt.NDArray[np.bool_], spacing: Sequence[float], reach: float) -> npt.NDArray[np.bool_]:
    """Voxels outside a mask whose centre lies no further than `reach` from that of a voxel inside.

    A squared Euclidean distance is the smallest sum over the axes, so that each axis is searched by itself, and no
    further than `reach`.

    Parameters
    ----------
    mask
        (slices, rows, columns) bool.
    spacing
        In mm, in the same order.
    reach
        In mm.
    """
    square = np.where(mask, np.float32(0), np.float32(np.inf))
    for plane in square:  # which fits into the processor's cache
        for axis, step in enumerate(spacing[1:]):
            _search_along(np.moveaxis(plane, axis, 0), step, reach)
    _search_along(square, spacing[0], reach)
    return ~mask & (square <= np.float32((reach * (1 + 1e-6)) ** 2))


def _search_along(square: npt.NDArray[np.float32], step: float, reach: float) -> None:
    """Lower each squared distance in place to what a neighbour on the first axis has, and the way to it, add up to."""
    before = square.copy()
    for far in range(1, min(int(reach / step + 1e-6), len(before) - 1) + 1):
        added = before + np.float32((far * step) ** 2)
        np.minimum(square[far:], added[:-far], out=square[far:])
        np.minimum(square[:-far], added[far:], out=square[:-far])


def prove_domain(result: StagingResult, use: IntendedUse) -> tuple[str, ...]:
    """Refuse a tumour too far from the training cohort, or from every tumour in it; warn of one that is merely unlike.

    The cohort's ellipsoid does not see a gap inside itself, and the nearest tumours do not see a combination of
    features that none has: either distance alone refuses.

    Raises
    ------
    Refused
        ``outside_intended_use``.
    """
    distance, neighbours = result.domain.distance, result.domain.neighbour_distance
    if not distance <= use.domain_distance_max:
        raise _outside(
            f"the tumour's measurements lie {distance:.1f} standard deviations from those that it was trained on, and "
            f"at most {use.domain_distance_max:g} are allowed. {_UNLIKE}"
        )
    if not neighbours <= use.neighbour_distance_max:
        raise _outside(
            f"even the most similar tumours that it was trained on lie {neighbours:.1f} standard deviations away in "
            f"their measurements, and at most {use.neighbour_distance_max:g} are allowed. {_UNLIKE}"
        )
    warnings = []
    if distance > use.domain_distance_warn:
        warnings.append("The tumour is unlike almost all tumours that the model was trained on.")
    if neighbours > use.neighbour_distance_warn:
        warnings.append("Hardly a tumour that the model was trained on resembles this one.")
    return tuple(warnings)
