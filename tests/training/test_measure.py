"""A cohort of studies into a feature table: the appliance's numbers, and nobody lost."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import Refused
from appliance.oneshot import Options, measure_paths
from appliance.radiomics import parameters
from appliance.roi_rule import ROI_RULE
from tests.studies import rtstruct_study, seg_study, square_mask
from training.measure import read_subjects

SPEC = """
featureClass: {firstorder: [Mean, Minimum], shape: [Sphericity]}
setting: {binWidth: 25, resampledPixelSpacing: [1, 1, 1], interpolator: sitkLinear}
"""


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _measure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "lungstage-train", "measure", folder / "cohort.csv", *options]
    command += ["-o", folder / "features.csv", "--spec", folder / "spec.yaml"]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Four studies: by contours, by SEG, one that lacks a slice, and one that is not there."""
    smaller = square_mask()
    smaller[:, :16] = False
    incomplete = rtstruct_study()
    del incomplete.slices[5]
    rtstruct_study(names=("GTV-1", "GTV-7")).write(tmp_path / "a")
    seg_study(np.asarray(smaller)).write(tmp_path / "b")
    incomplete.write(tmp_path / "c")
    (tmp_path / "cohort.csv").write_text(
        "patient_id,path,roi,stage\nA,a,GTV-7,early\nB,b,,advanced\nC,c,,early\nD,nowhere,,advanced\n"
    )
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


def test_measured_as_the_appliance_measures_and_refusals_listed(cohort: Path) -> None:
    done = _measure(cohort)
    assert done.returncode == 0, done.stderr
    assert "2 measured, 2 refused" in done.stdout
    rows = _rows(cohort / "features.csv")
    assert [(row["patient_id"], row["stage"]) for row in rows] == [("A", "early"), ("B", "advanced")]
    spec = parameters.parse(SPEC)
    for row, study, roi in zip(rows, ("a", "b"), ("GTV-7", None), strict=True):
        own = measure_paths([cohort / study], ROI_RULE, spec, Options(roi))["features"]
        assert {name: float(row[name]) for name in spec.features} == own
    refused = {row["patient_id"]: row["code"] for row in _rows(cohort / "features.refused.csv")}
    assert refused == {"C": "slices_missing", "D": "unavailable"}


def test_the_number_of_workers_leaves_no_trace(cohort: Path) -> None:
    _measure(cohort, "--workers", "1")
    once = {path.name: path.read_bytes() for path in cohort.glob("features*")}
    _measure(cohort, "--workers", "2")
    assert {path.name: path.read_bytes() for path in cohort.glob("features*")} == once


def test_a_description_that_says_otherwise_is_not_overwritten(cohort: Path) -> None:
    _measure(cohort)
    description = cohort / "features.toml"
    described = description.read_text()
    description.write_text(described.replace('licence = "undeclared"', 'licence = "CC BY 4.0"'))
    assert _measure(cohort).returncode == 0
    assert "CC BY 4.0" in description.read_text()
    description.write_text(described.replace("binWidth = 25", "binWidth = 10"))
    done = _measure(cohort)
    assert done.returncode == 3
    assert "measured otherwise" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("patient_id,path,stage\nA,a,early\n", "roi"),
        ("patient_id,path,roi,stage\nA,a,,late\n", "late"),
        ("patient_id,path,roi,stage\nA,,,early\n", "path is empty in line 2"),
        ("patient_id,path,roi,stage\nA,a,,early\nA,b,,early\n", "same patient_id"),
    ],
)
def test_a_list_that_is_not_one(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(Refused, match=told):
        read_subjects(tmp_path / "cohort.csv")
