"""Unusual studies are right in every document, or give a plain sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from lungstage.appliance.contract.documents import FORMATS, DocumentOptions
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.appliance.staging.phantom import ct_datasets
from tests.appliance.staging.test_region_in_report import bundle
from tests.support.pages import pdf_in, pixels_of, text_of
from tests.support.reports import dciodvfy_errors
from tests.support.studies import (
    SQUARE,
    Study,
    contour,
    rtstruct_study,
    seg_study,
    square_mask,
    structure_set,
    volume,
)

__all__ = ["bundle"]  # a fixture

ALL = DocumentOptions(FORMATS)


def staged(study: Study, folder: Path, bundle: Bundle, **options: Any) -> dict[str, Any]:
    answer = stage_paths([study.write(folder / "in")], bundle, folder / "out", Options(documents=ALL, **options))
    assert answer["status"] == "staged", answer["reason"]
    return answer


def page_of(answer: dict[str, Any]) -> str:
    return text_of(pdf_in(Path(answer["documents"]["pdf"]).read_bytes()))


@pytest.mark.parametrize("make", [lambda: rtstruct_study(on=(5,)), lambda: seg_study(square_mask(on=(5,)))])
def test_a_tumour_of_one_slice(make: Any, bundle: Bundle, tmp_path: Path) -> None:
    answer = staged(make(), tmp_path, bundle)
    assert answer["roi"]["voxels"] == 240
    assert "0.9 ml" in page_of(answer) or "0.900 ml" in page_of(answer)
    assert dciodvfy_errors(Path(answer["sr"])) == set()


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("name", ["GTV-1" + " x" * 2040, "GTV-1 " + "ß" * 4090, "GTV-1 " + "x" * 4090])
def test_a_region_s_name_of_four_kilobytes_is_cut_to_what_a_label_holds(
    name: str, bundle: Bundle, tmp_path: Path
) -> None:
    study = rtstruct_study()
    study.rois[0].SpecificCharacterSet = "ISO_IR 192"
    study.rois[0].StructureSetROISequence[0].ROIName = name
    answer = staged(study, tmp_path, bundle, roi_name=name)
    segmentation = pydicom.dcmread(answer["documents"]["seg"])
    assert segmentation.SegmentSequence[0].SegmentLabel == name[:64].strip()
    assert "GTV-1" in page_of(answer)
    if name.isascii():  # dciodvfy counts bytes where DICOM counts characters
        for kind in ("sr", "seg"):
            assert dciodvfy_errors(Path(answer["documents"][kind])) == set()


def test_no_window_of_the_header_has_a_say(bundle: Bundle, tmp_path: Path) -> None:
    """The page uses its own windows, so a header without a window or with an absurd one gives the same pictures."""
    plain, absurd = rtstruct_study(), rtstruct_study()
    assert not any("WindowCenter" in dataset for dataset in plain.slices)
    for dataset in absurd.slices:
        dataset.WindowCenter, dataset.WindowWidth = "99999", "0"
    drawn = [
        pdf_in(Path(staged(study, tmp_path / name, bundle)["documents"]["pdf"]).read_bytes())
        for name, study in (("plain", plain), ("absurd", absurd))
    ]
    assert np.array_equal(*(pixels_of(pdf)[250:430, 40:430] for pdf in drawn)), "the pictures differ"


@pytest.fixture(scope="module")
def two_thousand(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Dataset], Path]:
    """The slices of a study, and their folder."""
    slices = ct_datasets(volume((2000, 40, 48)), "test study")
    return slices, Study(slices).write(tmp_path_factory.mktemp("two-thousand"))


@pytest.mark.slow
@pytest.mark.parametrize("on", [range(103, 109), range(600, 1400)], ids=["small", "long"])
def test_two_thousand_slices(
    on: range, two_thousand: tuple[list[Dataset], Path], bundle: Bundle, tmp_path: Path
) -> None:
    slices, folder = two_thousand
    drawn = structure_set(slices, {"GTV-1": [contour(slices[k], SQUARE) for k in on]}, slices)
    paths = [folder, Study([], [drawn]).write(tmp_path / "roi")]
    answer = stage_paths(paths, bundle, tmp_path / "out", Options(robustness=NO_ROBUSTNESS))
    assert answer["status"] == "staged", answer["reason"]
    assert answer["roi"]["voxels"] == 240 * len(on)
    assert page_of(answer)
    report = pydicom.dcmread(answer["sr"])
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    images = [item for series in study.ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
    assert len(on) < len(images) < len(on) + 50, "only the needed slices are listed"
