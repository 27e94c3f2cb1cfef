"""Pixel Data of CT, Enhanced CT and SEG that differ from header or transfer syntax are refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pack_bits
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.files import read_dataset
from lungstage.appliance.dicom.pixeldata import fault_of
from lungstage.appliance.dicom.segment_pixels import certain_frames, segment_pixels
from tests.appliance.dicom.test_bad_input import code_of, measured
from tests.support.enhanced import enhanced_rtstruct_study, item
from tests.support.studies import Study, rtstruct_study, seg_study, square_mask

Change = Callable[[Dataset], None]

COMPRESSED = (JPEGBaseline8Bit, JPEGLossless, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, RLELossless)


def _tail(tail: bytes) -> Change:
    def change(dataset: Dataset) -> None:
        dataset.PixelData += tail

    return change


def _in_fragments(dataset: Dataset) -> None:
    """Fragments under a native transfer syntax; highdicom and OHIF have written such files."""
    dataset.PixelData = encapsulate([dataset.PixelData[k : k + 4096] for k in range(0, len(dataset.PixelData), 4096)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True


def _called(syntax: UID) -> Change:
    """Decompressed pixels that keep the old transfer syntax."""

    def change(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


def _saved(study: Study, folder: Path) -> Path:
    """Write a study that pydicom would refuse to write."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, dataset in enumerate([*study.rois, *study.slices]):
        syntax = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta.TransferSyntaxUID = (
            RLELossless if dataset.get("PixelData") and _is_open(dataset) else ExplicitVRLittleEndian
        )
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        written = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta.TransferSyntaxUID = syntax
        (folder / f"{k:04}").write_bytes(_renamed(buffer.getvalue(), written, syntax))
    return folder


def _is_open(dataset: Dataset) -> bool:
    return bool(dataset["PixelData"].is_undefined_length)


def _renamed(content: bytes, old: UID, new: UID) -> bytes:
    def element(uid: UID) -> bytes:
        value = uid.encode() + bytes(len(uid) % 2)
        return b"\2\0\x10\0UI" + len(value).to_bytes(2, "little") + value

    assert element(old) in content
    return content.replace(element(old), element(new), 1)


STUDIES = {"CT": rtstruct_study, "Enhanced CT": enhanced_rtstruct_study, "SEG": seg_study}
CODES = {"CT": "pixel_data_unreadable", "Enhanced CT": "dicom_unreadable", "SEG": "roi_unreadable"}


def _changed(kind: str, change: Change) -> Study:
    study = STUDIES[kind]()
    for dataset in study.rois if kind == "SEG" else study.slices:
        change(dataset)
    return study


@pytest.mark.parametrize("kind", STUDIES)
@pytest.mark.parametrize("tail", [b"", bytes(2), bytes(4)], ids=len)
def test_a_short_tail_of_zeros_changes_nothing(tail: bytes, kind: str, tmp_path: Path) -> None:
    plain = measured(STUDIES[kind]().write(tmp_path / "plain"))
    padded = measured(_changed(kind, _tail(tail)).write(tmp_path / "padded"))
    assert padded["status"] == "measured"
    assert padded["features"] == plain["features"]


LIES: dict[str, Change] = {
    "a tail of one row": _tail(bytes(96)),
    "a tail that is not zero": _tail(b"\0\1"),
    "pixels missing": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-2]),
    "fragments under a native syntax": _in_fragments,
    **{f"native under {syntax.name}": _called(syntax) for syntax in COMPRESSED},
}


@pytest.mark.parametrize("kind", STUDIES)
@pytest.mark.parametrize("lie", LIES)
def test_pixels_that_are_not_what_is_said_are_refused(lie: str, kind: str, tmp_path: Path) -> None:
    outcome = measured(_saved(_changed(kind, LIES[lie]), tmp_path))
    assert (outcome["status"], outcome["reason"]["code"]) == ("refused", CODES[kind])
    assert ("fragments" in outcome["reason"]["message"]) == ("fragments" in lie or "native under" in lie)
    assert outcome["features"] is None


def test_native_pixels_that_look_like_a_codestream_are_refused(tmp_path: Path) -> None:
    """One value without fragments that begins like JPEG."""
    study = rtstruct_study()
    for dataset in study.slices:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.PixelData = b"\xff\xd8\xff\xe0" + bytes(40 * 48 - 4)
        _called(JPEGBaseline8Bit)(dataset)
    assert measured(_saved(study, tmp_path))["reason"]["code"] == "pixel_data_unreadable"


def _image(rows: int, columns: int, allocated: int, frames: int, value: bytes) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.NumberOfFrames = rows, columns, allocated, frames
    dataset.SamplesPerPixel = 1
    dataset.add_new("PixelData", "OW", value)
    return dataset


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 8, 16]), st.integers(1, 4),
    st.integers(0, 5), st.integers(0, 5), st.integers(0, 1),
)  # fmt: skip
def test_no_lie_that_makes_an_image_smaller_passes(
    rows: int, columns: int, allocated: int, frames: int, fewer_rows: int, fewer_columns: int, fewer_frames: int
) -> None:
    """All pixels are zero, so that only the size can show the fault."""
    size = -(-rows * columns * allocated * frames // 8)
    stated = rows - fewer_rows, columns - fewer_columns, allocated, frames - fewer_frames
    if min(stated) < 1:
        return
    fault = fault_of(_image(*stated, bytes(size + size % 2)), stated[3])
    true = stated == (rows, columns, allocated, frames)
    same_length = -(-stated[0] * stated[1] * allocated * stated[3] // 8) in (size, size + size % 2 - 1, size + size % 2)
    assert (fault == "") == (true or same_length), fault


# --- segmentations -----------------------------------------------------------------------------------------------


def _frames(dataset: Dataset, frames: npt.NDArray[np.uint8], *, padded: Sequence[int] = ()) -> None:
    """Put frames into a SEG; each group of frames in `padded` is packed separately."""
    dataset.Rows, dataset.Columns = frames.shape[1:]
    parts = np.split(frames, np.cumsum(padded)[:-1]) if padded else [frames]
    value = b"".join(np.packbits(part.ravel(), bitorder="little").tobytes() for part in parts)
    dataset.PixelData = value + bytes(len(value) % 2)


def _seg(frames: npt.NDArray[np.uint8], runs: Sequence[int], **how: Sequence[int]) -> Dataset:
    """A binary SEG with one segment for each run of frames."""
    dataset = seg_study().rois[0]
    groups = [
        item(SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)])
        for number, count in enumerate(runs, start=1)
        for _ in range(count)
    ]
    dataset.PerFrameFunctionalGroupsSequence, dataset.NumberOfFrames = groups, len(frames)
    del dataset.SharedFunctionalGroupsSequence
    _frames(dataset, frames, **how)
    return dataset


