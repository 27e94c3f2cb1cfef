"""Damage to the elements of a study with intact files: wrong values, counts, references and identities.

A study is a mapping from names to files. Every mutator takes a study and a random source, and returns the files that it
changed or added; None means a removed file.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pydicom
from pydicom.config import IGNORE, settings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, RTStructureSetStorage, generate_uid

from tests.long.reliability.mutations import Chance

Files = Mapping[str, bytes]
Changes = dict[str, bytes | None]
StudyMutator = Callable[[Files, Chance], Changes]

ODD_NUMBERS = (
    "NaN", "inf", "-inf", "1e308", "-1e308", "1e-308", "0", "-0", "", " ", "1_0", "-1_024", "0x10", "--1", "1,5",
    "1e400", "9" * 16, "9" * 5000, "\u0663", "1\\", "\\", "12 3", "1.5.2",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\0", "\\", "A" * 70000, "GTV-2", "gtv1", "LOCALIZER", "..\\..", "../../etc/passwd", "\x1b[2J", "%s%n",
    "\u00e9\u0416", "1.2.3", "0", "None", "'; DROP TABLE jobs; --", "\r\nlevel=error",
)  # fmt: skip
ODD_COUNTS = (0, 1, 2, 3, 7, 12, 15, 17, 32, 39, 41, 47, 48, 49, 64, 255, 4096, 65535)

_GEOMETRY = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt",
)  # fmt: skip
_ENCODING = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit", "SmallestImagePixelValue",
)  # fmt: skip
_TERMS: Mapping[str, Sequence[Any]] = {
    "ImageType": (["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "AXIAL"], "AXIAL", "", ["ORIGINAL"]),
    "Modality": ("MR", "PT", "", "RTSTRUCT", "ct"),
    "SOPClassUID": (
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.3",
        "",
    ),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", ""),
    "RescaleType": ("HU", "US", "HU_MOD", "Z_EFF", "ED", "MGML", ""),
    "BodyPartExamined": ("THIGH", "", "LUNG", "Chest", "Jane Doe"),
    "PatientPosition": ("FFS", "HFP", "", "XXX"),
    "SpecificCharacterSet": ("ISO_IR 192", "ISO 2022 IR 87", ["", "ISO 2022 IR 87"], "nonsense", "ISO_IR 6"),
    "PatientID": ("SOMEONE-ELSE", "", " LUNGSTAGE-PHANTOM "),
    "PatientName": ("Other^Person", "", "A" * 300),
    "PatientSex": ("F", "X", ""),
    "StudyDate": ("99999999", "", "2026-01-01", "20260101\\20260102"),
    "ManufacturerModelName": ("lungstage", "LUNGSTAGE"),
    "BurnedInAnnotation": ("YES",),
    "LossyImageCompression": ("01", "XX"),
}
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID")


@contextlib.contextmanager
def _anything_goes() -> Iterator[None]:
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = IGNORE
    try:
        yield
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before


def load(content: bytes) -> Dataset:
    """Read a sound file."""
    return pydicom.dcmread(io.BytesIO(content))


def save(dataset: Dataset) -> bytes:
    """Write a changed dataset."""
    buffer = io.BytesIO()
    with _anything_goes():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_as(dataset: Dataset, keyword: str, vr: str, value: Any) -> None:
    """Set an element to an unchecked value."""
    with _anything_goes():
        dataset.add(DataElement(keyword, vr, value, already_converted=True))


def edited(files: Files, names: Sequence[str], edit: Callable[[Dataset], object]) -> Changes:
    """Apply `edit` to some files."""
    changes: Changes = {}
    for name in names:
        dataset = load(files[name])
        with _anything_goes():
            edit(dataset)
            changes[name] = save(dataset)
    return changes


def slices_of(files: Files) -> list[str]:
    return sorted(name for name in files if name.startswith("ct"))


def roi_of(files: Files) -> str:
    return min(name for name in files if not name.startswith("ct"))


def _some(files: Files, chance: Chance) -> list[str]:
    """One slice, or all of them."""
    names = slices_of(files)
    return names if chance.random() < 0.4 else [chance.choice(names)]


# --- values ------------------------------------------------------------------------------------------------------


def _holders(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the datasets, at every depth, that contain an element."""
    inner = [item for element in dataset if element.VR == "SQ" for item in element.value]
    return [d for d in (dataset,) if keyword in d] + [d for item in inner for d in _holders(item, keyword)]


