"""Contours made here beside other regions: drafts do not count, confirmed ones replace the regions that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case, assemble
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.choosing import ASSISTED, DRAFT, DRAFT_LEFT_OUT, OLDER
from lungstage.appliance.staging.pipeline import Plan, plan_measurement
from lungstage.appliance.staging.succession import superseded
from tests.appliance.dicom.test_bad_input import SPEC, measured
from tests.support.contours import contour_seg, region
from tests.support.studies import (
    Study,
    rtstruct_study,
    seg_study,
    square_mask,
)

WHOLE = int(square_mask().sum())


def _corrected(shift: int = 1) -> npt.NDArray[np.bool_]:
    """A mask of another size, so that it disagrees with the square and with other corrections."""
    mask = square_mask()
    mask[5, 13, 15 : 15 + shift] = False
    return mask


def _seg(study: Study, by: str | None, supersedes: Sequence[Dataset] = (), shift: int = 1, **more: object) -> Dataset:
    names = [region(one) for one in supersedes]
    return contour_seg(study.slices, _corrected(shift), by, names, **more)  # type: ignore[arg-type]


def _case(study: Study, folder: Path) -> Case:
    headers = [
        header for path in sorted(study.write(folder).iterdir()) for header in read_headers(path, hash_pixels=True)
    ]
    (case,) = assemble(headers)
    return case


def _plan(study: Study, folder: Path, **options: object) -> Plan:
    return plan_measurement(_case(study, folder), ROI_RULE, SPEC, settled=True, **options)  # type: ignore[arg-type]


def _refusal(study: Study, folder: Path, **options: object) -> Refused:
    with pytest.raises(Refused) as caught:
        _plan(study, folder, **options)
    return caught.value


def _measured(plan: Plan) -> list[str]:
    return [placed.source.sop_instance_uid for placed, _ in plan.regions]


# --- drafts -------------------------------------------------------------------------------------------------------


def _alone() -> Study:
    study = rtstruct_study()
    return Study(study.slices)


def _beside_organs() -> Study:
    return rtstruct_study(names=("Heart", "Lung_L"))


@pytest.mark.parametrize("make", [_alone, _beside_organs])
def test_a_draft_is_refused_and_measured(make: Callable[[], Study], tmp_path: Path) -> None:
    study = make()
    study.rois.append(_seg(study, None))
    refused = _refusal(study, tmp_path / "a")
    assert refused.reason.code is ReasonCode.CONTOUR_NOT_CONFIRMED
    assert "no person has confirmed it" in refused.reason.message
    assert "Look at it over the CT" in refused.reason.message
    answer = measured(tmp_path / "a")
    assert answer["status"] == "measured"
    assert answer["roi"]["voxels"] == WHOLE - 1
    assert answer["warnings"][0] == DRAFT


@pytest.mark.parametrize("make", [rtstruct_study, seg_study])
def test_a_draft_has_no_say_beside_a_region(make: Callable[[], Study], tmp_path: Path) -> None:
    study = make()
    own = study.rois[0].SOPInstanceUID
    study.rois.append(_seg(study, None, [study.rois[0]]))
    plan = _plan(study, tmp_path)
    assert _measured(plan) == [own]
    assert DRAFT_LEFT_OUT in plan.warnings
    answer = measured(tmp_path)
    assert answer["roi"]["voxels"] == WHOLE
    assert DRAFT not in answer["warnings"]
    assert DRAFT_LEFT_OUT in answer["warnings"]


def test_a_confirmed_contour_beside_its_draft_is_taken(tmp_path: Path) -> None:
    study = _alone()
    study.rois = [_seg(study, None)]
    study.rois.append(_seg(study, "Roe^Jane", study.rois, shift=2))
    plan = _plan(study, tmp_path)
    assert _measured(plan) == [study.rois[1].SOPInstanceUID]
    assert plan.warnings[0] == ASSISTED


def test_a_person_s_choice_makes_no_draft_an_answer(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois.append(_seg(study, None))
    choice = RegionChoice(str(study.rois[1].SOPInstanceUID), 1)
    assert _refusal(study, tmp_path, choice=choice).reason.code is ReasonCode.CONTOUR_NOT_CONFIRMED


def test_a_draft_is_named_like_any_region(tmp_path: Path) -> None:
    study = _alone()
    study.rois.append(_seg(study, None))
    folder = study.write(tmp_path)
    assert measured(folder, roi_name="GTV-1, draft")["status"] == "measured"
    assert measured(folder, roi_name="GTV-1")["reason"]["code"] == "roi_not_found"


# --- successors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [rtstruct_study, seg_study])
def test_a_successor_takes_its_predecessor_s_place(make: Callable[[], Study], tmp_path: Path) -> None:
    study = make()
    study.rois.append(_seg(study, "Roe^Jane", study.rois))
    plan = _plan(study, tmp_path)
    assert _measured(plan) == [study.rois[1].SOPInstanceUID]
    assert plan.warnings == (ASSISTED, OLDER)


def test_without_a_name_for_its_predecessor_it_is_an_opinion_beside_it(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois.append(_seg(study, "Roe^Jane"))
    assert len(_plan(study, tmp_path).regions) == 2
    assert measured(tmp_path)["reason"]["code"] == "roi_disagree"


def test_chains_end_in_the_last_one(tmp_path: Path) -> None:
    study = rtstruct_study()
    for shift in (1, 2, 3):
        study.rois.append(_seg(study, "Roe^Jane", study.rois[-1:], shift))
    assert _measured(_plan(study, tmp_path / "whole")) == [study.rois[-1].SOPInstanceUID]
    del study.rois[2]  # the middle one; without it, nothing connects the last contour with the first
    assert measured(study.write(tmp_path / "gap"))["reason"]["code"] == "roi_ambiguous"


def test_a_successor_of_what_is_not_there_is_a_candidate(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois = [_seg(study, "Roe^Jane", study.rois)]
    assert _measured(_plan(study, tmp_path)) == [study.rois[0].SOPInstanceUID]


@pytest.mark.parametrize("with_predecessor", [True, False])
def test_two_rivals_are_ambiguous_until_one_names_both(with_predecessor: bool, tmp_path: Path) -> None:
    study = rtstruct_study()
    first = study.rois[0]
    rivals = [_seg(study, "Roe^Jane", [first], 1), _seg(study, "Doe^John", [first], 2)]
    study.rois = [first, *rivals] if with_predecessor else rivals
    refused = _refusal(study, tmp_path / "rivals")
    assert refused.reason.code is ReasonCode.AMBIGUOUS_INPUT
    assert all(str(rival.SOPInstanceUID) in refused.reason.message for rival in rivals)
    assert "Roe" not in refused.reason.message
    chosen = RegionChoice(str(rivals[0].SOPInstanceUID), 1)
    assert _measured(_plan(study, tmp_path / "rivals", choice=chosen)) == [rivals[0].SOPInstanceUID]
    study.rois.append(_seg(study, "Roe^Jane", rivals, 3))
    assert _measured(_plan(study, tmp_path / "settled")) == [study.rois[-1].SOPInstanceUID]


def test_what_was_rejected_and_what_is_a_draft_supersedes_nothing(tmp_path: Path) -> None:
    study = rtstruct_study()
    rejected = _seg(study, "Roe^Jane", study.rois)
    rejected.ApprovalStatus = "REJECTED"
    study.rois += [rejected, _seg(study, None, study.rois[:1], 2)]
    assert _measured(_plan(study, tmp_path)) == [study.rois[0].SOPInstanceUID]


def test_only_the_region_that_is_named_is_superseded(tmp_path: Path) -> None:
    """Other regions of the same file stay as they are, and the rule treats them as before."""
    study = rtstruct_study(names=("GTV-1", "GTV-2", "Heart"))
    study.rois.append(contour_seg(study.slices, square_mask(), supersedes=[region(study.rois[0], 3)]))
    assert len(_plan(study, tmp_path / "heart").regions) == 2
    study.rois[1] = contour_seg(study.slices, square_mask(), supersedes=[region(study.rois[0], 1)])
    assert _measured(_plan(study, tmp_path / "gtv")) == [study.rois[1].SOPInstanceUID]


def test_what_the_rule_leaves_open_is_settled_by_its_confirmed_correction(tmp_path: Path) -> None:
    study = rtstruct_study(names=("GTV_MK", "Heart"))
    assert _refusal(study, tmp_path / "asked").reason.code is ReasonCode.ROI_AMBIGUOUS
    study.rois.append(_seg(study, "Roe^Jane", study.rois))
    assert _measured(_plan(study, tmp_path / "told")) == [study.rois[1].SOPInstanceUID]
    study = rtstruct_study(names=("GTVp1", "GTVp2"))
    study.rois.append(_seg(study, "Roe^Jane", study.rois))
    assert len(_plan(study, tmp_path / "two").regions) == 2  # the other primary is still there, and disagrees
    assert measured(tmp_path / "two")["reason"]["code"] == "roi_disagree"


def test_a_name_does_not_bring_a_superseded_region_back(tmp_path: Path) -> None:
    study = rtstruct_study()
    study.rois.append(_seg(study, "Roe^Jane", study.rois))
    assert _measured(_plan(study, tmp_path, roi_name="gtv-1")) == [study.rois[1].SOPInstanceUID]


def test_another_s_references_supersede_nothing(tmp_path: Path) -> None:
    study = rtstruct_study()
    other = contour_seg(study.slices, square_mask(), supersedes=[region(study.rois[0])])
    other.ManufacturerModelName = "Viewer"
    study.rois.append(other)
    plan = _plan(study, tmp_path)
    assert len(plan.regions) == 2
    assert ASSISTED not in plan.warnings


def test_a_correction_on_another_series_leaves_this_one_s_region(tmp_path: Path) -> None:
    """The patient's second reconstruction has its own contour, made from that of the first."""
    study = rtstruct_study()
    second = deepcopy(study.slices)
    for k, slice_ in enumerate(second):
        slice_.SOPInstanceUID, slice_.SeriesInstanceUID = f"1.2.826.0.1.9.{k}", "1.2.826.0.1.9"
    correction = contour_seg(second, _corrected(), supersedes=[region(study.rois[0])])
    headers = []
    for k, dataset in enumerate((*study.rois, correction, *study.slices, *second)):
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = tmp_path / f"{k:03}"
        dataset.save_as(path, enforce_file_format=True)
        headers += read_headers(path, hash_pixels=True)
    measured_on = {
        case.series_instance_uid: _measured(plan_measurement(case, ROI_RULE, SPEC, settled=True))
        for case in assemble(headers)
    }
    assert measured_on == {
        study.slices[0].SeriesInstanceUID: [study.rois[0].SOPInstanceUID],
        "1.2.826.0.1.9": [correction.SOPInstanceUID],
    }


