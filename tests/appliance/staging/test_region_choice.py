"""A region that a person chose takes precedence over the rule; the report says so, and replay uses it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.cases import Case, assemble, the_one_case
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.replay.originals import Witness
from lungstage.appliance.replay.reproduce import replay
from lungstage.appliance.report.readback import read_back
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.choosing import CHOSEN
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.one_shot import scan
from lungstage.export.bundle import pack
from tests.export.conftest import make_run, without_limits
from tests.support.studies import AROUND, SQUARE, contour, rtstruct_study, structure_set


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    for name, content in pack(without_limits(make_run()), "plain")[0].items():
        (folder / name).write_bytes(content)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two regions of the same name, which neither rule nor name can distinguish, and one without contours."""
    study = rtstruct_study()
    polygons = (("GTV-1", SQUARE), ("GTV-1 ", AROUND))
    contours = {name: [contour(study.slices[k], polygon) for k in range(3, 9)] for name, polygon in polygons}
    study.rois = [structure_set(study.slices, {**contours, "empty": []}, study.slices)]
    return the_one_case(assemble(scan([study.write(tmp_path_factory.mktemp("study"))]).headers))


def plan(case: Case, bundle: Bundle, number: int | None, roi: str | None = None) -> pipeline.Plan:
    choice = None if number is None else RegionChoice(roi or case.rois[0].sop_instance_uid, number)
    return pipeline.prepare(case, bundle, settled=True, choice=choice)


def test_without_a_choice_it_is_refused(case: Case, bundle: Bundle) -> None:
    with pytest.raises(Refused) as refusal:
        plan(case, bundle, None)
    assert refusal.value.reason.code is ReasonCode.ROI_AMBIGUOUS


@pytest.mark.parametrize("number", [1, 2])
def test_the_one_that_was_chosen_is_measured_said_to_be_and_replayed(
    case: Case, bundle: Bundle, number: int, tmp_path: Path
) -> None:
    chosen = plan(case, bundle, number)
    assert [region.number for region, _ in chosen.regions] == [number]
    assert CHOSEN.format(number) in chosen.warnings
    staged = pipeline.stage(chosen, bundle, created=datetime(2026, 3, 1, tzinfo=UTC), site=Site())
    for document in staged.documents:
        (tmp_path / document.name).write_bytes(document.content)
    report = read_back(tmp_path / staged.documents[-1].name)
    assert report.account.chosen_number == number
    assert replay(report, case.headers, bundle, Witness()).changes == ()


def test_two_choices_are_two_contents(case: Case, bundle: Bundle) -> None:
    assert plan(case, bundle, 1).fingerprint != plan(case, bundle, 2).fingerprint


@pytest.mark.parametrize(
    ("number", "code"), [(3, ReasonCode.ROI_EMPTY), (4, ReasonCode.ROI_NOT_FOUND), (0, ReasonCode.ROI_NOT_FOUND)]
)
def test_what_is_not_there_cannot_be_chosen(case: Case, bundle: Bundle, number: int, code: ReasonCode) -> None:
    with pytest.raises(Refused) as refusal:
        plan(case, bundle, number)
    assert refusal.value.reason.code is code