def _noise(count: int, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 2, (count, rows, columns), dtype=np.uint8)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_frames_are_read_as_they_were_packed_or_refused(
    rows: int, columns: int, runs: list[int], data: st.DataObject
) -> None:
    """Frames may be packed all together, one by one or by segment; they are never read shifted."""
    frames = _noise(sum(runs), rows, columns)
    padded = data.draw(st.sampled_from([(), (1,) * len(frames), tuple(runs)]))
    dataset = _seg(frames, runs, padded=padded)
    try:
        read = segment_pixels(dataset)
    except Refused as refused:
        assert refused.reason.code == "roi_unreadable"  # noqa: PT017
    else:
        certain = certain_frames(dataset)
        assert certain > 0
        assert (read[:certain] == frames[:certain]).all()


def test_frames_of_whole_bytes_need_no_guess() -> None:
    frames = _noise(7, 16, 8)
    dataset = _seg(frames, [3, 4])
    assert certain_frames(dataset) == 7
    assert (segment_pixels(dataset) == frames).all()


def test_one_segment_of_odd_frames_is_read() -> None:
    frames = _noise(20, 25, 25)
    dataset = _seg(frames, [20])
    assert certain_frames(dataset) == 20
    assert (segment_pixels(dataset) == frames).all()


@pytest.mark.parametrize(("first", "status"), [("GTV-1", "measured"), ("Heart", "refused")])
def test_a_segment_behind_a_gap_that_may_be_there_is_refused(first: str, status: str, tmp_path: Path) -> None:
    """Two segments with frames of 39 by 47 voxels: padding after the first would not change the file's length."""
    study = seg_study()
    for image in study.slices:
        image.PixelData = np.ascontiguousarray(image.pixel_array[:39, :47]).tobytes()
        image.Rows, image.Columns = 39, 47
    seg = study.rois[0]
    frames = seg.pixel_array[:, :39, :47]
    one, groups = seg.SegmentSequence[0], list(seg.PerFrameFunctionalGroupsSequence)
    for part in (*seg.SharedFunctionalGroupsSequence, *groups):
        if "SegmentIdentificationSequence" in part:
            del part.SegmentIdentificationSequence
    seg.SegmentSequence.append(deepcopy(one))
    names = {"GTV-1": ("GTV-1", "Heart"), "Heart": ("Heart", "GTV-1")}[first]
    seg.PerFrameFunctionalGroupsSequence = []
    for number, name in enumerate(names, start=1):
        segment = seg.SegmentSequence[number - 1]
        segment.SegmentNumber, segment.SegmentLabel = number, name
        for group in groups:
            again = deepcopy(group)
            again.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=number)]
            seg.PerFrameFunctionalGroupsSequence.append(again)
    seg.NumberOfFrames = 2 * len(frames)
    _frames(seg, np.concatenate([frames, frames]))
    outcome = measured(study.write(tmp_path), roi_name="GTV-1")
    assert outcome["status"] == status
    assert status == "measured" or outcome["reason"]["code"] == "roi_unreadable"


def _bytes_of(value: int) -> Change:
    def change(dataset: Dataset) -> None:
        frames = dataset.pixel_array * value
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = frames.astype(np.uint8).tobytes()

    return change


def test_a_byte_for_each_voxel_is_read(tmp_path: Path) -> None:
    plain = measured(seg_study().write(tmp_path / "bits"))
    assert measured(_changed("SEG", _bytes_of(1)).write(tmp_path / "bytes"))["features"] == plain["features"]


@pytest.mark.parametrize("value", [2, 255])
def test_binary_is_0_and_1(value: int, tmp_path: Path) -> None:
    assert code_of(_changed("SEG", _bytes_of(value)), tmp_path) == ("refused", "roi_unreadable")


@pytest.mark.parametrize("full", [None, 0])
def test_fractions_of_nothing_are_refused(full: int | None, tmp_path: Path) -> None:
    study = _changed("SEG", _bytes_of(1))
    study.rois[0].SegmentationType = "FRACTIONAL"
    study.rois[0].MaximumFractionalValue = full
    assert code_of(study, tmp_path) == ("refused", "roi_unreadable")


def test_a_segmentation_of_a_real_matrix_survives(tmp_path: Path) -> None:
    """pydicom packs frames that do not end at a byte."""
    study = seg_study(square_mask())
    whole = deepcopy(study.rois[0])
    frames = whole.pixel_array[:, :39, :47]
    whole.Rows, whole.Columns, whole.PixelData = 39, 47, pack_bits(np.ascontiguousarray(frames).ravel(), pad=True)
    whole.save_as(tmp_path / "seg", enforce_file_format=True)
    assert (segment_pixels(read_dataset(tmp_path / "seg")) == frames).all()
