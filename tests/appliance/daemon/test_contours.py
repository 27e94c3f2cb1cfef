"""Contours made here in the inbox: real headers and the real choice of region, in any order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.report.outbox import encode
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.appliance.dicom.test_bad_input import SPEC
from tests.support.contours import contour_seg, region
from tests.support.fake_steps import FakePlan, FakeSteps
from tests.support.simulated import House
from tests.support.studies import Study, rtstruct_study, square_mask


class RealChoice(FakeSteps):
    """Reads and chooses as the daemon does, and notes what it would measure without measuring it."""

    def read_headers(self, path: Path) -> tuple[Header, ...]:
        return read_headers(path, hash_pixels=True)

    def prepare(self, case: Case, **options: Any) -> FakePlan:
        plan = plan_measurement(case, ROI_RULE, SPEC, **options)
        self.measured = [placed.source.sop_instance_uid for placed, _ in plan.regions]
        return FakePlan(case, plan.fingerprint, frozenset(), plan.instances)


@cache
def _study() -> Study:
    return rtstruct_study()


@cache
def _seg(by: str | None, shift: int, *predecessors: str) -> Dataset:
    mask = square_mask()
    mask[5, 13, 15 : 15 + shift] = False
    before = {str(one.SOPInstanceUID): one for one in (_study().rois[0], *_MADE)}
    seg = contour_seg(_study().slices, mask, by, [region(before[uid]) for uid in predecessors])
    _MADE.append(seg)
    return seg


_MADE: list[Dataset] = []
_ENCODED: dict[str, bytes] = {}


def _put(folder: Path, *datasets: Dataset) -> None:
    for dataset in datasets:
        uid = str(dataset.SOPInstanceUID)
        if uid not in _ENCODED:
            _ENCODED[uid] = encode(dataset).content
        (folder / uid).write_bytes(_ENCODED[uid])


def _reason(house: House) -> str | None:
    reason = house.ledger.jobs.find()[-1].reason
    return None if reason is None else reason.code.value


def test_a_draft_waits_for_its_confirmation(tmp_path: Path) -> None:
    house = House(tmp_path, RealChoice())
    _put(house.inbox, *_study().slices, _seg(None, 1))
    house.run(10)
    assert house.states() == ["refused"]
    assert _reason(house) == "contour_not_confirmed"
    confirmed = _seg("Roe^Jane", 2, str(_seg(None, 1).SOPInstanceUID))
    _put(house.inbox, confirmed)
    house.run(10)
    assert house.states()[-1] == "delivered"
    assert house.steps.measured == [confirmed.SOPInstanceUID]


def test_a_successor_makes_a_new_report_that_names_the_former(tmp_path: Path) -> None:
    house = House(tmp_path, RealChoice())
    _put(house.inbox, *_study().slices, _study().rois[0])
    house.run(10)
    first = house.job()
    assert first.state.value == "delivered"
    successor = _seg("Roe^Jane", 1, str(_study().rois[0].SOPInstanceUID))
    _put(house.inbox, successor)
    house.run(10)
    assert house.states() == ["delivered", "delivered"]
    assert house.steps.measured == [successor.SOPInstanceUID]
    assert first.sr_sop_instance_uid is not None
    former = Predecessor(first.study_instance_uid, "2.25.5", first.sr_sop_instance_uid)
    assert house.steps.predecessors == [None, former]
    house.restart()
    house.run(10)
    assert len(house.reports()) == 2


def test_a_rival_is_refused_and_the_report_stays(tmp_path: Path) -> None:
    house = House(tmp_path, RealChoice())
    first = str(_study().rois[0].SOPInstanceUID)
    rivals = [_seg("Roe^Jane", 1, first), _seg("Doe^John", 2, first)]
    _put(house.inbox, *_study().slices, _study().rois[0], rivals[0])
    house.run(10)
    assert house.states() == ["delivered"]
    _put(house.inbox, rivals[1])
    house.run(10)
    assert house.states() == ["delivered", "refused"]
    assert _reason(house) == "ambiguous_input"
    both = _seg("Roe^Jane", 3, *(str(rival.SOPInstanceUID) for rival in rivals))
    _put(house.inbox, both)
    house.run(10)
    assert house.states()[-1] == "delivered"
    assert house.steps.measured == [both.SOPInstanceUID]
    audit = b"".join(path.read_bytes() for path in house.state.rglob("*") if path.is_file())
    assert b"Roe" not in audit
    assert b"Doe" not in audit


@given(st.permutations(range(5)), st.sets(st.integers(1, 4)))
@settings(max_examples=8, deadline=None)
def test_the_last_word_is_the_same_in_every_order_of_arrival(order: Sequence[int], pauses: set[int]) -> None:
    """CT, structure set, draft, a contour that replaces it, and one that replaces that one, with or without pauses."""
    first = str(_study().rois[0].SOPInstanceUID)
    correction = _seg("Roe^Jane", 1, first)
    last = _seg("Doe^John", 2, str(correction.SOPInstanceUID))
    parts = [_study().slices, [_study().rois[0]], [_seg(None, 4, first)], [correction], [last]]
    with TemporaryDirectory() as root:
        house = House(Path(root), RealChoice())
        for k, part in enumerate(order):
            if k in pauses:
                house.run(10)
            _put(house.inbox, *parts[part])
        house.run(15)
        newest = house.ledger.jobs.of_case(str(_study().slices[0].SeriesInstanceUID))
        assert newest is not None
        assert newest.state.value == "delivered"
        assert house.steps.measured == [last.SOPInstanceUID]
        house.database.close()
