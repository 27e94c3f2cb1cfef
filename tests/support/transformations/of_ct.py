"""Changes to the CT slices: how scanners, archives and de-identifiers write them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests.support.enhanced import enhanced, refer_to
from tests.support.transformations.registry import Phase, Right, Transformation, add, changes
from tests.support.transformations.study import Axis, Drawing, Study, Unfit, rename, store, stored, uid

_EITHER, _REFUSED = Right.EITHER, Right.REFUSED


def as_written(dataset: Dataset, keyword: str, vr: str, value: object) -> None:
    """Set an element to a value that no writer should write."""
    dataset.add(DataElement(keyword, vr, value, already_converted=True))


def without(dataset: Dataset, *keywords: str) -> None:
    """Remove elements."""
    for keyword in keywords:
        if keyword in dataset:
            delattr(dataset, keyword)


# Position of the images in the patient


def _laid(name: str, draw: Callable[[Drawing], Drawing]) -> None:
    add(Transformation(name, "CT", Right.MEASURED, Phase.OBJECTS, draw))


def _reversed(axis: Axis) -> Axis:
    return axis[0], -axis[1]


_laid("rows_from_back_to_front", lambda drawing: replace(drawing, down=_reversed(drawing.down)))
_laid("columns_from_left_to_right", lambda drawing: replace(drawing, across=_reversed(drawing.across)))
_laid("both_ways_reversed", lambda d: replace(d, down=_reversed(d.down), across=_reversed(d.across)))
_laid("lying_on_the_side", lambda drawing: replace(drawing, down=drawing.across, across=_reversed(drawing.down)))
_laid("transposed", lambda drawing: replace(drawing, down=drawing.across, across=drawing.down))
_laid("odd_matrix", lambda drawing: replace(drawing, matrix=(39, 47)))
_laid("unmeasured_corner", lambda drawing: replace(drawing, corner=5))


@changes("CT", _EITHER, draw=lambda drawing: replace(drawing, step=0.625, decimals=1))
def positions_rounded_to_a_tenth(study: Study) -> None:
    for dataset in study.ct:
        dataset.SliceThickness = "0.625"


@changes("CT")
def noise_in_the_orientation(study: Study) -> None:
    for k, dataset in enumerate(study.ct):
        noisy = np.array(dataset.ImageOrientationPatient, dtype=float) + 2e-7 * np.array([1, -1, 1, 1, 1, -1]) * (1 + k)
        dataset.ImageOrientationPatient = [f"{value:.10f}" for value in noisy]


@changes("CT")
def positions_in_single_precision(study: Study) -> None:
    for k, dataset in enumerate(study.ct):
        x, y, z = (float(value) for value in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [f"{x:.9g}", f"{y:.9g}", f"{z + 1e-5 * (-1) ** k:.9g}"]


@changes("CT")
def no_slice_thickness(study: Study) -> None:
    for dataset in study.ct:
        without(dataset, "SliceThickness", "SpacingBetweenSlices")


@changes("CT")
def spacing_is_negative(study: Study) -> None:
    for dataset in study.ct:
        dataset.SpacingBetweenSlices = f"{-study.drawing.step:g}"


@changes("CT")
def numbered_from_above(study: Study) -> None:
    for k, dataset in enumerate(study.ct):
        dataset.InstanceNumber = len(study.ct) - k


@changes("CT", _REFUSED)
def gantry_tilted(study: Study) -> None:
    for dataset in study.ct:
        dataset.GantryDetectorTilt = "12"


@changes("CT", _REFUSED)
def slice_within_is_lost(study: Study) -> None:
    del study.ct[5]


@changes("CT")
def slice_far_away_is_lost(study: Study) -> None:
    del study.ct[0]


@changes("CT", _EITHER)
def no_frame_of_reference(study: Study) -> None:
    for dataset in study.every():
        without(dataset, "FrameOfReferenceUID")


# Other objects in the series, or beside it


@changes("CT")
def two_acquisitions_in_a_series(study: Study) -> None:
    """The second acquisition differs in its kernel and in HU; the region names the first."""
    for dataset in study.ct[:12]:
        other = rename(deepcopy(dataset), uid("acquisition", dataset.SOPInstanceUID))
        other.AcquisitionNumber, other.InstanceNumber, other.ConvolutionKernel = 2, other.InstanceNumber + 100, "B70f"
        store(other, stored(dataset) + 7)
        study.ct.append(other)


@changes("CT", _EITHER)
def second_image_set_that_nothing_tells_apart(study: Study) -> None:
    for dataset in study.ct[:12]:
        other = rename(deepcopy(dataset), uid("again", dataset.SOPInstanceUID))
        store(other, stored(dataset) + 9)
        study.ct.append(other)


@changes("CT")
def scout_in_the_series(study: Study) -> None:
    """It has another matrix and shows the patient from the front, but the scanner calls it AXIAL."""
    scout = rename(deepcopy(study.ct[0]), uid("scout", study.ct[0].SOPInstanceUID))
    scout.ImageOrientationPatient, scout.ImagePositionPatient = [1, 0, 0, 0, 0, -1], ["-30", "0", "60"]
    scout.Rows, scout.Columns = 64, 32
    scout.PixelData = bytes(2 * 64 * 32)
    scout["PixelData"].VR = "OW"
    study.ct.append(scout)


@changes("CT")
def localizer_in_the_series(study: Study) -> None:
    scout = rename(deepcopy(study.ct[5]), uid("localizer", study.ct[5].SOPInstanceUID))
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    study.ct.append(scout)


@changes("CT", phase=Phase.PIXELS)
def sent_twice(study: Study) -> None:
    """The same instances are also in other files."""
    study.ct += [deepcopy(dataset) for dataset in study.ct[:8]]


@changes("CT")
def same_slices_under_other_uids(study: Study) -> None:
    study.ct += [rename(deepcopy(d), uid("copy", d.SOPInstanceUID)) for d in study.ct[2:9]]


@changes("CT")
def another_series_beside(study: Study) -> None:
    """The other series has the same Frame of Reference and other HU."""
    for dataset in study.ct[:12]:
        other = rename(deepcopy(dataset), uid("beside", dataset.SOPInstanceUID), SeriesInstanceUID=uid("beside"))
        store(other, stored(dataset) + 50)
        study.beside.append(other)


@changes("CT")
def another_patient_beside(study: Study) -> None:
    """The other patient's study has other UIDs, another Patient ID and another name."""
    for dataset in study.ct[:6]:
        other = rename(deepcopy(dataset), uid("stranger", dataset.SOPInstanceUID), SeriesInstanceUID=uid("stranger"))
        other.StudyInstanceUID, other.PatientID = uid("stranger's study"), "ANOTHER"
        other.PatientName, other.FrameOfReferenceUID = "Somebody^Else", uid("stranger's frame")
        study.beside.append(other)


