"""Check whether a model may answer: its limits for acquisition, voxels and distance to the training cohort."""

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

# Aerated lung is denser than the air around a patient and less dense than fat. A lung tumour has some of it nearby.
# A sarcoma of the thigh has muscle and fat there instead (figures in docs/decisions.md).
LUNG_HU = (-950, -500)
_LUNG_REACH = 10.0  # mm
_LUNG_SHARE = 0.05

# Terms of PS3.16 Annex L. A message may quote only these: any other value could be free text about a patient.
_OTHER_BODY_PARTS = frozenset(
    {
        "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BLADDER", "BRAIN", "BREAST", "CSPINE", "ELBOW", "EXTREMITY",
        "FOOT", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE", "NECK",
        "PELVIS", "SHOULDER", "SKULL", "SPINE", "THIGH", "TSPINE", "WHOLEBODY", "WRIST",
    }
)  # fmt: skip
# Anatomic Regions that are accepted for a lung tumour (SNOMED CT; SNOMED RT is translated).
_LUNG_OR_CHEST = frozenset(
    {
        "39607008", "3341006", "44029006", "74101002",  # lung; the right, the left, both
        "31094006", "45653009", "90572001", "40020002",  # lobe of lung; an upper, a lower, a middle one
        "42400003", "72481006", "266005", "44714003", "41224006",  # lobes of the right, of the left lung
        "86598002", "72674008", "955009",  # apex, bronchopulmonary segment, bronchus
        "51185008", "816094009", "43799004",  # thorax, chest, chest cavity
    }
)  # fmt: skip
_WITHIN = "Send a reconstruction within these limits, with the region drawn on it"
_UNLIKE = "Check that the region is the whole tumour and nothing else. If it is, no answer can be given"
_AXIAL_COSINE = 0.9  # an axial slice may be turned by at most 25 degrees


def _outside(message: str, *regions: str) -> Refused:
    return Refused(ReasonCode.OUTSIDE_INTENDED_USE, f"The model is not meant for this study: {message}.", regions)


def _takes(limits: tuple[float, float], unit: str) -> str:
    return f"and the model takes {limits[0]:g} to {limits[1]:g} {unit}"


