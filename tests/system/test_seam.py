"""The whole path once: a model is fitted on a tiny table and exported, and the daemon answers with this bundle."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app as appliance_command
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.radiomics.extract import extract
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.export.cli import app as export_command
from lungstage.training.cli import app as training_command
from tests.system.test_run import ENVIRONMENT, running

LUNGSTAGE = Path(sys.executable).parent / "lungstage"
COMMANDS = {"lungstage": appliance_command, "lungstage-train": training_command, "lungstage-export": export_command}


def run(command: str, *arguments: object) -> str:
    """Return what a command prints, without starting a process that would load torch again."""
    finished = CliRunner().invoke(COMMANDS[command], [*map(str, arguments)])
    assert finished.exit_code == 0, finished.output
    return finished.stdout


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 patients with features near the phantom's; the stage follows from a hidden variable."""
    values = extract(*phantom.make(), ExtractionSpec(ALL_FEATURES, {"binWidth": 25.0})).values
    random = np.random.default_rng(11)
    clinical = np.random.default_rng(12)
    path = tmp_path_factory.mktemp("table") / "features.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", "stage", "two_years", "age", "sex", *ALL_FEATURES])
        for patient in range(60):
            latent = random.normal()
            row = values * np.exp(0.25 * random.normal(size=values.size) + 0.2 * latent)
            stage = "advanced" if latent + 0.5 * random.normal() > 0 else "early"
            fate = "dead" if stage == "advanced" else "alive"
            age = round(65 + 8 * clinical.normal(), 1)
            writer.writerow([f"P{patient:03}", stage, fate, age, "MF"[patient % 2], *row])
    return path


@pytest.fixture(scope="module")
def bundle(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that the two offline commands make from the table."""
    folder = tmp_path_factory.mktemp("models")
    run("lungstage-train", "fit", table, "-o", folder / "run", "--quick")
    run("lungstage-export", "build", folder / "run", "-o", folder / "tiny")
    run("lungstage-export", "verify", folder / "tiny")
    run("lungstage", "verify", folder / "tiny")
    return folder / "tiny"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phantom.write_study(folder := tmp_path_factory.mktemp("study"))
    return folder


@pytest.fixture(scope="module")
def job(bundle: Path, study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The daemon's job for the study, with default options."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(ENVIRONMENT, "LUNGSTAGE_PERTURBATIONS")
        with running(tmp_path_factory.mktemp("daemon"), bundle) as appliance:
            shutil.copytree(study, appliance.inbox / "study")
            appliance.until(lambda: appliance.jobs() and appliance.jobs()[0]["state"] == "delivered")
            (answered,) = appliance.jobs()
            assert [str(path) for path in appliance.reports()] == [answered["sr"]]
            appliance.stop()
    return answered


@pytest.fixture(scope="module")
def once(bundle: Path, study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answer without a daemon, with default options."""
    outcome = stage_paths([study], load_bundle(bundle), tmp_path_factory.mktemp("once"), Options())
    assert outcome["status"] == "staged"
    return outcome


def test_from_table_to_report(bundle: Path, job: dict[str, Any]) -> None:
    report = hd.sr.srread(job["sr"])
    assert report.SOPInstanceUID == job["sr_sop_instance_uid"]
    group, _ = report.content.get_volumetric_roi_measurement_groups()
    values = [item.value for item in group.get_measurements() if item.value is not None]
    measured = job["outcome"]["features"]
    assert tuple(measured) == tuple(e["name"] for e in json.loads((bundle / "manifest.json").read_text())["features"])
    assert len(measured) == 15
    for name, value in measured.items():
        assert any(number == pytest.approx(value, rel=1e-12) for number in values), name


def test_a_name_that_cannot_be_decoded_is_left_empty_with_a_warning(bundle: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    for path in phantom.write_study(study):
        dataset = pydicom.dcmread(path)
        if "SpecificCharacterSet" in dataset:
            del dataset.SpecificCharacterSet
        dataset.PatientName = "ABCDEFGH"
        dataset.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"ABCDEFGH", "张三测试".encode("gbk")))
    outcome = stage_paths([study], load_bundle(bundle), tmp_path / "out", Options(robustness=NO_ROBUSTNESS))
    assert outcome["status"] == "staged"
    (warning,) = [text for text in outcome["warnings"] if "character set" in text]
    assert warning.endswith("left out of the report: Patient's Name.")
    for path in (tmp_path / "out").iterdir():
        assert pydicom.dcmread(path).PatientName == ""


def test_one_shot_and_daemon_give_the_same_answer(
    bundle: Path, study: Path, once: dict[str, Any], job: dict[str, Any]
) -> None:
    out = Path(once["sr"]).parent
    ask = ("stage", study, "--bundle", bundle, "--out", out, "--json")
    again = json.loads(subprocess.run([LUNGSTAGE, *ask], capture_output=True, text=True, check=True).stdout)
    assert again | {"seconds": None} == once | {"seconds": None}
    assert sorted(path.name[:3] for path in out.iterdir()) == ["PDF", "SR-"], "a repetition writes no new documents"
    assert Path(job["sr"]).name == Path(once["sr"]).name


def test_golden_case_is_what_the_patient_path_gives(bundle: Path, once: dict[str, Any]) -> None:
    golden = json.loads((bundle / "manifest.json").read_text())["golden"]
    assert once["features"] == pytest.approx(golden["features"], rel=1e-9)
    assert once["probability_advanced"] == pytest.approx(golden["probability_advanced"], abs=1e-6)


@pytest.mark.slow
def test_another_endpoint_with_covariates_goes_the_same_way(table: Path, tmp_path: Path) -> None:
    endpoint = ("--target", "two_years", "--positive", "dead", "--covariates", "age,sex")
    run("lungstage-train", "fit", table, "-o", tmp_path / "run", "--quick", *endpoint)
    run("lungstage-export", "build", tmp_path / "run", "-o", tmp_path / "fate")
    golden = load_bundle(tmp_path / "fate").manifest.golden
    seg, *_ = phantom.write_study(tmp_path / "study")
    study = str(pydicom.dcmread(seg).StudyInstanceUID)
    site = tmp_path / "covariates.csv"
    site.write_text(f"study_instance_uid,age,sex\n{study},{golden.covariates['age']},{golden.covariates['sex']}\n")
    ask = (
        "stage",
        tmp_path / "study",
        "--bundle",
        tmp_path / "fate",
        "--out",
        tmp_path,
        "--perturbations",
        0,
        "--json",
    )
    answer = json.loads(run("lungstage", *ask, "--covariates", site))
    assert (answer["stage"], answer["probability_advanced"]) == (None, None)
    assert answer["endpoint"]["name"] == "two_years"
    assert answer["endpoint"]["probability"] == pytest.approx(golden.probability_advanced, abs=1e-6)
    assert list(answer["contributions"])[15:] == ["age", "sex"]
    without = json.loads(run("lungstage", *ask))
    assert sum("median of the training cohort" in warning for warning in without["warnings"]) == 2