@changes("CT", phase=Phase.PIXELS)
def enhanced_ct(study: Study) -> None:
    """All slices become frames of one object, and the region refers to these."""
    slices = study.ct
    if len(slices) != 12 or study.beside or any(len(d.PixelData) != len(slices[0].PixelData) for d in slices):
        raise Unfit
    order = (4, 9, 0, 7, 2, 11, 5, 1, 10, 3, 8, 6)
    whole = enhanced(slices, order)
    frames = {slices[k].SOPInstanceUID: number for number, k in enumerate(order, start=1)}
    for roi in filter(None, (study.contours, study.segment)):
        holders = [item for element in roi.iterall() if element.VR == "SQ" for item in element.value]
        images = [item for item in holders if item.get("ReferencedSOPInstanceUID") in frames]
        lists = [id(i) for item in holders for name in _LISTS if (of := item.get(name)) and len(of) > 1 for i in of]
        lists += [id(i) for item in roi.get("ReferencedSeriesSequence", ()) for i in item.ReferencedInstanceSequence]
        refer_to(whole, [i for i in images if id(i) not in lists], frames)
        refer_to(whole, [i for i in images if id(i) in lists], dict.fromkeys(frames, 0))
    study.ct = [whole]


_LISTS = ("ContourImageSequence", "ReferencedInstanceSequence")