def _between(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def prove_acquisition(images: Sequence[ImageHeader], use: IntendedUse) -> None:
    """Refuse images whose headers are outside the model's intended use.

    Raises
    ------
    Refused
        ``outside_intended_use``, for the first such image.
    """
    for image in images:
        if image.body_part and image.body_part not in use.body_parts:
            known = f" ({image.body_part})" if image.body_part in _OTHER_BODY_PARTS else ""
            raise _outside(
                f"the Body Part Examined (0018,0015) is not the chest{known}. If the images show the chest, correct "
                "this element in the PACS. If they do not, no answer can be given"
            )
        # A frame of an Enhanced CT may have another value than AXIAL, e.g. VOLUME (PS3.3 C.8.16.1.3). Its orientation
        # is checked below.
        if "ORIGINAL" not in image.image_type[:1] or not (image.frame or "AXIAL" in image.image_type):
            raise _outside(
                "the images are not original axial CT (Image Type, 0008,0008). Send the original axial series of the "
                "scanner, with the region drawn on it"
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
    """Refuse a series at once when none of its slices is within the intended use.

    A single unfit slice is accepted here, because the region may not need it.
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
    """Refuse a segment whose own file gives another anatomic region than lung or chest.

    Raises
    ------
    Refused
        ``outside_intended_use``.
    """
    for code in map(in_snomed_ct, region.anatomy):
        if not _is_lung_or_chest(code):
            # The meaning in the file could be any text. Only DICOM's own meanings are quoted.
            meanings = (known.meaning for known in codes.SCT.concepts.values() if code[:2] == (known.value, "SCT"))
            raise _outside(
                f"the Anatomic Region of {named(region.name)} is neither lung nor chest but "
                f"{next(meanings, 'something else')}. If this code is wrong, correct it in the SEG. If it is right, no "
                "answer can be given",
                region.name,
            )


def _is_lung_or_chest(code: Coded) -> bool:
    value, scheme, *_ = code
    # All codes T-28... mean lung. DICOM translates only a few of them.
    return (scheme == "SCT" and value in _LUNG_OR_CHEST) or (scheme in SNOMED_RT and value.startswith("T-28"))


def prove_slices(slices: ReferenceSlices, use: IntendedUse) -> None:
    """Refuse reference slices outside the model's intended use: their headers and their spacing.

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
    """Refuse voxels outside the model's intended use; return warnings about the others."""
    lowest, highest = measurement.hu_range
    if not (_between(lowest, use.hu_range) and _between(highest, use.hu_range)):
        raise _outside(
            f"the region contains values from {lowest:g} to {highest:g} HU, {_takes(use.hu_range, 'HU')}. Check the "
            "region for metal. Check Rescale Intercept and Slope (0028,1052; 0028,1053) for errors. If neither is the "
            "cause, no answer can be given"
        )
    if measurement.voxels.volume.array.min() > LUNG_HU[1]:
        # A file labelled as CT of the chest may be an MR, or may have lost its rescale intercept.
        raise _outside(
            f"all voxels of the slices are above {LUNG_HU[1]} HU, but a chest CT contains lung and air. Check "
            "Rescale Intercept and Slope (0028,1052; 0028,1053), and send the original CT of the scanner"
        )
    if all(image.body_part for image in measurement.slices.images):
        return ()
    if _lung_around(measurement) < _LUNG_SHARE:
        raise _outside(
            "the images give no Body Part Examined (0018,0015), and no lung was found next to the tumour. Check that "
            "region and CT belong together. If they do, set Body Part Examined (0018,0015) in the PACS"
        )
    return (
        "The images give no Body Part Examined (0018,0015). They were taken as chest CT, because lung was found next "
        "to the tumour.",
    )


def _lung_around(measurement: Measurement) -> float:
    """Measure the share of aerated lung in the shell around the region, within its own slices."""
    spacing = measurement.slices.spacing
    reach = [0, *(int(np.ceil(_LUNG_REACH / step)) for step in spacing[1:])]
    box = tuple(
        slice(max(0, int(index.min()) - far), int(index.max()) + far + 1)
        for index, far in zip(np.nonzero(measurement.mask), reach, strict=True)
    )
    shell = measurement.voxels.volume.array[box][shell_around(measurement.mask[box], spacing, _LUNG_REACH)]
    return float(((shell >= LUNG_HU[0]) & (shell <= LUNG_HU[1])).mean()) if shell.size else 0.0


def shell_around(mask: npt.NDArray[np.bool_], spacing: Sequence[float], reach: float) -> npt.NDArray[np.bool_]:
    """Return the voxels outside a mask whose centre is at most `reach` away from the centre of a voxel inside.

    A squared Euclidean distance is a sum over the axes. So each axis is searched separately, up to `reach`.

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
    for plane in square:  # one plane fits into the processor's cache
        for axis, step in enumerate(spacing[1:]):
            _search_along(np.moveaxis(plane, axis, 0), step, reach)
    _search_along(square, spacing[0], reach)
    return ~mask & (square <= np.float32((reach * (1 + 1e-6)) ** 2))


def _search_along(square: npt.NDArray[np.float32], step: float, reach: float) -> None:
    """Lower each squared distance in place to that of a neighbour on the first axis plus the squared step to it."""
    before = square.copy()
    for far in range(1, min(int(reach / step + 1e-6), len(before) - 1) + 1):
        added = before + np.float32((far * step) ** 2)
        np.minimum(square[far:], added[:-far], out=square[far:])
        np.minimum(square[:-far], added[far:], out=square[:-far])


def prove_domain(result: StagingResult, use: IntendedUse) -> tuple[str, ...]:
    """Refuse a tumour too far from the training cohort, or from every tumour in it; warn at a smaller distance.

    Both distances are needed. The distance to the cohort's ellipsoid misses a gap inside the cohort. The distance to
    the nearest tumours misses a combination of features that no training tumour has. Either one alone refuses.

    Raises
    ------
    Refused
        ``outside_intended_use``.
    """
    distance, neighbours = result.domain.distance, result.domain.neighbour_distance
    if not distance <= use.domain_distance_max:
        raise _outside(
            f"the tumour's features are {distance:.1f} standard deviations away from the training cohort, and the "
            f"limit is {use.domain_distance_max:g}. {_UNLIKE}"
        )
    if not neighbours <= use.neighbour_distance_max:
        raise _outside(
            f"even the most similar training tumours are {neighbours:.1f} standard deviations away, "
            f"and the limit is {use.neighbour_distance_max:g}. {_UNLIKE}"
        )
    warnings = []
    if distance > use.domain_distance_warn:
        warnings.append("The tumour differs from almost all tumours in the training cohort. The answer is doubtful.")
    if neighbours > use.neighbour_distance_warn:
        warnings.append("Almost no tumour in the training cohort resembles this one. The answer is doubtful.")
    return tuple(warnings)
