"""A person's drawing in the page, on CTs of every kind, gives a contour of the right size or a refusal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from lungstage.appliance.contour.drawing import draw
from lungstage.appliance.contour.prompts import Prompt
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.contours import predecessors
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import Header, RoiHeader
from lungstage.appliance.model.contour_bundle import ContourBundle, load_contour_bundle
from lungstage.appliance.staging import phantom, sketching, viewing
from lungstage.appliance.staging.sketching import Draft
from tests.support.ball_network import ball_bundle
from tests.support.contours import NOON
from tests.support.enhanced import enhanced
from tests.support.studies import Study

RADIUS = 12.0
BALL_MM3 = 4 / 3 * math.pi * RADIUS**3
LINE = Prompt("diameter", ((-RADIUS, 0.0, 1.0), (RADIUS, 0.0, 1.0)))


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> ContourBundle:
    return load_contour_bundle(ball_bundle(tmp_path_factory.mktemp("models") / "ball"))


def read(folder: Path) -> tuple[Header, ...]:
    """Headers with digests of the pixels, as the daemon records them."""
    return tuple(header for file in sorted(folder.iterdir()) for header in read_headers(file))


def written(study: Study, folder: Path) -> tuple[tuple[Header, ...], str]:
    headers = read(study.write(folder))
    return headers, next(one.series_instance_uid for one in headers if not isinstance(one, RoiHeader))


def plain() -> list[Dataset]:
    return phantom.ct_datasets(phantom.make()[0], "sketching")


def of_thickness(step: int, times: int) -> list[Dataset]:
    """The phantom with every `step`-th slice, each repeated `times` times."""
    volume = phantom.make()[0][::step]
    affine = volume.affine.copy()
    affine[:3, 0] /= times
    finer = hd.Volume(
        volume.array.repeat(times, axis=0), affine, "PATIENT", frame_of_reference_uid=volume.frame_of_reference_uid
    )
    return phantom.ct_datasets(finer, "sketching")


def turned(degrees: float) -> list[Dataset]:
    """The phantom in a gantry that is turned around the x axis; the middle is not moved."""
    volume = phantom.make()[0]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1.0]])
    oblique = hd.Volume(
        volume.array, turn @ volume.affine, "PATIENT", frame_of_reference_uid=volume.frame_of_reference_uid
    )
    return phantom.ct_datasets(oblique, "sketching")


@pytest.mark.parametrize(
    "slices",
    [
        pytest.param(plain(), id="2 mm"),
        pytest.param(of_thickness(1, 4), id="0.5 mm"),
        pytest.param(of_thickness(3, 1), id="6 mm"),
        pytest.param(turned(20), id="oblique"),
        pytest.param(turned(50), id="very oblique"),
        pytest.param(turned(90), id="coronal"),
        pytest.param([enhanced(plain(), range(len(plain())))], id="Enhanced"),
    ],
)
def test_a_line_is_drawn_true_to_size(slices: Sequence[Dataset], ball: ContourBundle, tmp_path: Path) -> None:
    headers, key = written(Study([*slices]), tmp_path / "ct")
    found = sketching.sketch(headers, key, Draft(LINE), ball)
    assert found.volume_mm3 == pytest.approx(BALL_MM3, rel=0.1)
    assert found.parts == 1
    document = sketching.confirm(
        headers, key, Draft(LINE), ball, confirmed_by="Weber^Anna", created=NOON, images=found.images
    )
    (tmp_path / "seg").write_bytes(document.content)
    seg = pydicom.dcmread(tmp_path / "seg")
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    # The SEG lies around the middle of the line.
    mask = hd.seg.segread(tmp_path / "seg").get_volume(combine_segments=True)
    centre = (mask.affine @ np.append(np.argwhere(mask.array).mean(axis=0), 1.0))[:3]
    assert centre == pytest.approx(LINE.centre, abs=2.0)
    assert np.count_nonzero(mask.array) * np.prod(mask.spacing) == pytest.approx(found.volume_mm3, rel=1e-3)


def test_a_tilted_gantry_is_refused(ball: ContourBundle, tmp_path: Path) -> None:
    slices = plain()
    for k, image in enumerate(slices):  # the couch moves along z, but the slices are turned
        cos, sin = math.cos(math.radians(20)), math.sin(math.radians(20))
        image.ImageOrientationPatient = [1, 0, 0, 0, round(cos, 10), round(sin, 10)]
        x, y, _ = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, 2.0 * k]
    headers, key = written(Study(slices), tmp_path / "ct")
    with pytest.raises(Refused) as refused:
        sketching.sketch(headers, key, Draft(LINE), ball)
    assert refused.value.reason.code is ReasonCode.GANTRY_TILT


def test_slices_that_were_replaced_since_are_not_confirmed(ball: ContourBundle, tmp_path: Path) -> None:
    headers, key = written(Study(plain()), tmp_path / "ct")
    seen = sketching.sketch(headers, key, Draft(LINE), ball)
    other = plain()
    pixels = np.frombuffer(other[9].PixelData, "<i2").copy()
    pixels[:100] += 1
    other[9].PixelData = pixels.tobytes()
    later, _ = written(Study(other), tmp_path / "ct")
    with pytest.raises(Refused) as refused:
        sketching.confirm(later, key, Draft(LINE), ball, confirmed_by="Weber^Anna", created=NOON, images=seen.images)
    assert refused.value.reason.code is ReasonCode.CONFLICTING_INSTANCES
    assert "Open the study again" in refused.value.reason.message


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_a_line_along_the_rows_or_columns_lies_in_a_slice_whatever_its_direction(
    degrees: float, ball: ContourBundle, tmp_path: Path
) -> None:
    headers, key = written(Study(turned(degrees)), tmp_path / "ct")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for point in ((RADIUS, 0.0, 0.0), (0.0, RADIUS * cos, RADIUS * sin)):
        ends = tuple(-x for x in point), point
        found = sketching.sketch(headers, key, Draft(Prompt("diameter", ends)), ball)  # type: ignore[arg-type]
        assert found.volume_mm3 == pytest.approx(BALL_MM3, rel=0.1)
    steep = math.radians(degrees + 45)  # across the acquired slices, and across the axial planes
    across = (0.0, -RADIUS * math.sin(steep), RADIUS * math.cos(steep))
    diagonal = Draft(Prompt("diameter", (tuple(-x for x in across), across)))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="lie on different slices"):
        sketching.sketch(headers, key, diagonal, ball)


def confirmed(headers: tuple[Header, ...], key: str, draft: Draft, ball: ContourBundle, by: str, file: Path) -> str:
    """Confirm a contour, and write it to a file; its UID."""
    seen = sketching.sketch(headers, key, draft, ball)
    document = sketching.confirm(headers, key, draft, ball, confirmed_by=by, created=NOON, images=seen.images)
    file.write_bytes(document.content)
    return document.sop_instance_uid


SMALLER = Prompt("diameter", ((-8.0, 0.0, 1.0), (8.0, 0.0, 1.0)))


def test_two_rivals_are_replaced_together_by_who_corrects_one_of_them(ball: ContourBundle, tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    headers, key = written(Study(plain()), folder)
    one = confirmed(headers, key, Draft(LINE), ball, "Weber^Anna", folder / "one")
    two = confirmed(headers, key, Draft(SMALLER), ball, "Klein^Bert", folder / "two")  # neither knew of the other
    later = read(folder)
    corrected = Draft(Prompt("region", ()), RegionChoice(one, 1))
    seen = sketching.sketch(later, key, corrected, ball)
    assert (seen.rivals, seen.replaced) == ((), ("Klein^Bert",))
    last = confirmed(later, key, corrected, ball, "Weber^Anna", folder / "three")
    assert {named.sop_instance_uid for named in predecessors(pydicom.dcmread(folder / "three"))} == {one, two}
    new = sketching.sketch(read(folder), key, Draft(Prompt("region", ()), RegionChoice(last, 1)), ball)
    assert (new.rivals, new.replaced) == ((), ())


def test_a_rejected_contour_is_no_rival(ball: ContourBundle, tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    headers, key = written(Study(plain()), folder)
    confirmed(headers, key, Draft(LINE), ball, "Weber^Anna", folder / "one")
    rejected = pydicom.dcmread(folder / "one")
    rejected.ApprovalStatus = "REJECTED"
    rejected.save_as(folder / "one")
    confirmed(read(folder), key, Draft(SMALLER), ball, "Klein^Bert", folder / "two")


def test_the_second_operator_is_told_the_first_s_name(ball: ContourBundle, tmp_path: Path) -> None:
    headers, key = written(Study(plain()), tmp_path / "ct")
    seen = sketching.sketch(headers, key, Draft(LINE), ball)
    first = sketching.confirm(
        headers, key, Draft(LINE), ball, confirmed_by="Weber^Anna", created=NOON, images=seen.images
    )
    (tmp_path / "ct" / "seg").write_bytes(first.content)
    later = read(tmp_path / "ct")
    smaller = Draft(Prompt("diameter", ((-8.0, 0.0, 1.0), (8.0, 0.0, 1.0))))
    assert sketching.sketch(later, key, smaller, ball).rivals == ("Weber^Anna",)
    with pytest.raises(Refused, match=r"Weber\^Anna already confirmed") as refused:
        sketching.confirm(later, key, smaller, ball, confirmed_by="Klein^Bert", created=NOON, images=seen.images)
    assert refused.value.reason.code is ReasonCode.AMBIGUOUS_INPUT


# --- contours of other tools ----------------------------------------------------------------------------------------


def nodules(algorithm: str) -> tuple[Study, str]:
    """The phantom and a SEG with two balls in one segment, as from software for lung nodules."""
    volume = phantom.make()[0]
    slices = phantom.ct_datasets(volume, "sketching")
    k, j, i = (np.arange(n) for n in volume.spatial_shape)
    at = [volume.affine[:3, 3][row] + steps * volume.affine[row, 2 - row] for row, steps in enumerate((i, j, k))]
    x, y, z = at[0][None, None], at[1][None, :, None], at[2][:, None, None]
    mask = ((x - 16) ** 2 + y**2 + z**2 <= 9**2) | ((x + 16) ** 2 + y**2 + z**2 <= 6**2)
    seg = phantom.segmentation(slices, mask)
    seg.SegmentSequence[0].SegmentAlgorithmType = algorithm
    seg.SegmentSequence[0].SegmentAlgorithmName = "nodules"
    return Study(slices, [seg]), str(seg.SOPInstanceUID)


def test_of_several_nodules_of_a_tool_a_person_picks_one(ball: ContourBundle, tmp_path: Path) -> None:
    study, uid = nodules("AUTOMATIC")
    headers, key = written(study, tmp_path / "ct")
    base = RegionChoice(uid, 1)
    both = sketching.sketch(headers, key, Draft(Prompt("region", ()), base), ball)
    assert both.parts == 2
    asked: Any = {"confirmed_by": "Weber^Anna", "created": NOON, "images": both.images}
    with pytest.raises(Refused, match="2 separate parts") as refused:
        sketching.confirm(headers, key, Draft(Prompt("region", ()), base), ball, **asked)
    assert refused.value.reason.code is ReasonCode.ROI_AMBIGUOUS
    for x, radius in ((16.0, 9.0), (-16.0, 6.0)):
        picked = Draft(Prompt("region", ((x, 0.0, 0.0),)), base)
        one = sketching.sketch(headers, key, picked, ball)
        assert one.parts == 1
        assert one.volume_mm3 == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.1)
        document = sketching.confirm(headers, key, picked, ball, **asked)
        (tmp_path / "seg").write_bytes(document.content)
        (replaced,) = predecessors(pydicom.dcmread(tmp_path / "seg"))
        assert (replaced.sop_instance_uid, replaced.number) == (uid, 1)
    with pytest.raises(Refused, match="no part at this point"):
        sketching.sketch(headers, key, Draft(Prompt("region", ((0.0, 0.0, 0.0),)), base), ball)


def test_a_person_s_region_of_several_parts_may_stay_whole(ball: ContourBundle, tmp_path: Path) -> None:
    study, uid = nodules("MANUAL")
    headers, key = written(study, tmp_path / "ct")
    draft = Draft(Prompt("region", ()), RegionChoice(uid, 1))
    seen = sketching.sketch(headers, key, draft, ball)
    document = sketching.confirm(headers, key, draft, ball, confirmed_by="Weber^Anna", created=NOON, images=seen.images)
    (tmp_path / "seg").write_bytes(document.content)
    mask = hd.seg.segread(tmp_path / "seg").get_volume(combine_segments=True)
    assert np.count_nonzero(mask.array) * np.prod(mask.spacing) == pytest.approx(seen.volume_mm3, rel=1e-3)


def test_a_correction_asks_the_network_once_and_gives_what_the_command_line_gives(
    ball: ContourBundle, tmp_path: Path
) -> None:
    asked = 0

    class Counting:
        def __call__(self, *given: Any) -> Any:
            nonlocal asked
            asked += 1
            return ball.network(*given)

    counting = replace(ball, network=Counting())
    headers, key = written(Study(plain()), tmp_path / "ct")
    corrected = replace(LINE, exclude=((11.0, 0.0, 1.0),), include=((0.0, 14.0, 1.0),), smooth=1.0)
    sketching.sketch(headers, key, Draft(LINE), counting)
    assert asked == 1
    found = sketching.sketch(headers, key, Draft(corrected), counting)
    assert asked == 2
    stack = viewing.stacked(viewing.case_of(headers, key).images)
    whole = draw(hd.Volume(stack.hu, stack.affine, "PATIENT"), corrected, ball.network)
    assert found.volume_mm3 == pytest.approx(np.count_nonzero(whole) * np.prod(stack.steps))
    np.testing.assert_array_equal(sketching.sketch_mask(headers, key, Draft(corrected), counting), whole)
