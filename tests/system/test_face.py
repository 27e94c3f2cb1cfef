"""``import lungstage``: the functions for scripts, and the time of the import."""

from __future__ import annotations

import ast
import doctest
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import lungstage
from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.contract.plain import Form
from lungstage.appliance.contract.spec import STAGE_GROUP, DomainAssessment, Endpoint, Stage, StagingResult
from lungstage.appliance.radiomics import parameters
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.outcome import STEPS, outcome
from lungstage.appliance.workers.messages import Outcome
from lungstage.training.selection import elimination

KEYS = {
    "status", "reason", "stage", "probability_advanced", "endpoint", "answer", "probability", "contributions",
    "features", "domain", "decision", "predictive_value", "robustness", "descriptors", "worth", "roi", "sr",
    "documents", "warnings", "seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    phantom.write_study(folder)
    return folder


def command(*arguments: object) -> dict[str, Any]:
    """Return what a command prints with ``--json``."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    answer: dict[str, Any] = json.loads(done.stdout)
    assert (done.exit_code == 0) == (answer["reason"] is None)
    return answer


@pytest.fixture(scope="module")
def printed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command prints for the study with the shipped bundle."""
    return command("stage", study, "--bundle", "lung1-stage", "--out", tmp_path_factory.mktemp("command"))


def python(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# --- the import itself ---------------------------------------------------------------------------------------------


def test_importing_it_loads_nothing_and_takes_no_time() -> None:
    program = """
import sys, time
before, start = set(sys.modules), time.process_time()
import lungstage
print(time.process_time() - start)
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    told = [python(program).splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in told) < 0.05
    loaded = set(told[0][1].split())
    assert "lungstage" in loaded
    assert loaded - {"lungstage"} <= sys.stdlib_module_names


def test_every_name_is_there_and_no_other() -> None:
    assert dir(lungstage) == sorted(lungstage.__all__)
    for name in lungstage.__all__:
        assert getattr(lungstage, name) is not None
    assert lungstage.GradientLossRFE is elimination.GradientLossRFE
    with pytest.raises(AttributeError, match="has no attribute 'mesure'"):
        _ = lungstage.mesure  # type: ignore[attr-defined]


def test_what_is_loaded_late_is_what_a_type_checker_sees() -> None:
    """In the source, the imports below TYPE_CHECKING name the same modules as the late imports."""
    tree = ast.parse(Path(lungstage.__file__).read_text())
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == lungstage._HOMES
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) if node.name[0] != "_"}
    assert {*lungstage._HOMES, *functions} == {*lungstage.__all__}


@pytest.mark.parametrize("missing", ["torch", "sklearn", "scipy", "lungstage.training"])
def test_without_the_training_libraries_it_says_what_to_install(missing: str) -> None:
    program = f"""
import sys
class Missing:
    def find_spec(name, *_):
        if name == {missing!r}:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Missing)
import lungstage
try:
    lungstage.GradientLossRFE
except ImportError as error:
    print(error)
    assert error.__suppress_context__
"""
    assert python(program) == (
        f"lungstage.GradientLossRFE needs {missing}, which is not installed: pip install 'lungstage[training]'"
    )


@pytest.mark.parametrize("what", [lungstage.measure, lungstage.stage, lungstage.load_bundle, lungstage.GradientLossRFE])
def test_its_examples_say_the_truth(what: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(what, what.__name__, globs={})
    told: list[str] = []
    results = doctest.DocTestRunner().run(example, out=told.append)
    assert results.attempted >= 3
    assert results.failed == 0, "".join(told)


# --- measure -------------------------------------------------------------------------------------------------------


def test_measuring_is_what_the_command_does(study: Path, tmp_path: Path) -> None:
    printed = command("measure", study, "--spec", "all", "--save-volume", tmp_path / "command")
    measured = lungstage.measure(study, "all", save_volume=tmp_path / "call")
    assert printed["status"] == "measured"
    assert measured.features == printed["features"]
    assert list(measured.features) == list(printed["features"])
    facts = {"name": measured.roi, "voxels": measured.voxels, "volume_mm3": measured.volume_mm3}
    assert printed["roi"] == facts | {"others": [*measured.others]}
    assert measured.warnings == tuple(printed["warnings"])
    assert {"read", "resample", "radiomics", "total"} <= measured.seconds.keys() <= {*STEPS}
    assert all(seconds > 0 for seconds in measured.seconds.values())
    for name in ("command", "call"):
        assert len(list((tmp_path / name).iterdir())) == 2
    with pytest.raises(FrozenInstanceError):
        measured.voxels = 0  # type: ignore[misc]


def test_paths_and_spec_may_come_in_every_form(study: Path, shipped_bundle: Path) -> None:
    written = shipped_bundle / "extraction.yaml"
    spec = parameters.read(str(written))
    paths = (study, str(study), [study], iter(sorted(study.iterdir())), tuple(map(str, study.iterdir())))
    answers = [lungstage.measure(path, spec).features for path in paths]
    answers += [lungstage.measure(study, path).features for path in (written, str(written))]
    assert len(answers[0]) == 15
    assert all(answer == answers[0] for answer in answers)


def test_a_region_is_measured_by_its_name(study: Path) -> None:
    name = lungstage.measure(study, "all").roi
    assert lungstage.measure(study, "all", name).roi == name
    with pytest.raises(lungstage.Refused, match=name) as refused:
        lungstage.measure(study, "all", roi="GTV-9")
    assert refused.value.reason.code == ReasonCode.ROI_NOT_FOUND


def test_a_value_that_could_not_be_computed_is_no_number(study: Path) -> None:
    printed = command("measure", study, "--spec", "all") | {"features": {"a": None, "b": 1.0}}
    features = lungstage.MeasuredCase.of(printed).features
    assert math.isnan(features["a"])
    assert features["b"] == 1.0


def test_what_cannot_be_measured_is_raised(study: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    for path in study.glob("ct-*"):
        shutil.copy(path, alone)
    with pytest.raises(lungstage.Held) as held:
        lungstage.measure(alone, "all")
    assert held.value.reason.code == ReasonCode.NO_ROI
    with pytest.raises(lungstage.Refused) as refused:
        lungstage.measure(tmp_path / "alone" / "..", tmp_path / "none.yaml")
    assert refused.value.reason.code == ReasonCode.SPEC_UNSUPPORTED
    with pytest.raises(lungstage.Unavailable, match="nowhere"):
        lungstage.measure(tmp_path / "nowhere", "all")
    with pytest.raises(lungstage.Unavailable, match="nowhere"):
        lungstage.measure([study, tmp_path / "nowhere"], "all")


# --- stage ---------------------------------------------------------------------------------------------------------


def test_staging_is_what_the_command_does(printed: dict[str, Any], study: Path, tmp_path: Path) -> None:
    bundle = lungstage.load_bundle("lung1-stage")
    staged = lungstage.stage(str(study), bundle, str(tmp_path / "call"))
    assert (staged.endpoint, staged.answer) == ("stage", printed["stage"])
    assert staged.probability == printed["probability_advanced"]
    assert staged.contributions == printed["contributions"]
    assert {"distance": staged.distance, "outside": [*staged.outside]} == printed["domain"]
    assert (staged.features, staged.warnings) == (printed["features"], tuple(printed["warnings"]))
    assert staged.sr == tmp_path / "call" / Path(printed["sr"]).name
    assert staged.sr.is_file()
    assert isinstance(staged, lungstage.MeasuredCase)


def test_without_a_folder_nothing_is_written(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lungstage.stage(study, "lung1-stage").sr is None
    assert not list(tmp_path.iterdir())


def test_prevalence_and_covariates_of_the_site_count(study: Path, tmp_path: Path) -> None:
    bundle = lungstage.load_bundle("lung1-stage")
    (tmp_path / "site.csv").write_text("study_instance_uid,age\n1.2.3,61\n")
    rare = lungstage.stage(study, bundle, prevalence=0.01, covariates=tmp_path / "site.csv")
    assert rare.probability < lungstage.stage(study, bundle).probability
    assert any("uses no covariates" in warning for warning in rare.warnings)
    for prevalence in (0, 1, -0.5, np.nan):
        with pytest.raises(ValueError, match="prevalence"):
            lungstage.stage(study, bundle, prevalence=prevalence)


def test_a_study_that_the_model_is_not_meant_for_is_refused(study: Path, tmp_path: Path) -> None:
    bundle = lungstage.load_bundle("lung1-stage")
    use = bundle.manifest.intended_use.model_copy(update={"slice_thickness_mm": (8.0, 9.0)})
    other = replace(bundle, manifest=bundle.manifest.model_copy(update={"intended_use": use}))
    with pytest.raises(lungstage.Refused) as refused:
        lungstage.stage(study, other, tmp_path / "out")
    assert refused.value.reason.code == ReasonCode.OUTSIDE_INTENDED_USE
    assert not (tmp_path / "out").exists()


def test_an_answer_about_another_endpoint_is_told_in_its_words(study: Path) -> None:
    domain = DomainAssessment(1.5, 0.5, ("a",))
    result = StagingResult(Stage.ADVANCED, 0.75, {"a": 0.25}, domain)
    printed = command("measure", study, "--spec", "all") | {
        key: value
        for key, value in outcome(
            status="staged", result=result, endpoint=Endpoint("two-year survival", "alive", "dead")
        ).items()
        if key not in ("roi", "features", "warnings", "seconds")
    }
    assert (printed["stage"], printed["probability_advanced"]) == (None, None)
    staged = lungstage.StagedCase.of(printed)
    assert (staged.endpoint, staged.answer, staged.probability) == ("two-year survival", "dead", 0.75)


# --- bundles by name -----------------------------------------------------------------------------------------------


def test_a_bundle_is_found_by_its_name_from_anywhere(
    tmp_path: Path, shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    digest = lungstage.load_bundle(shipped_bundle).digest
    assert lungstage.load_bundle("lung1-stage").digest == digest
    verified = CliRunner().invoke(app, ["verify", "lung1-stage"])
    assert verified.exit_code == 0
    assert digest in verified.stdout


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lung1-stage").mkdir()
    with pytest.raises(lungstage.Refused, match="are missing"):
        lungstage.load_bundle("lung1-stage")


@pytest.mark.parametrize("name", ["lung1-stgae", "", "./lung1-stage", "models/lung1-stage", "..", "/"])
def test_what_is_no_bundles_name_is_not_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lungstage.Refused) as refused:
        lungstage.load_bundle(name)
    assert refused.value.reason.code == ReasonCode.BUNDLE_UNREADABLE


# --- the keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [STAGE_GROUP, Endpoint("two-year survival", "alive", "dead")])
def test_a_worker_can_tell_the_daemon_what_is_staged(endpoint: Endpoint, printed: dict[str, Any]) -> None:
    """The daemon accepts exactly these keys from a worker."""
    domain = DomainAssessment(1.5, 0.5, ())
    answered = outcome(status="staged", result=StagingResult(Stage.EARLY, 0.25, {"a": 0.5}, domain), endpoint=endpoint)
    told = {**answered, **{key: printed[key] for key in ("roi", "features", "warnings", "seconds")}}
    form: Form[Any] = Form(Outcome)
    assert form.decode(form.encode(told)) == told


def test_every_key_is_always_there(printed: dict[str, Any], study: Path, tmp_path: Path) -> None:
    measured = command("measure", study, "--spec", "all")
    refused = command("measure", tmp_path, "--spec", "all")
    assert [answer["status"] for answer in (printed, measured, refused)] == ["staged", "measured", "refused"]
    for answer in (printed, measured, refused, outcome(status="held", reason=Reason(ReasonCode.NO_ROI, "None."))):
        assert answer.keys() == KEYS
        assert answer["seconds"].keys() == {*STEPS}