def _odd_decimals(whole: Dataset, keyword: str, chance: Chance) -> None:
    dataset = chance.choice(_holders(whole, keyword) or [whole])
    values = [str(v) for v in np.atleast_1d(dataset.get(keyword, "1"))]
    k = chance.randrange(len(values))
    kind = chance.randrange(6)
    with contextlib.suppress(ValueError):
        if kind == 0:
            values[k] = chance.choice(ODD_NUMBERS)
        elif kind == 1:
            values[k] = repr(float(values[k]) + chance.choice((1e-9, 1e-6, 1e-4, 0.004, 0.01, 0.03, 0.1, 1.0, -3.0)))[
                :16
            ]
        elif kind == 2:
            values[k] = repr(float(values[k]) * chance.choice((1.00001, 1.001, 1.5, 2, -1, 1e6)))[:16]
        elif kind == 3:
            values = values + values[:1] if chance.random() < 0.5 else values[:-1]
        elif kind == 4:
            chance.shuffle(values)
        else:
            place = chance.randrange(len(values[k]) + 1)
            values[k] = values[k][:place] + chance.choice("0123456789_.-e ") + values[k][place + 1 :]
    write_as(dataset, keyword, "DS", "\\".join(values))


def decimals(files: Files, chance: Chance) -> Changes:
    """Change a number of geometry or rescale, in one slice or equally in all."""
    keyword, seed = chance.choice(_GEOMETRY), chance.random()
    return edited(files, _some(files, chance), lambda d: _odd_decimals(d, keyword, Chance(seed)))


def counts(files: Files, chance: Chance) -> Changes:
    """Set rows, columns, bits, samples or padding that do not fit the pixels."""
    keyword, value = chance.choice(_ENCODING), chance.choice(ODD_COUNTS)
    vr = chance.choice(("US", "US", "US", "SS"))
    value = min(value, 32767) if vr == "SS" else value
    return edited(files, _some(files, chance), lambda d: write_as(d, keyword, vr, value))


