"""Real patients through the commands of a user, with the shipped bundle."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics import parameters
from lungstage.appliance.staging.intended_use import _lung_around
from lungstage.appliance.staging.measure import Stopwatch, measure
from lungstage.appliance.staging.one_shot import Options, measure_paths, scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.conftest import ROOT

LUNGSTAGE = Path(sys.executable).parent / "lungstage"


def lungstage(*arguments: object, status: int) -> dict[str, Any]:
    """Return the command's answer, without starting a process."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == status, done.stderr
    return answer_in(done.stdout)


def answer_in(printed: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(printed)
    assert set(answer) == {
        "status", "reason", "stage", "probability_advanced", "endpoint", "answer", "probability", "contributions",
        "features", "domain", "decision", "predictive_value", "robustness", "descriptors", "worth", "roi", "sr",
        "documents", "warnings", "seconds",
    }  # fmt: skip
    return answer


PATIENTS = {"ibsi": ("ibsi/ct_phantom/dicom", 125256), "lung1-001": ("dicom/lung1-001-slab", 54639)}


@dataclass(frozen=True)
class Staged:
    """A process's answer, the folder of its documents, and its network calls; these are None without strace."""

    answer: dict[str, Any]
    out: Path
    calls: list[str] | None


@pytest.fixture(scope="module")
def staged(
    shared_data: Path, shipped_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Staged]:
    """Stage a patient with the installed command, once."""

    @cache
    def stage(patient: str) -> Staged:
        out = tmp_path_factory.mktemp(patient)
        trace = out.with_suffix(".trace")
        watch = ["strace", "-f", "--seccomp-bpf", "-e", "trace=network", "-o", trace] if shutil.which("strace") else []
        asked = ["stage", shared_data / PATIENTS[patient][0], "--bundle", shipped_bundle, "--out", out, "--json"]
        command = [*map(str, [*watch, LUNGSTAGE, *asked])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return Staged(answer_in(done.stdout), out, trace.read_text().splitlines() if watch else None)

    return stage


@pytest.mark.parametrize("patient", PATIENTS)
def test_stage(patient: str, staged: Callable[[str], Staged]) -> None:
    _, voxels = PATIENTS[patient]
    answer = staged(patient).answer
    assert answer["status"] == "staged"
    assert answer["reason"] is None
    assert answer["roi"]["voxels"] == voxels
    assert len(answer["features"]) == len(answer["contributions"]) == 15
    assert answer["stage"] in {"early", "advanced", "indeterminate"}
    report = hd.sr.srread(answer["sr"])
    group, of_descriptors = report.content.get_volumetric_roi_measurement_groups()
    values = [item.value for item in group.get_measurements() if item.value is not None]
    for name, value in answer["features"].items():
        assert any(math.isclose(number, value, rel_tol=1e-12) for number in values), name
    assert [item.name.value for item in of_descriptors.get_measurements()][:2] == ["103339001", "103340004"]
    segmentation = pydicom.dcmread(next(staged(patient).out.glob("SEG-*.dcm")))
    assert int((segmentation.pixel_array > 0).sum()) == voxels


@pytest.mark.parametrize("patient", PATIENTS)
def test_the_written_seg_as_input_gives_the_same_numbers(
    patient: str, staged: Callable[[str], Staged], shared_data: Path, shipped_bundle: Path, tmp_path: Path
) -> None:
    folder, _ = PATIENTS[patient]
    contoured = staged(patient).answer
    study = tmp_path / "study"
    study.mkdir()
    for header in scan([shared_data / folder]).headers:
        if hasattr(header, "rows"):
            shutil.copy(header.path, study)
    segmentation = pydicom.dcmread(next(staged(patient).out.glob("SEG-*.dcm")))
    segmentation.ManufacturerModelName = "another"  # the appliance ignores a SEG that it made itself
    segmentation.save_as(study / "seg.dcm")
    asked = ("stage", study, "--bundle", shipped_bundle, "--out", tmp_path / "b", "--perturbations", "0")
    segmented = lungstage(*asked, status=0)
    for key in ("features", "probability_advanced", "contributions", "stage", "domain"):
        assert segmented[key] == contoured[key]
    assert segmented["roi"]["voxels"] == contoured["roi"]["voxels"]
    written = {Path(path) for path in segmented["documents"].values()}
    assert {*(tmp_path / "b").iterdir()} == written
    assert sorted(segmented["documents"]) == ["pdf", "sr"], "if the input is a SEG, no second SEG is written"


@pytest.mark.parametrize("patient", ["STS_002", "STS_008"])
@pytest.mark.parametrize("options", [(), ("--roi", "GTV_Mass_CT", "--match-by-geometry")])
def test_a_sarcoma_is_not_given_a_lung_stage(
    patient: str, options: tuple[str, ...], shared_data: Path, shipped_bundle: Path, tmp_path: Path
) -> None:
    folder = shared_data / "dicom" / patient
    answer = lungstage("stage", folder, "--bundle", shipped_bundle, "--out", tmp_path, *options, status=3)
    assert answer["status"] == "refused"
    assert answer["reason"]["code"] == "outside_intended_use"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("patient", ["STS_002", "STS_008"])
def test_a_sarcoma_without_its_body_part_is_still_refused(
    patient: str, shared_data: Path, shipped_bundle: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for number, header in enumerate(scan([shared_data / "dicom" / patient]).headers):
        dataset = pydicom.dcmread(header.path)
        if "BodyPartExamined" in dataset:
            dataset.BodyPartExamined = ""
        dataset.save_as(study / f"{number}.dcm")
    options = ("--roi", "GTV_Mass_CT", "--match-by-geometry")
    answer = lungstage("stage", study, "--bundle", shipped_bundle, "--out", tmp_path / "out", *options, status=3)
    assert answer["reason"]["code"] == "outside_intended_use"
    assert "no lung" in answer["reason"]["message"]


@pytest.mark.parametrize(
    ("folder", "share"),
    [
        ("ibsi/ct_phantom/dicom", 0.39),
        ("dicom/lung1-001-slab", 0.57),
        ("dicom/STS_002", 0.014),
        ("dicom/STS_008", 0.0),
    ],
)
def test_lung_next_to_the_tumour(folder: str, share: float, shared_data: Path) -> None:
    """The figures of docs/decisions.md that distinguish a chest from a thigh if no header does."""
    (case,) = (case for case in assemble(scan([shared_data / folder]).headers) if case.rois)
    spec = ExtractionSpec(ALL_FEATURES[:1], {"binWidth": 25.0})
    plan = plan_measurement(case, ROI_RULE, spec, settled=True, match_by_geometry=True)
    assert _lung_around(measure(plan.regions, spec, Stopwatch())) == pytest.approx(share, abs=0.006)


SARCOMA = ("--roi", "GTV_Mass_CT", "--match-by-geometry")
EVERYBODY: dict[str, tuple[str, tuple[str, ...]]] = {
    "ibsi": ("ibsi/ct_phantom/dicom", ()), "lung1-001": ("dicom/lung1-001-slab", ()),
    "STS_002": ("dicom/STS_002", SARCOMA), "STS_008": ("dicom/STS_008", SARCOMA),
}  # fmt: skip
SPECS = {
    "native": "setting: {binWidth: 25}",
    "linear": "setting: {binWidth: 25, resampledPixelSpacing: [1, 1, 1], interpolator: sitkLinear}",
    "B-spline": "setting: {binWidth: 25, resampledPixelSpacing: [2, 2, 2], interpolator: sitkBSpline}",
}


@pytest.mark.parametrize("patient", EVERYBODY)
@pytest.mark.parametrize("spec", SPECS)
def test_a_nifti_pair_measures_as_its_dicom(patient: str, spec: str, shared_data: Path, tmp_path: Path) -> None:
    """To 1e-9; without resampling, NIfTI's single precision affects sizes more (docs/nifti.md)."""
    folder, options = EVERYBODY[patient]
    (tmp_path / "spec.yaml").write_text(SPECS[spec])
    asked = ("--spec", tmp_path / "spec.yaml")
    of_dicom = lungstage(
        "measure", shared_data / folder, *options, *asked, "--save-volume", tmp_path / "pair", status=0
    )
    pair = (tmp_path / "pair" / "image.nii.gz", tmp_path / "pair" / "mask.nii.gz")
    of_nifti = lungstage("measure", *pair, *asked, status=0)
    rounded = ("original_shape_", "original_firstorder_TotalEnergy") if (spec, patient[:3]) == ("native", "STS") else ()
    for name, value in of_dicom["features"].items():
        tolerance = 5e-8 if name.startswith(rounded) else 1e-9
        assert of_nifti["features"][name] == pytest.approx(value, rel=tolerance), name
    assert of_nifti["roi"]["voxels"] == of_dicom["roi"]["voxels"]
    assert of_nifti["warnings"] == []


def test_a_flipped_byte_in_the_bundle(shared_data: Path, shipped_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(shipped_bundle, tmp_path / "bundle")
    model = bytearray((bundle / "model.onnx").read_bytes())
    model[1000] ^= 1
    (bundle / "model.onnx").write_bytes(model)
    folder = shared_data / "dicom" / "lung1-001-slab"
    answer = lungstage("stage", folder, "--bundle", bundle, "--out", tmp_path / "out", status=3)
    assert answer["reason"]["code"] == "bundle_hash_mismatch"


@pytest.mark.parametrize("patient", PATIENTS)
def test_no_socket_is_opened(patient: str, staged: Callable[[str], Staged]) -> None:
    if (calls := staged(patient).calls) is None:
        pytest.skip("strace is not installed")
    assert [line for line in calls if ("socket(" in line or "connect(" in line) and "AF_UNIX" not in line] == []
    assert any("exited with 0" in line for line in calls), "the trace must reach the end of the process"


def test_the_daemon_loads_no_training_library() -> None:
    program = (
        "import sys, lungstage.appliance.daemon.start, lungstage.appliance.staging.pipeline;"
        " print(*{n.split('.')[0] for n in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "pandas"} & set(loaded)


def test_skew_of_the_training_table(shared_data: Path) -> None:
    """The skew in the training cohort's description equals today's measurement."""
    with (ROOT / "training/cohorts/lung1.toml").open("rb") as file:
        description = tomllib.load(file)
    spec = ExtractionSpec(ALL_FEATURES, parameters.parse("setting: {}").settings | description["extraction"])
    measured = measure_paths([shared_data / "ibsi/ct_phantom/dicom"], ROI_RULE, spec, Options())["features"]
    with (shared_data / "lung1/features.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["patient_id"] == "LUNG1-002")
    for name, stated in description["skew"]["relative"].items():
        table = float(row[name])
        assert (measured[name] - table) / abs(table) == pytest.approx(stated, abs=1e-4), name


@pytest.mark.slow
def test_the_shipped_bundle_is_what_the_commands_make(shared_data: Path, shipped_bundle: Path, tmp_path: Path) -> None:
    """`lungstage-train fit` and `lungstage-export build` on the table give the same bytes."""
    if not os.environ.get("LUNGSTAGE_REBUILD"):
        pytest.skip(
            "rebuilding takes minutes, and the same bytes need the same kind of machine; set LUNGSTAGE_REBUILD=1"
        )
    scripts = Path(sys.executable).parent
    table = shared_data / "lung1" / "features.csv"
    subprocess.run([scripts / "lungstage-train", "fit", table, "-o", tmp_path / "run"], check=True)
    rebuilt = tmp_path / shipped_bundle.name
    subprocess.run([scripts / "lungstage-export", "build", tmp_path / "run", "-o", rebuilt], check=True)
    for path in shipped_bundle.iterdir():
        assert (rebuilt / path.name).read_bytes() == path.read_bytes(), path.name
