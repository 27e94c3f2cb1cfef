"""Plans and lists are read correctly, or refused with the place of the fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungstage.appliance.commissioning.plan import PlanError, read_pairs, read_plan, read_reference_cases, read_studies
from lungstage.appliance.contract.errors import ReasonCode, Refused


def plan(folder: Path, text: str) -> Path:
    (folder / "plan.toml").write_text(text, encoding="utf-8")
    return folder


def table(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_the_plan_s_own(tmp_path: Path) -> None:
    text = 'bundle = "b"\npairs = "../p.csv"\n[ibsi]\nimage = "i"\nmask = "m"\nvalues = "/abs/v"\n'
    for path in (plan(tmp_path, text), tmp_path / "plan.toml"):
        read = read_plan(path)
        assert read.bundle == tmp_path / "b"
        assert read.pairs == tmp_path / ".." / "p.csv"
        assert read.expected == tmp_path / "expected.json"
        assert read.cases is None
        assert read.ibsi is not None
        assert (read.ibsi.image, read.ibsi.values) == (tmp_path / "i", Path("/abs/v"))
    assert read.thresholds.icc_good == 0.75


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "bundle: Field required"),
        ('bundle = "b"\npears = "p.csv"', "pears: Extra inputs"),
        ('bundle = "b"\n[thresholds]\nicc_good = 1.5', "thresholds.icc_good"),
        ('bundle = "b"\n[thresholds]\nicc_good = 0.4', "icc_poor must not be above icc_good"),
        ('bundle = "b"\n[thresholds]\nchanged_warn = 0.9', "changed_warn must not be above changed_fail"),
        ("bundle = b", "is not TOML"),
    ],
)
def test_a_plan_that_cannot_be_used(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=told):
        read_plan(plan(tmp_path, text))


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        read_plan(tmp_path)


def test_lists(tmp_path: Path) -> None:
    cases = read_reference_cases(table(tmp_path, "case,path,roi,expect\na,s/1,GTV-1,staged\nb,/s/2,,not_ct\n"))
    assert [(c.study.name, c.study.path, c.study.roi, c.expect) for c in cases] == [
        ("a", tmp_path / "s/1", "GTV-1", "staged"),
        ("b", Path("/s/2"), None, "not_ct"),
    ]
    (pair,) = read_pairs(table(tmp_path, "\ufeffpatient, path1, path2, roi2\np,x,y,second\n"))
    assert (pair.test.path, pair.test.roi) == (tmp_path / "x", None)
    assert (pair.retest.path, pair.retest.roi) == (tmp_path / "y", "second")
    (study,) = read_studies(table(tmp_path, "path,case\nx,p\n"))
    assert (study.name, study.path) == ("p", tmp_path / "x")
    (one,) = read_pairs(table(tmp_path, "patient,path1,path2,roi\np,x,y,GTV\n"))
    assert one.retest.roi == "GTV"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it must have the columns"),
        ("case\na\n", "it must have the columns case, path"),
        ("case,path,colour\na,b,c\n", "it must have the columns"),
        ("case,path,path\na,b,c\n", "it must have the columns"),
        ("case,path\na\n", "in data row 1, a cell is missing"),
        ("case,path\na,b\nc,d,e\n", "in data row 2, a cell is missing"),
        ("case,path\na,\n", "in data row 1, a cell is missing"),
        ("case,path\na,b\na,c\n", "a case is in it twice"),
        ("case,path\n", "it is empty"),
        ('case,path\na,"b\n', "not CSV"),
        ("case,path,expect\na,b,perhaps\n", "'perhaps' is neither"),
    ],
)
def test_a_list_that_is_not_well_formed(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=told) as refused:
        read_reference_cases(table(tmp_path, text))
    assert refused.value.reason.code is ReasonCode.TABLE_INVALID
