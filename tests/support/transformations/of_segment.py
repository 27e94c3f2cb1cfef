"""Changes to a SEG: how viewers, research tools and conversions write it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.support.transformations.of_ct import without
from tests.support.transformations.registry import Phase, Right, changes
from tests.support.transformations.study import Drawing, Study, Unfit, frames_of, rename, set_frames, stored, uid

_EITHER, _REFUSED = Right.EITHER, Right.REFUSED
_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


def _odd(drawing: Drawing) -> Drawing:
    return replace(drawing, matrix=(39, 47))


def _groups(segment: Dataset) -> list[Dataset]:
    return list(segment.PerFrameFunctionalGroupsSequence)


def _own(segment: Dataset, group: Dataset, keyword: str) -> Dataset:
    """Return the item of a frame's functional group; if it has none, copy the shared group to the frame."""
    if keyword not in group:
        setattr(group, keyword, deepcopy(segment.SharedFunctionalGroupsSequence[0].get(keyword)))
    item: Dataset = group.get(keyword)[0]
    return item


def _item(segment: Dataset, keyword: str) -> Dataset:
    """Return the item of a shared functional group."""
    shared = segment.SharedFunctionalGroupsSequence[0]
    if keyword not in shared:
        raise Unfit
    item: Dataset = shared.get(keyword)[0]
    return item


def _position(segment: Dataset, group: Dataset) -> np.ndarray:
    return np.array(_own(segment, group, "PlanePositionSequence").ImagePositionPatient, dtype=float)


def _move(segment: Dataset, group: Dataset, to: np.ndarray) -> None:
    _own(segment, group, "PlanePositionSequence").ImagePositionPatient = [f"{value:.10g}" for value in to]


def _turn(study: Study, down: int, across: int) -> None:
    """Store each frame with its columns or rows in reverse order; the voxels are the same."""
    segment = study.segment
    item = _item(segment, "PlaneOrientationSequence")
    axes = np.array(item.ImageOrientationPatient, dtype=float).reshape(2, 3)
    spacing = np.array(_item(segment, "PixelMeasuresSequence").PixelSpacing, dtype=float)
    frames = frames_of(segment)
    corner = (down < 0) * axes[1] * spacing[0] * (int(segment.Rows) - 1)
    corner = corner + (across < 0) * axes[0] * spacing[1] * (int(segment.Columns) - 1)
    set_frames(segment, frames[:, ::down, ::across])
    item.ImageOrientationPatient = [f"{v + 0.0:.10g}" for v in (*(axes[0] * across), *(axes[1] * down))]
    for group in _groups(segment):
        _move(segment, group, _position(segment, group) + corner)


@changes("segment")
def frames_upside_down(study: Study) -> None:
    _turn(study, -1, 1)


@changes("segment")
def frames_mirrored(study: Study) -> None:
    _turn(study, 1, -1)


@changes("segment")
def frames_turned_by_half(study: Study) -> None:
    _turn(study, -1, -1)


@changes("segment")
def frames_transposed(study: Study) -> None:
    segment = study.segment
    item, measures = _item(segment, "PlaneOrientationSequence"), _item(segment, "PixelMeasuresSequence")
    set_frames(segment, frames_of(segment).transpose(0, 2, 1))
    item.ImageOrientationPatient = [*item.ImageOrientationPatient[3:], *item.ImageOrientationPatient[:3]]
    measures.PixelSpacing = list(measures.PixelSpacing)[::-1]


@changes("segment")
def segmentation_in_another_study(study: Study) -> None:
    study.segment.StudyInstanceUID = uid("the segmentation's own study")
    listed = study.segment.get("ReferencedSeriesSequence")
    if listed:
        of = Dataset()
        of.StudyInstanceUID, of.ReferencedSeriesSequence = study.ct[0].StudyInstanceUID, deepcopy(listed)
        study.segment.StudiesContainingOtherReferencedInstancesSequence = [of]
        del study.segment.ReferencedSeriesSequence


@changes("segment")
def bits_in_bytes(study: Study) -> None:
    segment = study.segment
    frames = frames_of(segment)
    segment.BitsAllocated = segment.BitsStored = 8
    segment.HighBit = 7
    set_frames(segment, frames)