def transposed(files: Files, chance: Chance) -> Changes:
    """Set another matrix with as many pixels."""

    def edit(dataset: Dataset) -> None:
        rows, columns = dataset.Rows, dataset.Columns
        factor = chance.choice((0, 2, 4))
        dataset.Rows, dataset.Columns = (rows // factor, columns * factor) if factor else (columns, rows)

    return edited(files, _some(files, chance), edit)


def bits(files: Files, chance: Chance) -> Changes:
    """Set bits that agree with each other and not with the pixels."""
    stored, signed = chance.choice((8, 10, 12, 16)), chance.choice((0, 1))

    def edit(dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, stored - 1, signed

    return edited(files, _some(files, chance), edit)


def frames(files: Files, chance: Chance) -> Changes:
    """Set an invalid Number of Frames."""
    value = chance.choice(("0", "1", "2", "-1", "1000000", "1\\1", "", "2147483648", "1_", "one"))
    return edited(files, [chance.choice(list(files))], lambda d: write_as(d, "NumberOfFrames", "IS", value))


def terms(files: Files, chance: Chance) -> Changes:
    """Change a decisive word: modality, image type, unit, body part, patient."""
    keyword = chance.choice(list(_TERMS))
    value = chance.choice(_TERMS[keyword])
    names = _some(files, chance) if chance.random() < 0.8 else [roi_of(files)]
    vr = pydicom.datadict.dictionary_VR(pydicom.datadict.tag_for_keyword(keyword))
    return edited(files, names, lambda d: write_as(d, keyword, vr, value))


def texts(files: Files, chance: Chance) -> Changes:
    """Replace a text by one that causes errors elsewhere."""

    def edit(dataset: Dataset) -> None:
        candidates = [e for e in dataset.iterall() if isinstance(e.value, str) and e.VR not in ("DS", "IS")]
        element = chance.choice(candidates)
        element._value = chance.choice(ODD_TEXTS)

    return edited(files, [chance.choice(list(files))], edit)


def lost_element(files: Files, chance: Chance) -> Changes:
    """Remove an element, at any depth."""

    def edit(dataset: Dataset) -> None:
        holder = dataset
        while True:
            sequences = [e for e in holder if e.VR == "SQ" and len(e.value)]
            if not sequences or chance.random() < 0.5:
                break
            holder = chance.choice(list(chance.choice(sequences).value))
        if len(holder):
            del holder[chance.choice(list(holder.keys()))]

    return edited(files, [chance.choice(list(files))], edit)


def other_vr(files: Files, chance: Chance) -> Changes:
    """Give a valid value another Value Representation."""

    def edit(dataset: Dataset) -> None:
        element = chance.choice([e for e in dataset if e.VR not in ("SQ", "OW", "OB")])
        vr = chance.choice(("LO", "UT", "ST", "CS", "IS", "DS", "UI", "PN"))
        dataset[element.tag] = DataElement(element.tag, vr, str(element.value), already_converted=True)

    return edited(files, [chance.choice(list(files))], edit)


def pixels(files: Files, chance: Chance) -> Changes:
    """Change pixels: some, all, too few, too many."""

    def edit(dataset: Dataset) -> None:
        value = bytearray(dataset.PixelData)
        kind = chance.randrange(5)
        if kind == 0:
            for _ in range(chance.choice((1, 20, 400))):
                value[chance.randrange(len(value))] = chance.randrange(256)
        elif kind == 1:
            value[:] = bytes(len(value))
        elif kind == 2:
            del value[len(value) // 2 :]
        elif kind == 3:
            value += value[: chance.choice((2, len(value)))]
        else:
            value[:] = chance.randbytes(len(value))
        dataset.PixelData = bytes(value)

    candidates = [name for name in files if "PixelData" in load(files[name])]
    return edited(files, [chance.choice(candidates)], edit)


# --- structure ---------------------------------------------------------------------------------------------------


def private(files: Files, chance: Chance) -> Changes:
    """Add a private element of unusual size."""
    size = chance.choice((10, 70_000, 1_000_000, 20_000_000))
    vr = chance.choice(("OB", "UN", "LT", "OW", "UT"))

    def edit(dataset: Dataset) -> None:
        value: Any = bytes(size) if vr in ("OB", "UN", "OW") else "x" * min(size, 65_000)
        dataset.add(DataElement(0x00090010, "LO", "NOBODY"))
        dataset.add(DataElement(0x00091001, vr, value))

    return edited(files, [chance.choice(list(files))], edit)


def recoded(files: Files, chance: Chance) -> Changes:
    """Convert slices correctly to another transfer syntax."""
    syntax = chance.choice((pydicom.uid.RLELossless, pydicom.uid.JPEGLSLossless, pydicom.uid.ImplicitVRLittleEndian))

    def edit(dataset: Dataset) -> None:
        if syntax.is_encapsulated:
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax

    return edited(files, _some(files, chance), edit)


# --- identity ----------------------------------------------------------------------------------------------------


def uid_clash(files: Files, chance: Chance) -> Changes:
    """Set a UID of another object, or of none."""
    name, other = chance.sample(list(files), 2)
    keyword, source = chance.choice(_UIDS), chance.choice(_UIDS)
    fresh = chance.choice((True, False, False))
    value = generate_uid(entropy_srcs=[str(chance.random())]) if fresh else str(load(files[other]).get(source, "1.2"))

    def edit(dataset: Dataset) -> None:
        setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    names = _some(files, chance) if name.startswith("ct") and chance.random() < 0.3 else [name]
    return edited(files, names, edit)


def swapped(files: Files, chance: Chance) -> Changes:
    """Exchange position, UID or pixels of two slices."""
    first, second = chance.sample(slices_of(files), 2)
    keyword = chance.choice(("ImagePositionPatient", "SOPInstanceUID", "PixelData", "PixelSpacing"))
    a, b = load(files[first]), load(files[second])
    mine, theirs = deepcopy(a[keyword]), deepcopy(b[keyword])
    a[keyword], b[keyword] = theirs, mine
    return {first: save(a), second: save(b)}


def dropped(files: Files, chance: Chance) -> Changes:
    """Remove a file."""
    return {chance.choice(list(files)): None}


def doubled(files: Files, chance: Chance) -> Changes:
    """Add a second copy of a file: equal, under another UID, or changed under the same UID."""
    name = chance.choice(list(files))
    kind = chance.randrange(4)
    if kind == 0:
        return {f"{name}-copy": files[name]}

    def edit(dataset: Dataset) -> None:
        if kind == 1:
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(chance.random())])
        elif kind == 2 and "PixelData" in dataset:
            dataset.PixelData = bytes(len(dataset.PixelData))
        else:
            _odd_decimals(dataset, "ImagePositionPatient", chance)

    return {f"{name}-copy": edited(files, [name], edit)[name]}


# --- regions -----------------------------------------------------------------------------------------------------


def _contour_items(dataset: Dataset) -> list[Dataset]:
    return [c for item in dataset.get("ROIContourSequence", ()) for c in item.get("ContourSequence", ())]


def _edit_contours(dataset: Dataset, chance: Chance) -> None:
    contours = _contour_items(dataset)
    one, other = chance.choice(contours), chance.choice(contours)
    values = [str(v) for v in one.ContourData]
    k = chance.randrange(len(values))
    kind = chance.randrange(13)
    if kind == 0:
        values[k] = chance.choice(ODD_NUMBERS)
    elif kind == 1:
        values[k] = f"{float(values[k]) + chance.choice((1e-6, 0.01, 0.05, 0.3, 2.0, 500.0)):.10g}"
    elif kind == 2:
        values = values[: chance.choice((3, 6, len(values) - 3, len(values) - 1))]
    elif kind == 3:
        place = chance.randrange(len(values[k]) + 1)
        values[k] = values[k][:place] + chance.choice("0123456789_.-e\\ ") + values[k][place + 1 :]
    elif kind == 4:
        one.ContourGeometricType = chance.choice(("OPEN_PLANAR", "POINT", "", "CLOSEDPLANAR_XOR", "CLOSED_NONPLANAR"))
    elif kind == 5:
        one.NumberOfContourPoints = chance.choice((0, 3, 10**6, -1))
    elif kind == 6:
        one.ContourImageSequence, other.ContourImageSequence = (
            other.get("ContourImageSequence", []), one.get("ContourImageSequence", []),
        )  # fmt: skip
    elif kind == 7:
        image = Dataset()
        image.ReferencedSOPInstanceUID = chance.choice((generate_uid(), "", "Jane^Doe"))
        one.ContourImageSequence = chance.choice(([image], [image, image], []))
    elif kind == 8:
        moved = float(chance.choice((0.05, 0.3, 3.0, -3.0)))
        values = [f"{float(v) + moved:.10g}" if n % 3 == 2 else v for n, v in enumerate(values)]
    elif kind == 9:
        values = values * chance.choice((2, 50, 2000))
        one.NumberOfContourPoints = len(values) // 3
    elif kind == 10:
        values = values[::-1]
    elif kind == 11:
        values = [f"{float(v) + (6.0 if n % 3 == 0 else 0.0):.10g}" for n, v in enumerate(values)]
    else:
        values = values[3:] + values[:3]
    write_as(one, "ContourData", "DS", "\\".join(values))


def _edit_structures(dataset: Dataset, chance: Chance) -> None:
    rois, items = dataset.StructureSetROISequence, dataset.ROIContourSequence
    roi, item = chance.choice(list(rois)), chance.choice(list(items))
    kind = chance.randrange(12)
    contours = item.get("ContourSequence", Items([]))
    if kind == 0:
        roi.ROINumber = chance.choice((1, 2, 99, -1))
    elif kind == 1:
        item.ReferencedROINumber = chance.choice((1, 2, 99))
    elif kind == 2:
        roi.ROIName = chance.choice(("GTV-1", "GTV-2", "", "gtv Smith", "Lung", "GTV-1 ", "primary", "A" * 5000))
    elif kind == 3:
        roi.ReferencedFrameOfReferenceUID = generate_uid()
    elif kind == 4:
        del contours[chance.randrange(len(contours)) :]
    elif kind == 5:
        contours.append(deepcopy(chance.choice(list(contours))))
    elif kind == 6:
        del contours[chance.randrange(len(contours))]
    elif kind == 7:
        items.append(deepcopy(item))
    elif kind == 8:
        rois.append(deepcopy(roi))
    elif kind == 9:
        other = chance.choice(list(items))
        other.ContourSequence.append(deepcopy(chance.choice(list(contours))))
    elif kind == 10:
        write_as(item, "ReferencedROINumber", "IS", chance.choice(("1_", "0_1", "1.0", "", "+1", "01", "1\\2")))
    else:
        for frame in dataset.ReferencedFrameOfReferenceSequence:
            frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = chance.choice(
                (generate_uid(), "", "Jane^Doe", "1.2")
            )


def _edit_segmentation(dataset: Dataset, chance: Chance) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence
    one, other = chance.choice(list(groups)), chance.choice(list(groups))
    kind = chance.randrange(14)
    if kind == 0:
        dataset.NumberOfFrames = chance.choice((0, 1, len(groups) - 1, len(groups) + 1, 10**6))
    elif kind == 1:
        dataset.Rows, dataset.Columns = chance.choice(((48, 40), (65535, 65535), (20, 96), (0, 0), (80, 24)))
    elif kind == 2:
        dataset.BitsAllocated = chance.choice((1, 8, 16, 3))
    elif kind == 3:
        position = one.PlanePositionSequence[0]
        values = [float(v) for v in position.ImagePositionPatient]
        values[chance.randrange(3)] += chance.choice((1e-4, 0.005, 0.02, 1.0, 3.0, -3.0))
        position.ImagePositionPatient = [f"{v:.10g}" for v in values]
    elif kind == 4:
        one.PlanePositionSequence, other.PlanePositionSequence = other.PlanePositionSequence, one.PlanePositionSequence
    elif kind == 5:
        one.DerivationImageSequence = chance.choice((other.get("DerivationImageSequence", []), []))
    elif kind == 6:
        del groups[chance.randrange(len(groups))]
    elif kind == 7:
        groups.append(deepcopy(one))
        dataset.NumberOfFrames = len(groups)
        dataset.PixelData = dataset.PixelData + dataset.PixelData[: 40 * 48 // 8]
    elif kind == 8:
        dataset.SegmentSequence.append(deepcopy(dataset.SegmentSequence[0]))
    elif kind == 9:
        dataset.SegmentSequence[0].SegmentNumber = chance.choice((0, 2, 65535))
    elif kind == 10:
        dataset.SegmentationType = chance.choice(("FRACTIONAL", "LABELMAP", "", "BINARY "))
    elif kind == 11:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        del shared[chance.choice(list(shared.keys()))]
    elif kind == 12:
        measures = dataset.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
        if measures:
            measures[0].PixelSpacing = chance.choice(([1.25, 1.0], [1.0, 1.2500001], [1.0, 1.2502], [1.0], [0, 0]))
    else:
        dataset.SegmentSequence[0].SegmentLabel = chance.choice(("", "Jane Doe", "Node", "A" * 300))


def region(files: Files, chance: Chance) -> Changes:
    """Change contours, numbers and references of a structure set, or frames of a segmentation."""

    def edit(dataset: Dataset) -> None:
        if dataset.SOPClassUID == RTStructureSetStorage:
            chance.choice((_edit_contours, _edit_contours, _edit_structures))(dataset, chance)
        elif dataset.SOPClassUID != CTImageStorage:
            _edit_segmentation(dataset, chance)

    return edited(files, [roi_of(files)], edit)


STUDY_MUTATORS: tuple[StudyMutator, ...] = (
    decimals, decimals, decimals, counts, counts, transposed, bits, frames, terms, terms, texts, lost_element, other_vr,
    pixels, private, recoded, uid_clash, uid_clash, swapped, dropped, doubled, region, region, region, region,
    region,
)  # fmt: skip


# --- large ones; a few are enough -----------------------------------------------------------------------------------


def many_points(files: Files, chance: Chance) -> Changes:
    """Make a contour of up to a million points."""
    count = chance.choice((10_000, 100_000, 1_000_000))

    def edit(dataset: Dataset) -> None:
        one = chance.choice(_contour_items(dataset))
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        x, y, z = (float(v) for v in one.ContourData[:3])
        points = np.column_stack([x + 9 + 8 * np.cos(angle), y + 8 + 6 * np.sin(angle), np.full(count, z)])
        one.NumberOfContourPoints = count
        write_as(one, "ContourData", "DS", "\\".join(f"{v:.4f}" for v in points.ravel()))
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian  # explicit ones hold 64 KB

    return edited(files, [roi_of(files)], edit)


def many_contours(files: Files, chance: Chance) -> Changes:
    """Make up to a hundred thousand contours."""
    count = chance.choice((1_000, 10_000, 100_000))

    def edit(dataset: Dataset) -> None:
        contours = dataset.ROIContourSequence[0].ContourSequence
        tiny = deepcopy(contours[0])
        tiny.ContourData, tiny.NumberOfContourPoints = tiny.ContourData[:9], 3
        contours.extend([tiny] * count)

    return edited(files, [roi_of(files)], edit)


def many_frames(files: Files, chance: Chance) -> Changes:
    """Make a SEG of up to twenty thousand frames."""
    count = chance.choice((1_000, 20_000))

    def edit(dataset: Dataset) -> None:
        groups = dataset.PerFrameFunctionalGroupsSequence
        groups.extend([groups[0]] * count)
        dataset.NumberOfFrames = len(groups)
        dataset.PixelData = dataset.PixelData + bytes(40 * 48 // 8 * count)

    return edited(files, [roi_of(files)], edit)


def bomb(files: Files, chance: Chance) -> Changes:
    """Make a deflated file of a megabyte that inflates to a gigabyte."""
    import zlib

    name = chance.choice(list(files))
    dataset = load(files[name])
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    front = save(dataset)
    at = 144 + dataset.file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    body = zlib.decompress(front[at:], wbits=-zlib.MAX_WBITS)
    megabyte = bytes(1 << 20)
    packed = [packer.compress(body), *(packer.compress(megabyte) for _ in range(1024)), packer.flush()]
    return {name: front[:at] + b"".join(packed)}


LARGE: tuple[StudyMutator, ...] = (many_points, many_contours, many_frames, bomb)
