"""Known habits of writers that leave a file unambiguous are read; every other deviation is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.files import read_dataset, read_headers, read_slices
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.dicom.roi import load_regions
from tests.appliance.dicom.test_bad_input import measured
from tests.support import habits
from tests.support.enhanced import enhanced, item
from tests.support.studies import rtstruct_study, seg_study


def _bytes(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@cache
def clean(kind: str) -> bytes:
    """A correct file of the given kind."""
    study = seg_study() if kind == "SEG" else rtstruct_study()
    if kind == "Enhanced CT":
        return _bytes(enhanced(study.slices))
    if kind == "CT":
        study.slices[4].ReferencedImageSequence = [item(ReferencedSOPInstanceUID="1.2.3")]
    return _bytes(study.slices[4] if kind == "CT" else study.rois[0])


KINDS = ("CT", "Enhanced CT", "RTSTRUCT", "SEG")


def _said(content: bytes, path: Path) -> tuple[tuple[Header, ...], list[bytes]]:
    """Headers of a file without the place of its pixels, and all its measured content as bytes."""
    path.write_bytes(content)
    headers = read_headers(path)
    images = [header for header in headers if isinstance(header, ImageHeader)]
    values = [dataset.pixel_array.tobytes() for dataset in read_slices(images)]
    for roi in headers:
        if isinstance(roi, RoiHeader):
            load_regions.cache_clear()
            for region in load_regions(roi):
                assert not region.fault
                values += [repr((region.name, region.number, region.orientation, region.pixel_spacing)).encode()]
                values += [outline.points.tobytes() + repr(outline.images).encode() for outline in region.outlines]
                values += [np.packbits(frame.pixels).tobytes() + frame.position.tobytes() for frame in region.frames]
    return tuple(replace(header, path=Path("file")) for header in headers), values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("habit", habits.HABITS, ids=lambda habit: habit.__name__)
def test_a_habit_is_read_as_the_clean_file(habit: habits.Habit, kind: str, tmp_path: Path) -> None:
    content = habit(habits.parts(clean(kind))).joined()
    assert content != clean(kind)
    assert _said(content, tmp_path / "file") == _said(clean(kind), tmp_path / "clean")


@pytest.mark.slow
@given(
    kind=st.sampled_from(KINDS), chosen=st.lists(st.sampled_from(habits.HABITS), min_size=2, max_size=3, unique=True)
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_habits_together_give_the_same_or_a_refusal(kind: str, chosen: list[habits.Habit], tmp_path: Path) -> None:
    file = habits.parts(clean(kind))
    for habit in chosen:
        file = habit(file)
    try:
        said = _said(file.joined(), tmp_path / "file")
    except Refused:
        return
    assert said == _said(clean(kind), tmp_path / "clean")


def test_a_study_of_all_habits_is_measured_as_the_clean_one(tmp_path: Path) -> None:
    for kind in (rtstruct_study, seg_study):
        folder = kind().write(tmp_path / f"{kind.__name__}-clean")
        expected = measured(folder)
        assert expected["status"] == "measured"
        for k, path in enumerate(sorted(folder.iterdir())):
            path.write_bytes(habits.HABITS[k % len(habits.HABITS)](habits.parts(path.read_bytes())).joined())
        assert measured(folder)["features"] == expected["features"]


def test_nothing_in_the_elements_is_taken_for_meta_information(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(habits.meta_among_the_elements(habits.parts(clean("CT"))).joined())
    dataset = read_dataset(tmp_path / "file")
    assert min(dataset.keys()) >= 0x00080000
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