@changes("segment", _REFUSED)
def bytes_of_255(study: Study) -> None:
    bits_in_bytes(study)
    set_frames(study.segment, frames_of(study.segment) * 255)


@changes("segment", _EITHER)
def label_map(study: Study) -> None:
    bits_in_bytes(study)
    segment = study.segment
    segment.SOPClassUID = segment.file_meta.MediaStorageSOPClassUID = _LABEL_MAP
    segment.SegmentationType = "LABELMAP"
    for group in (*_groups(segment), *segment.SharedFunctionalGroupsSequence):
        without(group, "SegmentIdentificationSequence")


@changes("segment")
def fractions_that_are_whole(study: Study) -> None:
    bits_in_bytes(study)
    segment = study.segment
    segment.SegmentationType, segment.SegmentationFractionalType = "FRACTIONAL", "OCCUPANCY"
    segment.MaximumFractionalValue = 200
    set_frames(segment, frames_of(segment) * 200)


@changes("segment", _REFUSED)
def fractions(study: Study) -> None:
    fractions_that_are_whole(study)
    frames = frames_of(study.segment).copy()
    frames[:, 18] //= 2
    set_frames(study.segment, frames)
    study.nothing_is_right()


def _on_regular_grid(drawing: Drawing) -> Drawing:
    return replace(drawing, step=3.27, decimals=1)


@changes("segment", draw=_on_regular_grid)
def frames_on_a_regular_grid(study: Study) -> None:
    """The frames are at multiples of the step, but the scanner has rounded its positions."""
    segment, heights = study.segment, study.truth.places[0]
    for group in _groups(segment):
        place = _position(segment, group)
        k = int(np.abs(heights - place[2]).argmin())
        _move(segment, group, np.array([place[0], place[1], heights[0] + k * study.drawing.step]))


@changes("segment", _EITHER, Phase.PIXELS, draw=_odd)
def frames_padded_to_bytes(study: Study) -> None:
    frames = frames_of(study.segment)
    if int(study.segment.BitsAllocated) != 1 or frames[0].size % 8 == 0:
        raise Unfit
    _pack(study.segment, [frame[None] for frame in frames])


@changes("segment", _EITHER, Phase.PIXELS, draw=_odd)
def segments_packed_one_by_one(study: Study) -> None:
    """A lymph node comes before the tumour, and the bits of each segment are padded to a byte."""
    segment = study.segment
    own = _groups(segment)
    frames = frames_of(segment)
    if int(segment.BitsAllocated) != 1 or len(segment.SegmentSequence) != 1 or frames[0].size % 8 == 0:
        raise Unfit
    node = _second_segment(segment, "Lymph node", 3)
    groups = [_numbered(segment, group, node) for group in deepcopy(own[:3])]
    for group in own:
        _numbered(segment, group, 1)
    segment.PerFrameFunctionalGroupsSequence = groups + own
    segment.NumberOfFrames = len(own) + 3
    _pack(segment, [np.roll(frames[:3], 9, axis=2), frames])


def _pack(segment: Dataset, parts: list[Any]) -> None:
    packed = b"".join(np.packbits(np.ascontiguousarray(part).ravel(), bitorder="little").tobytes() for part in parts)
    segment.PixelData = packed + b"\0" * (len(packed) % 2)


def _second_segment(segment: Dataset, label: str, code: int) -> int:
    """Describe another segment; `code` selects its type."""
    number = len(segment.SegmentSequence) + 1
    other = deepcopy(segment.SegmentSequence[0])
    other.SegmentNumber, other.SegmentLabel = number, label
    without(other, "TrackingID", "TrackingUID")
    kind = other.SegmentedPropertyTypeCodeSequence[0]
    kind.CodeValue, kind.CodeMeaning = {2: ("80891009", "Heart"), 3: ("59441001", "Lymph node")}[code]
    kind.CodingSchemeDesignator = "SCT"
    if code == 2:
        category = other.SegmentedPropertyCategoryCodeSequence[0]
        category.CodeValue, category.CodeMeaning = "123037004", "Anatomical Structure"
        category.CodingSchemeDesignator = "SCT"
    segment.SegmentSequence.append(other)
    return number