# Patient data, and changes by other software


def _on_all(name: str, do: Callable[[Dataset], None], right: Right = Right.MEASURED) -> None:
    def change(study: Study) -> None:
        for dataset in study.every():
            do(dataset)

    add(Transformation(name, "CT", right, Phase.OBJECTS, change=change))


def _malformed(dataset: Dataset) -> None:
    for keyword, vr, value in (
        ("StudyDate", "DA", "2026.01.01"), ("StudyTime", "TM", "12:00:00"), ("PatientBirthDate", "DA", "UNKNOWN"),
        ("PatientAge", "AS", "65"), ("PatientSex", "CS", "FEMALE"), ("AccessionNumber", "SH", "N" * 22),
        ("StudyID", "SH", "I" * 19),
    ):  # fmt: skip
        as_written(dataset, keyword, vr, value)


_on_all("malformed_dates_and_codes", _malformed)
_on_all("letters_in_the_study_uid", lambda d: as_written(d, "StudyInstanceUID", "UI", "PSEUDO.7.8.9"), _REFUSED)
_on_all("uid_longer_than_64", lambda d: as_written(d, "StudyInstanceUID", "UI", "1.2." + "3" * 66), _EITHER)


@changes("CT")
def stripped_by_an_anonymiser(study: Study) -> None:
    for dataset in study.every():
        without(
            dataset, "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
            "AccessionNumber", "ReferringPhysicianName", "ContentDate", "ContentTime", "Manufacturer",
            "ManufacturerModelName", "PositionReferenceIndicator", "PatientPosition", "SeriesNumber",
            "AcquisitionNumber", "KVP", "StructureSetDate", "StructureSetTime",
        )  # fmt: skip
    for dataset in study.ct:
        without(dataset, "InstanceNumber")
    study.truth = replace(study.truth, name="")


@changes("CT")
def japanese_name(study: Study) -> None:
    name = "Suzuki^Hanako=鈴木^花子=すずき^はなこ"
    for dataset in study.every():
        dataset.SpecificCharacterSet, dataset.PatientName = ["", "ISO 2022 IR 87"], name
    study.truth = replace(study.truth, name=name)


@changes("CT")
def name_in_utf8(study: Study) -> None:
    for dataset in study.every():
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Nováková^Žofie"
    study.truth = replace(study.truth, name="Nováková^Žofie")


@changes("CT", _EITHER)
def region_says_no_patient_id(study: Study) -> None:
    for roi in filter(None, (study.contours, study.segment)):
        roi.PatientID = ""


@changes("CT", _REFUSED)
def region_is_another_patients(study: Study) -> None:
    for roi in filter(None, (study.contours, study.segment)):
        roi.PatientID = "SOMEBODY"


@changes("CT")
def region_spells_the_name_otherwise(study: Study) -> None:
    for roi in filter(None, (study.contours, study.segment)):
        if roi.get("PatientName"):
            roi.PatientName = str(roi.PatientName).upper() + "^^"


@changes("CT")
def body_part_unsaid(study: Study) -> None:
    for dataset in study.ct:
        without(dataset, "BodyPartExamined")


# Storage of the voxels


@changes("CT")
def unsigned(study: Study) -> None:
    for dataset in study.ct:
        values = stored(dataset)
        dataset.PixelRepresentation = 0
        store(dataset, values)


