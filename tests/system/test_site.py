"""A site's prevalence and covariates through the whole appliance: outcome, report and identity."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from lungstage.appliance.cli import main as cli
from lungstage.appliance.cli import one_shot
from lungstage.appliance.cli.answers import answer_in_words
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.appliance.staging.outcome import outcome
from lungstage.export.bundle import pack
from tests.export.conftest import SURVIVAL, make_run, without_limits
from tests.support.covariates import AGE, HISTOLOGY, SEX

CONTRACT = set(outcome(status="held"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    runs = {
        "plain": make_run(),
        "clinical": make_run(covariates=(AGE, SEX, HISTOLOGY)),
        "survival": make_run(endpoint=SURVIVAL),
    }
    for name, run in runs.items():  # without build and its self-test, which other tests check
        (folder / name).mkdir()
        for file, content in pack(without_limits(run), name)[0].items():
            (folder / name / file).write_bytes(content)
    return {name: folder / name for name in runs}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for path in phantom.write_study(folder):
        dataset = pydicom.dcmread(path)
        dataset.PatientAge, dataset.PatientSex = "063Y", "M"
        dataset.save_as(path)
    return folder


@pytest.fixture(scope="module")
def stage(
    bundles: dict[str, Path], study: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    loaded: dict[str, Bundle] = {name: load_bundle(path, self_test=False) for name, path in bundles.items()}
    answers: dict[str, dict[str, Any]] = {}  # a repeated request would take a second

    def run(name: str, site: Site = Site()) -> dict[str, Any]:  # noqa: B008
        asked = f"{name} {site}"
        if asked not in answers:
            options = Options(site=site, documents=DocumentOptions(("sr",)), robustness=RobustnessOptions(5))
            answers[asked] = stage_paths([study], loaded[name], tmp_path_factory.mktemp("out"), options)
        assert answers[asked]["status"] == "staged", answers[asked]["reason"]
        return answers[asked]

    return run


def uid_of(study: Path) -> str:
    return str(pydicom.dcmread(study / "ct-000.dcm").StudyInstanceUID)


def texts(answer: dict[str, Any]) -> str:
    def every(item: pydicom.Dataset) -> Iterable[str]:
        yield str(item.get("TextValue", ""))
        for child in item.get("ContentSequence", []):
            yield from every(child)

    return "\n".join(every(pydicom.dcmread(answer["sr"])))


def test_header_and_table_join_and_the_table_outranks(stage: Callable[..., dict[str, Any]], study: Path) -> None:
    by_header = stage("clinical")
    assert set(by_header) == CONTRACT
    assert list(by_header["contributions"])[15:] == ["age", "sex", "histology"]
    assert "Covariates used: age 63 a, sex M; missing, with the training median in place: histology." in texts(
        by_header
    )
    (missing,) = [w for w in by_header["warnings"] if "median of the training cohort" in w]
    assert missing in texts(by_header)
    assert by_header["contributions"]["histology"] == pytest.approx(0.0, abs=1e-14)
    site = Site(covariates={uid_of(study): {"age": 80.0, "histology": "large cell carcinoma"}, "1.2": {"sex": "F"}})
    by_table = stage("clinical", site)
    assert "Covariates used: age 80 a, sex M, histology large cell carcinoma." in texts(by_table)
    assert not [w for w in by_table["warnings"] if "median of the training cohort" in w]
    assert by_table["contributions"]["age"] != by_header["contributions"]["age"]
    assert by_table["contributions"]["histology"] != 0.0
    assert by_table["probability_advanced"] != by_header["probability_advanced"]


def test_a_row_for_no_study_changes_nothing(stage: Callable[..., dict[str, Any]]) -> None:
    other = Site(covariates={"1.2.3": {"age": 20.0}})
    assert Path(stage("clinical", other)["sr"]).name == Path(stage("clinical")["sr"]).name


def test_a_model_without_covariates_looks_at_none_and_says_so(
    stage: Callable[..., dict[str, Any]], study: Path
) -> None:
    plain = stage("plain")
    told = stage("plain", Site(covariates={uid_of(study): {"age": 80.0}}))
    assert Path(told["sr"]).name == Path(plain["sr"]).name
    assert set(told["warnings"]) - set(plain["warnings"]) == {
        "The model uses no covariates. The covariates table was not used."
    }
    assert set(plain["contributions"]) == set(plain["features"])
    assert "Covariates" not in texts(plain)


def test_whatever_the_site_says_is_part_of_the_documents_identity(
    stage: Callable[..., dict[str, Any]], study: Path
) -> None:
    sites = [
        Site(), Site(covariates={uid_of(study): {"age": 63.0}}), Site(0.2), Site(0.3),
        Site(covariates={uid_of(study): {"age": 63.1}}), Site(covariates={uid_of(study): {"sex": "O"}}),
    ]  # fmt: skip
    names = [Path(stage("clinical", site)["sr"]).name for site in sites]
    assert names[0] == names[1], "the table has the same value as the header"
    assert len(set(names)) == len(names) - 1


def test_prevalence_moves_probability_answer_and_chance_and_nothing_else(stage: Callable[..., dict[str, Any]]) -> None:
    before, after = stage("plain"), stage("plain", Site(0.2))
    odds = before["probability_advanced"] / (1 - before["probability_advanced"])
    expected = odds / ((98 / 160) / (62 / 160)) * (0.2 / 0.8)
    assert after["probability_advanced"] == pytest.approx(expected / (1 + expected), rel=1e-12)
    changed = {key for key in CONTRACT if before[key] != after[key]}
    assert {"probability_advanced", "decision", "sr", "documents", "seconds"} <= changed
    assert changed <= {
        "stage", "answer", "probability", "probability_advanced", "decision", "predictive_value", "robustness",
        "sr", "documents", "seconds", "warnings",
    }  # fmt: skip
    assert after["decision"]["prevalence_of"] == "site"
    if after["stage"] != "indeterminate":
        own = after["probability_advanced"] if after["stage"] == "advanced" else 1 - after["probability_advanced"]
        assert own >= 0.5
        assert "if 20 % of patients are such cases (setting of this site)" in texts(after)
    assert "61 % of them advanced stage" in texts(after)
    assert "this site's prevalence of 20 %" in texts(after)


def test_another_endpoint_is_no_stage(stage: Callable[..., dict[str, Any]]) -> None:
    answer = stage("survival")
    assert set(answer) == CONTRACT
    assert (answer["answer"], answer["probability"]) == (
        answer["endpoint"]["answer"],
        answer["endpoint"]["probability"],
    )
    assert (answer["stage"], answer["probability_advanced"]) == (None, None)
    assert answer["endpoint"]["name"] == "two-year survival"
    assert answer["endpoint"]["answer"] in ("alive", "dead", "indeterminate")
    assert 0 <= answer["endpoint"]["probability"] <= 1
    assert set(answer["domain"]) == {"distance", "outside"}
    said = one_shot.in_words(answer)
    assert f"two-year survival: {answer['endpoint']['answer']}" in said
    assert "stage" not in said.replace("lungstage", "").replace(str(answer["sr"]), "")
    assert "two-year survival" in answer_in_words(answer)
    assert "stag" not in texts(answer).lower().replace("lungstage", "")


def test_what_a_file_says_does_not_steer_the_terminal(stage: Callable[..., dict[str, Any]]) -> None:
    answer = stage("plain")
    answer["roi"]["name"] = "GTV\x1b[2J\nstage: early"
    said = one_shot.in_words(answer)
    assert "\x1b" not in said
    assert said.count("\nstage: ") == 1


def lungstage(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lungstage", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


class TestCommand:
    @pytest.fixture
    def asked(self, bundles: dict[str, Path], study: Path, tmp_path: Path) -> list[object]:
        few = ("--format", "sr", "--perturbations", "0")
        return ["stage", study, "--bundle", bundles["clinical"], "--out", tmp_path / "out", *few, "--json"]

    def test_options_reach_the_answer(
        self, asked: list[object], study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        (tmp_path / "c.csv").write_text(f"study_instance_uid,age,histology\n{uid_of(study)},71,adenocarcinoma\n")
        status = lungstage(monkeypatch, *asked, "--covariates", tmp_path / "c.csv", "--prevalence", "0.1")
        answer = json.loads(capsys.readouterr().out)
        assert (status, answer["status"]) == (0, "staged")
        assert "age 71 a, sex M, histology adenocarcinoma." in texts(answer)
        assert "prevalence of 10 %" in texts(answer)

    @pytest.mark.parametrize("value", ["0", "1", "-0.1", "1.5", "nan", "61%"])
    def test_a_prevalence_lies_between_0_and_1(
        self, asked: list[object], value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert lungstage(monkeypatch, *asked, f"--prevalence={value}") == 2

    def test_a_wrong_table_is_refused_before_anything_is_written(
        self, asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "c.csv").write_text("study_instance_uid,age\n1.2.3,old\n")
        assert lungstage(monkeypatch, *asked, "--covariates", tmp_path / "c.csv") == 3
        answer = json.loads(capsys.readouterr().out)
        assert answer["reason"]["code"] == "table_invalid"
        assert "line 2: column age" in answer["reason"]["message"]
        assert not (tmp_path / "out").exists()

    def test_a_table_that_is_not_there_is_unavailable(
        self, asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert lungstage(monkeypatch, *asked, "--covariates", tmp_path / "absent.csv") == 4


def test_the_golden_case_is_what_the_patient_path_gives(
    bundles: dict[str, Path], stage: Callable[..., dict[str, Any]], study: Path
) -> None:
    golden = load_bundle(bundles["clinical"]).manifest.golden
    answer = stage("clinical", Site(covariates={uid_of(study): golden.covariates}))
    assert answer["probability_advanced"] == pytest.approx(golden.probability_advanced, abs=1e-6)
