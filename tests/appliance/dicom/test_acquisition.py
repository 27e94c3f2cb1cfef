"""Which images of a series belong to the acquisition that a region was drawn on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lungstage.appliance.dicom.acquisition import of_one_acquisition
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import ImageHeader
from tests.support.studies import rtstruct_study

SAID = ("kernel", "axial", "120", "500", "", "1")


@pytest.fixture
def images(tmp_path: Path) -> list[ImageHeader]:
    study = rtstruct_study().write(tmp_path)
    found = [header for path in sorted(study.rglob("*")) if path.is_file() for header in read_headers(path)]
    return [replace(one, acquisition=SAID) for one in found if isinstance(one, ImageHeader)]


@pytest.mark.parametrize("lacks", range(len(SAID)))
@pytest.mark.parametrize("lists_all", [False, True])
def test_what_a_slice_does_not_say_is_no_difference(images: list[ImageHeader], lacks: int, lists_all: bool) -> None:
    images[0] = replace(images[0], acquisition=(*SAID[:lacks], "", *SAID[lacks + 1 :]))
    drawn_on = frozenset(one.sop_instance_uid for one in images[1:3])
    listed = frozenset(one.sop_instance_uid for one in images) if lists_all else drawn_on
    assert of_one_acquisition(images, drawn_on, listed) == tuple(images)


def test_what_a_slice_says_otherwise_is(images: list[ImageHeader]) -> None:
    images[0] = replace(images[0], acquisition=("another kernel", *SAID[1:]))
    drawn_on = frozenset(one.sop_instance_uid for one in images[1:3])
    assert of_one_acquisition(images, drawn_on, drawn_on) == tuple(images[1:])