def _numbered(segment: Dataset, group: Dataset, number: int) -> Dataset:
    _own(segment, group, "SegmentIdentificationSequence").ReferencedSegmentNumber = number
    if "FrameContentSequence" in group:
        values = group.FrameContentSequence[0].get("DimensionIndexValues")
        group.FrameContentSequence[0].DimensionIndexValues = [number, *list(values or [1, 1])[1:]]
    return group


@changes("segment")
def heart_beside(study: Study) -> None:
    segment = study.segment
    if segment.SOPClassUID == _LABEL_MAP:
        raise Unfit
    own, frames = _groups(segment), frames_of(segment)
    heart = _second_segment(segment, "Heart", 2)
    others = [_numbered(segment, group, heart) for group in deepcopy(own)]
    for group in own:
        _numbered(segment, group, 1)
    without(segment.SharedFunctionalGroupsSequence[0], "SegmentIdentificationSequence")
    segment.PerFrameFunctionalGroupsSequence = own + others
    set_frames(segment, np.concatenate([frames, np.roll(frames, -6, axis=1)]))


@changes("segment", _REFUSED)
def segments_of_one_number(study: Study) -> None:
    heart_beside(study)
    segment = study.segment
    segment.SegmentSequence[-1].SegmentNumber = 1
    for group in _groups(segment):
        _numbered(segment, group, 1)
    study.nothing_is_right()


@changes("segment")
def frames_in_any_order(study: Study) -> None:
    segment = study.segment
    frames, groups = frames_of(segment), _groups(segment)
    order = np.random.default_rng(2).permutation(len(groups))
    segment.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    set_frames(segment, frames[order])


@changes("segment")
def empty_frames_too(study: Study) -> None:
    """There is a frame at either end of the volume although nothing is drawn there."""
    segment = study.segment
    frames, groups = frames_of(segment), _groups(segment)
    more = []
    for height in (study.truth.places[0][0], study.truth.places[0][-1]):
        group = deepcopy(groups[0])
        without(group, "DerivationImageSequence")
        _move(segment, group, np.array([*_position(segment, group)[:2], height]))
        more.append(group)
    segment.PerFrameFunctionalGroupsSequence = [more[0], *groups, more[1]]
    blank = np.zeros_like(frames[:1])
    set_frames(segment, np.concatenate([blank, frames, blank]))


@changes("segment")
def a_frame_twice(study: Study) -> None:
    segment = study.segment
    frames, groups = frames_of(segment), _groups(segment)
    segment.PerFrameFunctionalGroupsSequence = [*groups, deepcopy(groups[1])]
    set_frames(segment, np.concatenate([frames, frames[1:2]]))


@changes("segment", _REFUSED)
def every_other_frame(study: Study) -> None:
    segment = study.segment
    frames, groups = frames_of(segment), _groups(segment)
    if len({tuple(_position(segment, group)) for group in groups}) < len(groups):
        raise Unfit  # if a frame exists twice, two neighbours could remain
    kept = np.argsort([_position(segment, group)[2] for group in groups])[::2]  # the order of the frames may be changed
    segment.PerFrameFunctionalGroupsSequence = [groups[k] for k in kept]
    set_frames(segment, frames[kept])
    study.nothing_is_right()