# --- the rule by itself -------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_rule_over_any_histories(data: st.DataObject) -> None:
    """Contours in the order in which they are made; each names some earlier ones."""
    count = data.draw(st.integers(1, 6))
    found: dict[str, frozenset[tuple[str, int]]] = {}
    for k in range(count):
        before = ["0", *found]
        names = data.draw(st.sets(st.sampled_from(before), min_size=1))
        found[str(k + 1)] = frozenset((name, 1) for name in names)
    last = [uid for uid in found if not any((uid, 1) in names for names in found.values())]

    def reach(uid: str) -> set[str]:
        return {uid}.union(*(reach(name) for name, _ in found.get(uid, ())))

    rivals = any(reach(a) & reach(b) for a, b in permutations(last, 2))
    shuffled = dict(data.draw(st.permutations(list(found.items()))))
    if rivals:
        with pytest.raises(Refused) as caught:
            superseded(shuffled)
        assert caught.value.reason.code is ReasonCode.AMBIGUOUS_INPUT
        with pytest.raises(Refused) as again:
            superseded(found)
        assert str(again.value) == str(caught.value)
    else:
        assert superseded(shuffled) == frozenset().union(*found.values())
        assert len(last) == 1  # every history begins with the same region


@given(st.integers(2, 5))
def test_a_circle_has_no_last_one(count: int) -> None:
    with pytest.raises(Refused, match="none of them is the latest"):
        superseded({str(k): frozenset({(str((k + 1) % count), 1)}) for k in range(count)})
