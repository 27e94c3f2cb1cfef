"""``lungstage stage --batch``: each study is answered by itself, whatever files lie beside it."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid
from typer.testing import CliRunner, Result

from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.errors import ExitStatus
from lungstage.appliance.staging import batch, phantom
from lungstage.appliance.staging.batch import find_studies
from tests.support.studies import rtstruct_study


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms in one folder, a third without its SEG, a damaged file beside the first, and a text file."""
    folder = tmp_path_factory.mktemp("batch")
    for name in ("one", "other", "bare"):
        for path in phantom.write_study(folder / "studies" / name, name):
            if name == "bare" and path.name == "seg.dcm":
                path.unlink()
    whole = (folder / "studies" / "one" / "ct-000.dcm").read_bytes()
    (folder / "studies" / "one" / "broken.dcm").write_bytes(whole[:900])
    (folder / "studies" / "notes.txt").write_text("no DICOM")
    return folder / "studies"


def stage(inbox: Path, out: Path, *arguments: str, formats: str = "sr") -> Result:
    return CliRunner(env={"LUNGSTAGE_FORMATS": formats}).invoke(
        app, ["stage", str(inbox), "--bundle", "lung1-stage", "--out", str(out), "--perturbations=0", *arguments]
    )


@dataclass(frozen=True)
class Staged:
    """The answers of a batch and the files that it wrote."""

    done: Result
    out: Path
    volumes: Path


@pytest.fixture(scope="module")
def staged(inbox: Path, tmp_path_factory: pytest.TempPathFactory) -> Staged:
    folder = tmp_path_factory.mktemp("staged")
    arguments = ("--batch", "--json", "--save-volume", str(folder / "volumes"))
    return Staged(stage(inbox, folder / "out", *arguments, formats="sr,pdf"), folder / "out", folder / "volumes")


def study_of(inbox: Path, name: str) -> str:
    return str(pydicom.dcmread(inbox / name / "ct-000.dcm", stop_before_pixels=True).StudyInstanceUID)


def rows(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return {row["study_instance_uid"]: row for row in csv.DictReader(file)}


def test_each_study_has_a_line_of_json_a_row_and_its_report(inbox: Path, staged: Staged) -> None:
    done = staged.done
    assert done.exit_code == ExitStatus.REFUSED, "one was held"
    answers: dict[str, Any] = {a["study_instance_uid"]: a for a in map(json.loads, done.stdout.splitlines())}
    table = rows(staged.out)
    assert [*answers] == [*table] == [*find_studies([inbox]).files]
    assert {name: answers[study_of(inbox, name)]["status"] for name in ("one", "other", "bare")} == {
        "one": "staged", "other": "staged", "bare": "held",
    }  # fmt: skip
    for study, answer in answers.items():
        row = table[study]
        assert row["status"] == answer["status"]
        if answer["sr"] is None:
            assert (row["reason_code"], row["answer"], row["sr"]) == (answer["reason"]["code"], "", "")
            continue
        assert pydicom.dcmread(answer["sr"]).StudyInstanceUID == study
        assert {kind: row[kind] for kind in ("sr", "pdf")} == {k: answer["documents"][k] for k in ("sr", "pdf")}
        assert float(row["probability"]) == answer["probability_advanced"]
        assert {name: float(row[name]) for name in answer["features"]} == answer["features"]
    assert any("broken.dcm" in warning for warning in answers[study_of(inbox, "one")]["warnings"])
    assert not any("broken.dcm" in warning for warning in answers[study_of(inbox, "other")]["warnings"])


def test_the_same_as_each_study_alone(inbox: Path, staged: Staged, tmp_path: Path) -> None:
    alone = stage(inbox / "other", tmp_path, formats="sr,pdf")
    assert alone.exit_code == ExitStatus.DONE
    (report,) = tmp_path.glob("SR-*")
    assert (staged.out / report.name).is_file()


def test_people_get_one_table_and_the_names_of_refused_files_on_demand(inbox: Path, tmp_path: Path) -> None:
    shown = stage(inbox, tmp_path, "--batch").stdout
    assert "research use only" in shown
    assert "3 studies; one line for each in" in shown
    assert "1 file is not DICOM" in shown
    assert "1 DICOM file could not be read; --files lists them." in shown
    assert "broken.dcm" not in shown
    assert str(inbox / "one" / "broken.dcm") in stage(inbox, tmp_path, "--batch", "--files").stdout
    alone = stage(inbox, tmp_path, "--files")
    assert alone.exit_code == ExitStatus.USAGE


def test_a_defect_over_one_study_leaves_the_others_their_answers(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batch.stage_paths

    def failing(paths: Any, *others: Any) -> Any:
        if any(path.parent.name == "one" for path in paths):
            raise KeyError("DOE^JANE")
        return whole(paths, *others)

    monkeypatch.setattr(batch, "stage_paths", failing)
    done = stage(inbox, tmp_path, "--batch", "--json")
    assert done.exit_code == ExitStatus.DEFECT
    assert "DOE" not in done.output
    table = rows(tmp_path)
    assert table[study_of(inbox, "one")]["reason_code"] == "internal_error"
    assert table[study_of(inbox, "other")]["status"] == "staged"


def test_no_study_at_all_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = stage(tmp_path / "in", tmp_path / "out", "--batch")
    assert done.exit_code == ExitStatus.DONE
    assert "0 studies" in done.stdout
    assert rows(tmp_path / "out") == {}


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "by its contours alone"])
def test_contours_in_a_study_of_their_own_go_with_the_images_that_they_name(tmp_path: Path, listed: bool) -> None:
    study = rtstruct_study()
    (structures,) = study.rois
    structures.StudyInstanceUID = generate_uid()
    if not listed:
        del structures.ReferencedFrameOfReferenceSequence
    study.write(tmp_path)
    ((uid, files),) = find_studies([tmp_path]).files.items()
    assert uid == study.slices[0].StudyInstanceUID
    assert len(files) == len(study.slices) + 1


def test_a_volume_is_saved_for_each_study(inbox: Path, staged: Staged) -> None:
    assert {path.name for path in staged.volumes.iterdir()} == {study_of(inbox, name) for name in ("one", "other")}
