"""Reports are read back correctly, in the layout of every release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lungstage.appliance.contract.spec import FeatureVector
from lungstage.appliance.report.readback import read_back
from tests.support.reports import FEATURES, generated_sources, made_up_context, write_both

FIRST_RELEASE = Path(__file__).parents[1] / "state" / "release-0.1.0" / "outbox"


def test_numbers_come_back_to_the_last_bit_whatever_people_are_shown(tmp_path: Path) -> None:
    context = made_up_context(generated_sources())
    _, path = write_both(context, tmp_path)
    account = read_back(path).account
    assert account.features == context.features.as_dict()
    assert account.contributions == context.result.contributions
    assert account.probability == 100 * context.result.probability_advanced
    assert account.warnings[1:] == context.warnings
    assert account.slices == tuple(source.SOPInstanceUID for source in context.sources)
    assert (account.answer, account.roi_label, account.prevalence) == ("advanced (III)", "GTV-1", None)


def test_a_failed_feature_comes_back_as_none(tmp_path: Path) -> None:
    values = made_up_context(generated_sources()).features.values.copy()
    values[3] = np.nan
    _, path = write_both(made_up_context(generated_sources(), features=FeatureVector(FEATURES, values)), tmp_path)
    features = read_back(path).account.features
    assert features[FEATURES[3]] is None
    assert [*features] == [*FEATURES]


def test_contributions_in_any_order_leave_each_feature_its_own_value(tmp_path: Path) -> None:
    """Contributions are written by size, not in the order of the measurements."""
    context = made_up_context(generated_sources())
    for sign in (1, -1):
        shares = {name: sign * (k + 1.0) for k, name in enumerate(FEATURES)}
        _, path = write_both(replace(context, result=replace(context.result, contributions=shares)), tmp_path)
        assert read_back(path).account.features == context.features.as_dict()


@pytest.mark.parametrize("path", sorted(FIRST_RELEASE.glob("SR-*.dcm")), ids=lambda path: path.name[:12])
def test_the_first_release_s_reports_are_still_understood(path: Path) -> None:
    """Contributions are in the order of the measurements there, and name them."""
    account = read_back(path).account
    report = pydicom.dcmread(path)
    items = [item for item in _every(report) if item.ValueType == "NUM"]
    probability = next(item for item in items if item.ConceptNameCodeSequence[0].CodeValue == "PADVANCED")
    names = [item.ContentSequence[0].TextValue for item in probability.ContentSequence]
    measured = [item for item in items if item.RelationshipType == "CONTAINS"]
    after = measured[next(k for k, item in enumerate(measured) if item is probability) + 1 :]
    values = [item.MeasuredValueSequence[0].FloatingPointValue for item in after[: len(names)]]
    assert len(names) == 15
    assert account.features == dict(zip(names, values, strict=True))
    assert [*account.contributions] == names
    assert account.software == "0.1.0"
    assert f"{account.created:%Y%m%d%H%M%S.%f}" == f"{report.ContentDate}{report.ContentTime}"


def _every(item: pydicom.Dataset) -> list[pydicom.Dataset]:
    children = list(item.get("ContentSequence", ()))
    return children + [below for child in children for below in _every(child)]
