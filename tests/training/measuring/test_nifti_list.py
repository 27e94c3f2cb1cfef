"""PyRadiomics' batch list of NIfTI pairs gives the same kind of table as a list of DICOM studies."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import lungstage
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.radiomics import parameters
from lungstage.training.cli import main
from lungstage.training.measuring import measure
from lungstage.training.measuring.subjects import read_subjects
from tests.support.cohorts import SPEC
from tests.support.nifti import stock, write_image, write_pair


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lungstage-train", "measure", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Four pairs: two can be measured, one has a mask on another grid, and one has an image that is cut short."""
    write_pair(tmp_path / "a")
    write_pair(tmp_path / "b", "uint16", seed=1, label=4)
    _, mask = write_pair(tmp_path / "c")
    write_image(mask, sitk.GetArrayFromImage(sitk.ReadImage(str(mask))), origin=(0, 0, 0))
    image, _ = write_pair(tmp_path / "d")
    image.write_bytes(image.read_bytes()[:-200])
    (tmp_path / "spec.yaml").write_text(SPEC)
    lines = [f"{name.upper()},{name}/image.nii.gz,{name}/mask.nii.gz,{label},6{label or 0}" for name, label in (
        ("a", ""), ("b", "4.0"), ("c", "1"), ("d", "1"),
    )]  # fmt: skip
    file = tmp_path / "pairs.csv"
    file.write_text("ID,Image,Mask,Label,age\n" + "\n".join(lines) + "\n")
    return file


def test_the_table_is_that_of_a_cohort_and_the_values_are_pyradiomics_own(
    listed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out, folder = listed.with_name("features.csv"), listed.parent
    options = (listed, "-o", out, "--spec", folder / "spec.yaml", "--workers", 1)
    assert run(monkeypatch, *options) == 0
    told = capfd.readouterr().out
    assert "2 measured, 2 refused" in told
    assert "2 were measured with warnings, listed in features.warnings.csv" in told
    spec = parameters.parse(SPEC)
    rows = rows_of(out)
    assert list(rows[0]) == ["patient_id", "age", *spec.features]
    assert [(row["patient_id"], row["age"]) for row in rows] == [("A", "60"), ("B", "64.0")]
    for row, name, label in zip(rows, "ab", (1, 4), strict=True):
        pair = (folder / name / "image.nii.gz", folder / name / "mask.nii.gz")
        measured = {feature: float(row[feature]) for feature in spec.features}
        assert measured == lungstage.measure(pair, spec, label=label).features
        assert measured == pytest.approx(stock(*pair, spec, label), rel=1e-9)
    refused = {row["patient_id"]: row["code"] for row in rows_of(folder / "features.refused.csv")}
    assert refused == {"C": "mask_mismatch", "D": "nifti_invalid"}
    warned = [(row["patient_id"], row["message"][:10]) for row in rows_of(folder / "features.warnings.csv")]
    assert warned == [("A", "Resampling"), ("B", "All voxels"), ("B", "Resampling")]
    table = out.read_bytes()
    assert run(monkeypatch, *options) == 0
    assert "4 were read from" in capfd.readouterr().out
    assert out.read_bytes() == table
    assert len(rows_of(folder / "features.warnings.csv")) == 3, "the journal contains the warnings"


def test_a_mask_that_was_drawn_anew_is_measured_anew(listed: Path) -> None:
    method = measure.Method.of(parameters.parse(SPEC))
    subject = read_subjects(listed)[0]
    assert subject.mask is not None

    def entry(known: str | None) -> measure.Entry:
        task = measure.Task(0, subject.study, subject.roi, method, known, subject.mask, subject.label)
        return measure.measure_study(task)

    first = entry(None)
    assert entry(first.files).code == "unchanged"
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(subject.mask)))
    labels[:7] = 0
    write_image(subject.mask, labels)
    again = entry(first.files)
    assert again.features is not None
    assert first.features is not None
    assert not np.array_equal(again.features, first.features)


def test_a_pair_that_is_away_is_unavailable(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (listed.parent / "a" / "mask.nii.gz").unlink()
    out = listed.with_name("features.csv")
    assert run(monkeypatch, listed, "-o", out, "--spec", listed.parent / "spec.yaml", "--workers", 1) == 4
    assert {row["patient_id"]: row["code"] for row in rows_of(out.with_suffix(".refused.csv"))}["A"] == "unavailable"


def test_paths_are_from_the_list_and_two_labels_are_two_entries_of_the_journal(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("ID;Image;Mask;Label;stage\nA;x/i.nii;/y/m.nii.gz;;IIIA\nB;x/i.nii;m.nii;2;IB\n")
    one, other = read_subjects(file)
    assert (one.study, one.mask, one.label) == (tmp_path / "x" / "i.nii", Path("/y/m.nii.gz"), 1)
    assert (other.mask, other.label, dict(other.carried)) == (tmp_path / "m.nii", 2, {"stage": "IB"})
    assert one.key != other.key


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Image,Mask\ni.nii,m.nii\n", r"columns are missing from the table: \['ID'\]"),
        ("ID,Image,Mask\nA,,m.nii\n", "Column Image, line 2: '' is not the name of a NIfTI file"),
        ("ID,Image,Mask\nA,i.nii,m.nrrd\n", "Column Mask, line 2: 'm.nrrd' is not the name of a NIfTI"),
        ("ID,Image,Mask,Label\nA,i.nii,m.nii,tumour\n", "Column Label, line 2: 'tumour' is not a whole number"),
        ("ID,Image,Mask,Label\nA,i.nii,m.nii,0\n", "'0' is not a whole number from 1"),
        ("ID,Image,Mask,Label\nA,i.nii,m.nii,1.5\n", "'1.5' is not a whole number from 1"),
        ("ID,Image,Mask\nA,i.nii,m.nii\nA,i.nii,n.nii\n", "same ID, 'A'"),
        ("ID,Image,Mask,stage\nA,i.nii,m.nii,late\n", "'late' is neither early nor advanced"),
        ("ID,Image,Mask,original_shape_MeshVolume\nA,i.nii,m.nii,1\n", "original_shape_MeshVolume"),
    ],
)
def test_a_list_that_is_not_one(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(Refused, match=told):
        read_subjects(tmp_path / "pairs.csv")