@changes("CT")
def halves(study: Study) -> None:
    """Rescale Slope 0.5."""
    for dataset in study.ct:
        store(dataset, stored(dataset) * 2)
        dataset.RescaleSlope = f"{float(dataset.RescaleSlope) / 2:g}"
        if "PixelPaddingValue" in dataset:
            dataset.PixelPaddingValue *= 2


@changes("CT")
def unit_between_blanks(study: Study) -> None:
    for dataset in study.ct:
        as_written(dataset, "RescaleType", "LO", " HU ")


@changes("CT", _EITHER)
def mirrored_in_turns(study: Study) -> None:
    """Every second slice is stored with its rows in reverse order; the voxels are the same."""
    for dataset in study.ct[::2]:
        down = np.array(dataset.ImageOrientationPatient, dtype=float)[3:]
        far = (int(dataset.Rows) - 1) * float(dataset.PixelSpacing[0]) * down
        store(dataset, stored(dataset)[::-1])
        dataset.ImageOrientationPatient = [*dataset.ImageOrientationPatient[:3], *(-down).tolist()]
        position = np.array(dataset.ImagePositionPatient, dtype=float) + far
        dataset.ImagePositionPatient = [f"{value:.10g}" for value in position]


@changes("CT", _REFUSED)
def recentred_midway(study: Study) -> None:
    for dataset in study.ct[len(study.ct) // 2 :]:
        x, y, z = (float(value) for value in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x + 20, y, z]
    study.nothing_is_right()


@changes("CT")
def intercept_of_zero(study: Study) -> None:
    for dataset in study.ct:
        values, intercept = stored(dataset), int(dataset.RescaleIntercept)
        if float(dataset.RescaleSlope) != 1 or int(dataset.PixelRepresentation) != 1 or int(dataset.BitsStored) != 16:
            raise Unfit
        dataset.RescaleIntercept = 0
        store(dataset, values + intercept)
        if "PixelPaddingValue" in dataset:
            as_written(dataset, "PixelPaddingValue", "SS", int(dataset.PixelPaddingValue) + intercept)


@changes("CT", phase=Phase.PIXELS)
def zeros_behind_the_pixels(study: Study) -> None:
    for dataset in study.ct:
        stored(dataset)
        dataset.PixelData += bytes(48)


@changes("CT")
def overlay_in_the_highest_bit(study: Study) -> None:
    """The overlay covers a part of each slice, with some of the tumour."""
    for dataset in study.ct:
        values = stored(dataset)
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        store(dataset, values)
        words = np.frombuffer(dataset.PixelData, dtype="<u2").copy()
        words[: values.size].reshape(values.shape)[15:25, 10:30] |= 0x8000
        dataset.PixelData = words.tobytes()
        dataset.add_new(0x60000010, "US", int(dataset.Rows))
        dataset.add_new(0x60000011, "US", int(dataset.Columns))
        dataset.add_new(0x60000040, "CS", "G")
        dataset.add_new(0x60000050, "SS", [1, 1])
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 15)


def _compressed(name: str, syntax: UID) -> None:
    def change(study: Study) -> None:
        for dataset in study.ct:
            stored(dataset)
            dataset.compress(syntax, generate_instance_uid=False)

    add(Transformation(name, "CT", Right.MEASURED, Phase.PIXELS, change=change))


_compressed("jpeg_2000", JPEG2000Lossless)
_compressed("jpeg_ls", JPEGLSLossless)
_compressed("run_lengths", RLELossless)


@changes("CT", _EITHER, Phase.PIXELS)
def codestream_of_the_other_sign(study: Study) -> None:
    """Signed values are compressed as if they were unsigned."""
    if int(study.ct[0].RescaleIntercept) != 0:
        intercept_of_zero(study)
    for dataset in study.ct:
        values = stored(dataset)
        dataset.PixelRepresentation = 0
        store(dataset, values & 0xFFFF)
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.PixelRepresentation = 1


@changes("CT", phase=Phase.PIXELS)
def implicit(study: Study) -> None:
    for dataset in study.every():
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            raise Unfit
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
