"""``lungstage contour`` with a diameter, a box or a point: it gives a SEG on the CT's voxels, or a helpful sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.dicom.contours import Confirmation, confirmation
from lungstage.appliance.staging import phantom
from tests.support.ball_network import ball_bundle
from tests.support.enhanced import enhanced_rtstruct_study
from tests.support.studies import Study

LINE = ("-12,0,1", "12,0,1")


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ball_bundle(tmp_path_factory.mktemp("models") / "ball")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated phantom: a tumour around 0 in lung, surrounded by tissue and air, with slices of 2 mm."""
    slices = phantom.ct_datasets(phantom.make()[0], "prompting")
    return Study(slices).write(tmp_path_factory.mktemp("ct") / "ct")


def contoured(ct: Path, ball: Path, out: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["contour", str(ct), "--bundle", str(ball), "--out", str(out), "--json", *options])
    assert done.exit_code in (0, 3), done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    assert (done.exit_code == 3) == (answer["seg"] is None) == (not list(out.glob("*")))
    return answer


def test_a_diameter_becomes_a_draft_that_says_how_it_was_drawn(ct: Path, ball: Path, tmp_path: Path) -> None:
    answer = contoured(ct, ball, tmp_path / "out", "--diameter", *LINE, "--exclude", "11,0,1")
    assert answer["status"] == "draft"
    assert answer["roi"]["centre"] == pytest.approx([0, 0, 1], abs=1.5)
    dataset = pydicom.dcmread(answer["seg"])
    assert confirmation(dataset) is Confirmation.DRAFT
    assert np.count_nonzero(dataset.pixel_array) == answer["roi"]["voxels"]
    (segment,) = dataset.SegmentSequence
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "lungstage ball"
    assert "diameter=-12.0,0.0,1.0 12.0,0.0,1.0" in algorithm.AlgorithmParameters
    assert "exclude=11.0,0.0,1.0" in algorithm.AlgorithmParameters


def test_the_ends_of_a_line_may_be_swapped_and_a_repetition_writes_nothing_new(
    ct: Path, ball: Path, tmp_path: Path
) -> None:
    first, second = (
        contoured(ct, ball, tmp_path / name, "--diameter", *ends)
        for name, ends in (("one", LINE), ("two", reversed(LINE)))
    )
    one, two = (pydicom.dcmread(answer["seg"]) for answer in (first, second))
    np.testing.assert_array_equal(one.pixel_array, two.pixel_array)
    again = contoured(ct, ball, tmp_path / "one", "--diameter", *LINE)
    assert again["seg"] == first["seg"]


def test_spaces_in_the_person_s_name_make_no_other_contour(ct: Path, ball: Path, tmp_path: Path) -> None:
    one, two = (
        contoured(ct, ball, tmp_path / "out", "--diameter", *LINE, "--confirmed-by", name)
        for name in ("Anna Weber", " Anna  Weber ")
    )
    assert one["seg"] == two["seg"]


def test_a_box_and_a_point(ct: Path, ball: Path, tmp_path: Path) -> None:
    box = contoured(ct, ball, tmp_path / "box", "--box", "-12,-10,-7", "12,10,9")
    assert box["roi"]["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 12 * 10 * 8, rel=0.05)
    point = contoured(ct, ball, tmp_path / "point", "--at", "0,0,1", "--confirmed-by", "Weber^Anna")
    assert point["status"] == "confirmed"
    assert pydicom.dcmread(point["seg"]).ContentCreatorName == "Weber^Anna"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--diameter", "-1,0,1", "2,0,1"), "measures 3 mm"),
        (("--diameter", "-12,0,-20", "12,0,20"), "lie on different slices"),
        (("--diameter", "-12,0,1", "12,0,500"), "measures 499.6 mm"),
        (("--diameter", "60,0,1", "80,0,1"), "The CT extends in x from -47.8 to 47.8 mm, in y"),
        (("--at", "0,0,99"), "lies outside the CT"),
        (("--diameter", *LINE, "--include", "0,0,99"), "(0.0, 0.0, 99.0) mm lies outside"),
        (("--box", "-5,-5,1", "5,5,1"), "The box is flat"),
        (("--at", "46,46,1"), "lies in air"),
        (("--diameter", "-20,0,-3", "20,0,3"), "lie on different slices, 6.0 mm apart"),
        (("--diameter", *LINE, "--include", "5,0,1", "--exclude", "5,1,1"), "(5.0, 0.0, 1.0) mm is said to belong"),
        (("--diameter", "-3,0,1", "3,0,1", "--include", "48,0,1"), "lies 48 mm from the middle of the tumour"),
        (("--diameter", *LINE, *("--include", "5,0,1") * 401), "At most 400 points are possible"),
        (("--diameter", "-1e300,0,1", "1e300,0,1"), "measures 2e+300 mm"),
    ],
)
def test_what_cannot_be_a_tumour_is_refused_in_a_sentence(
    ct: Path, ball: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    answer = contoured(ct, ball, tmp_path / "out", *options)
    assert answer["reason"]["code"] == "prompt_unsuitable"
    assert words in answer["reason"]["message"]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--at", "0,0"),
        ("--at", "a,b,c"),
        ("--at", "nan,0,0"),
        ("--at", "0,0,1", "--diameter", *LINE),
        ("--include", "0,0,1"),
        ("--at", "0,0,1", "--from", "x.dcm"),
        ("--at", "0,0,1", "--segment", "2"),
    ],
)
def test_options_that_contradict_each_other_are_a_matter_of_usage(
    ct: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(app, ["contour", str(ct), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "out").exists()


def test_a_tumour_at_the_end_of_the_ct(ct: Path, ball: Path, tmp_path: Path) -> None:
    last = contoured(ct, ball, tmp_path / "out", "--diameter", "-12,0,31", "12,0,31")
    assert last["roi"]["volume_mm3"] == pytest.approx(2 / 3 * np.pi * 12**3, rel=0.15)


def test_frames_of_an_enhanced_ct(ball: Path, tmp_path: Path) -> None:
    study = enhanced_rtstruct_study()
    folder = Study(study.slices).write(tmp_path / "enhanced")
    region = contoured(folder, ball, tmp_path / "out", "--at", "20,20,18")
    assert region["roi"] is not None or region["reason"]["code"] == "prompt_unsuitable"


def test_a_ct_of_ten_slices_that_are_5_mm_apart(ball: Path, tmp_path: Path) -> None:
    volume = phantom.make()[0]
    slices = phantom.ct_datasets(volume[::3], "thick")[:10]
    for image in slices:
        image.SliceThickness = 6
    thick = contoured(Study(slices).write(tmp_path / "ct"), ball, tmp_path / "out", "--diameter", "-12,0,-7", "12,0,-7")
    assert thick["status"] == "draft"
    assert thick["roi"]["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.15)