@changes("segment")
def cropped_to_what_is_drawn(study: Study) -> None:
    segment = study.segment
    frames = frames_of(segment)
    rows, columns = np.flatnonzero(frames.any((0, 2))), np.flatnonzero(frames.any((0, 1)))
    axes = np.array(_item(segment, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float).reshape(2, 3)
    spacing = np.array(_item(segment, "PixelMeasuresSequence").PixelSpacing, dtype=float)
    set_frames(segment, frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    corner = axes[1] * spacing[0] * rows[0] + axes[0] * spacing[1] * columns[0]
    for group in _groups(segment):
        _move(segment, group, _position(segment, group) + corner)


@changes("segment", _REFUSED)
def between_the_pixels(study: Study) -> None:
    segment = study.segment
    for group in _groups(segment):
        _move(segment, group, _position(segment, group) + np.array([0.4, 0, 0]))


@changes("segment", _REFUSED)
def finer_pixels(study: Study) -> None:
    measures = _item(study.segment, "PixelMeasuresSequence")
    measures.PixelSpacing = [f"{float(value) / 1.3:.6g}" for value in measures.PixelSpacing]


@changes("segment")
def everything_per_frame(study: Study) -> None:
    segment = study.segment
    shared = segment.SharedFunctionalGroupsSequence[0]
    for group in _groups(segment):
        for element in shared:
            if element.tag not in group:
                group[element.tag] = deepcopy(element)
    segment.SharedFunctionalGroupsSequence = [Dataset()]


@changes("segment")
def frames_name_none(study: Study) -> None:
    for group in _groups(study.segment):
        without(group, "DerivationImageSequence")


@changes("segment")
def frames_and_lists_name_none(study: Study) -> None:
    frames_name_none(study)
    without(study.segment, "ReferencedSeriesSequence", "SourceImageSequence")


def _sources(group: Dataset) -> list[Dataset]:
    return [image for item in group.get("DerivationImageSequence", ()) for image in item.SourceImageSequence]


@changes("segment")
def images_named_at_the_top_alone(study: Study) -> None:
    images = [image for group in _groups(study.segment) for image in _sources(group)]
    frames_and_lists_name_none(study)
    study.segment.SourceImageSequence = images


@changes("segment")
def images_named_in_the_frames_item(study: Study) -> None:
    for group in _groups(study.segment):
        group.SourceImageSequence = _sources(group)
    frames_and_lists_name_none(study)


@changes("segment")
def frames_made_of_another_modality_too(study: Study) -> None:
    """The images of the other modality are missing."""
    for group in _groups(study.segment):
        for item in group.get("DerivationImageSequence", ()):
            beside = deepcopy(item.SourceImageSequence[0])
            beside.ReferencedSOPInstanceUID = uid("another modality", beside.ReferencedSOPInstanceUID)
            item.SourceImageSequence.append(beside)


@changes("segment")
def random_frame_of_reference(study: Study) -> None:
    study.segment.FrameOfReferenceUID = uid("random")


@changes("segment", _REFUSED)
def random_frame_of_reference_and_no_references(study: Study) -> None:
    frames_name_none(study)
    study.segment.FrameOfReferenceUID = uid("random")


@changes("segment", _REFUSED)
def anatomic_region_is_the_brain(study: Study) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "12738006", "SCT", "Brain"
    for described in study.segment.SegmentSequence:
        described.AnatomicRegionSequence = [code]


@changes("segment", _REFUSED)
def drawn_on_thick_slices(study: Study) -> None:
    """The CT in the study is a thinner reconstruction; every frame is at the position of one of its slices."""
    frames_and_lists_name_none(study)
    series, thin = uid("thin"), []
    for k, dataset in enumerate(study.ct[:12]):
        x, y, z = dataset.ImagePositionPatient
        for part in range(3):
            slice_ = rename(deepcopy(dataset), uid("thin", k, part, dataset.SOPInstanceUID), SeriesInstanceUID=series)
            stored(dataset)
            slice_.ImagePositionPatient = [x, y, f"{float(z) + part * study.drawing.step / 3:.10g}"]
            slice_.SliceThickness, slice_.InstanceNumber = f"{study.drawing.step / 3:.6g}", 3 * k + part + 1
            thin.append(slice_)
    study.ct = thin
    study.truth = replace(study.truth, mask=None)


@changes("segment", phase=Phase.PIXELS)
def segment_deflated(study: Study) -> None:
    if study.segment.file_meta.TransferSyntaxUID.is_compressed:
        raise Unfit
    study.segment.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


@changes("segment", phase=Phase.PIXELS)
def zeros_behind_the_frames(study: Study) -> None:
    frames = frames_of(study.segment)
    if frames[0].size * int(study.segment.BitsAllocated) % 32:
        raise Unfit
    study.segment.PixelData += bytes(4)
