"""The whole evaluation: noise gives an AUC of 0.5, a signal is found, and a figure that is too good gets a warning."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from lungstage.appliance.contract.spec import ALL_FEATURES, Endpoint
from lungstage.training import cli
from lungstage.training.cohorts.cohort import CUT_COLUMN
from lungstage.training.cohorts.repeatability import Repeatability
from lungstage.training.evaluation.evaluate import ABLATION, evaluate, input_record
from lungstage.training.evaluation.methods import GL_RFE, methods, methods_of
from lungstage.training.evaluation.metrics import METRICS
from lungstage.training.evaluation.verdicts import SIMPLE, verdict, warnings
from lungstage.training.procedure import QUICK
from lungstage.training.reporting.summary import print_evaluation
from tests.training.conftest import small_comparators
from tests.training.records import evaluation_record
from tests.training.tables import make_cohort

PROCEDURE = replace(QUICK, folds=3, selection=replace(QUICK.selection, features=8, fine_below=10))
STEADY = replace(PROCEDURE, selection=replace(PROCEDURE.selection, members=5))
FEW = (GL_RFE, "anova_dnn", "anova_lr", "random_lr", "majority", "volume")
NAMES = ALL_FEATURES[:20]
SURVIVAL = Endpoint("two-year survival", "dead", "alive")


def _silent(step: str, done: int, total: int) -> None:
    assert 0 <= done <= total, step


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The command's output for every method, on a table without any signal in features and covariate."""
    folder = tmp_path_factory.mktemp("noise")
    cohort = make_cohort(n=90, signal=0.0, seed=5, covariate=0.0)
    assert cohort.covariate_values is not None
    lines = [",".join(("patient_id", "stage", "age", CUT_COLUMN, *NAMES))]
    for patient, positive, age, own in zip(
        cohort.patients, cohort.labels, cohort.covariate_values[:, 0], cohort.values, strict=True
    ):
        stage, years = "advanced" if positive else "early", "" if np.isnan(age) else age
        lines.append(",".join(map(str, (patient, stage, years, int(patient) % 10 == 0, *own))))
    (folder / "features.csv").write_text("\n".join(lines))
    (folder / "study.toml").write_text(
        f'[study]\ntable = "features.csv"\nrun = "{folder}/run"\n[procedure]\npreset = "quick"\nfeatures = 8\n'
    )
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text("of a fit")
    with small_comparators():
        done = CliRunner().invoke(
            cli.app, ["evaluate", "--config", str(folder / "study.toml"), "--covariates", "age", "--keep-cut-rows"]
        )
    assert done.exit_code == 0, done.output
    return folder / "run", done


@pytest.fixture(scope="module")
def noise(told: tuple[Path, Result]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((told[0] / "evaluation.json").read_text())
    return found


@pytest.fixture(scope="module")
def signal() -> dict[str, Any]:
    """A few methods on a table with a strong signal."""
    return evaluate(make_cohort(n=120, endpoint=SURVIVAL), STEADY, _silent, FEW)[0]


def test_noise_is_worth_one_half_by_every_method(noise: dict[str, Any]) -> None:
    """One in twenty 95 % intervals may miss 0.5, but here not the interval of the reference method."""
    found = {name: one["metrics"]["auc"] for name, one in noise["methods"].items()}
    assert set(found) == set(methods(PROCEDURE, NAMES, covariates=True))
    missed = [name for name, auc in found.items() if not auc["low"] <= 0.5 <= auc["high"]]
    assert len(missed) <= 2, missed
    assert GL_RFE not in missed
    assert np.mean([auc["value"] for auc in found.values()]) == pytest.approx(0.5, abs=0.06)
    briers = [one["metrics"]["brier"]["value"] for one in noise["methods"].values()]
    assert np.mean(briers) < 0.28, "a calibrated model of noise predicts the prevalence"
    assert max(briers) < 0.35
    assert noise["warnings"] == []
    assert noise["covariate_ablation"] == ABLATION
    assert set(ABLATION.values()) <= set(found)
    verdicts = {one["against"]: one for one in noise["verdicts"]}
    assert set(verdicts) == set(found) - {GL_RFE}
    assert sum(one["adds_value"] is not None for one in verdicts.values()) <= 3


def test_the_command_writes_beside_the_run_and_prints_the_table(
    told: tuple[Path, Result], noise: dict[str, Any]
) -> None:
    run, done = told
    assert noise["table"]["used"] == 90
    for method in noise["methods"].values():
        assert method["label"] in done.stdout
    assert sorted(file.name for file in run.iterdir()) == ["evaluation.json", "run.json"]
    assert (run / "run.json").read_text() == "of a fit"


def test_a_signal_is_found_and_every_figure_is_there(signal: dict[str, Any]) -> None:
    assert list(signal["methods"]) == [name for name in methods(PROCEDURE, make_cohort().features) if name in FEW]
    own = signal["methods"][GL_RFE]
    for name, one in signal["methods"].items():
        assert tuple(one["metrics"]) == METRICS
        for figure in one["metrics"].values():
            assert figure["low"] <= figure["value"] <= figure["high"]
        assert set(one["conformal"]["coverage"]) == {"dead", "alive"}
        assert (one["difference"] is None) == (one["difference_corrected"] is None) == (name == GL_RFE)
        if name != GL_RFE:
            apart = own["metrics"]["auc"]["value"] - one["metrics"]["auc"]["value"]
            assert one["difference"]["auc"]["value"] == pytest.approx(apart)
            assert one["difference_corrected"]["value"] == pytest.approx(apart, abs=0.02)
        assert (one["stability"] is None) == (one["selector"] is None)
    assert own["metrics"]["auc"]["low"] > 0.7
    assert signal["methods"]["majority"]["metrics"]["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert signal["methods"]["majority"]["conformal"]["indeterminate"] > 0.9
    assert signal["covariate_ablation"] is None
    frequency = own["selection_frequency"]
    assert sum(frequency.values()) == pytest.approx(8)
    assert frequency == {**frequency, "original_shape_0": 1.0, "original_shape_1": 1.0, "original_shape_2": 1.0}
    verdicts = {one["against"]: one for one in signal["verdicts"]}
    assert verdicts["majority"]["adds_value"]
    assert verdicts["majority"]["sentence"].startswith("GL-RFE-8 + network adds value over majority class: AUC diff")
    json.dumps(signal, allow_nan=False)


def test_methods_alone_give_the_figures_they_give_among_others(signal: dict[str, Any]) -> None:
    alone = evaluate(make_cohort(n=120, endpoint=SURVIVAL), STEADY, _silent, (GL_RFE, "anova_lr"))[0]
    assert list(alone["methods"]) == [GL_RFE, "anova_lr"]
    for name, one in alone["methods"].items():
        assert one == signal["methods"][name]


def test_a_verdict_says_what_the_interval_says() -> None:
    def said(low: float, high: float) -> dict[str, Any]:
        return verdict("A", "b", "B", {"value": (low + high) / 2, "low": low, "high": high})

    assert said(0.01, 0.07) == {
        "against": "b", "adds_value": True, "sentence": "A adds value over B: AUC difference 0.040 (0.010 to 0.070)."
    }  # fmt: skip
    assert said(-0.07, -0.01)["adds_value"] is False
    assert said(-0.07, -0.01)["sentence"] == "A is worse than B: AUC difference −0.040 (−0.070 to −0.010)."
    assert said(-0.01, 0.03)["adds_value"] is None
    assert said(-0.01, 0.03)["sentence"].startswith("No difference between A and B is shown: ")


def test_a_verdict_needs_both_intervals() -> None:
    """One interval is for the choice of test patients, one for that of training patients, about twice as wide."""
    paired = {"value": 0.04, "low": 0.01, "high": 0.07}
    wide, firm = ({"value": 0.04, "low": low, "high": 0.09} for low in (-0.01, 0.002))
    assert verdict("A", "b", "B", paired, wide) == {
        "against": "b", "adds_value": None,
        "sentence": "No difference between A and B is shown: "
        "AUC difference 0.040 (0.010 to 0.070; corrected for training −0.010 to 0.090).",
    }  # fmt: skip
    assert verdict("A", "b", "B", paired, firm)["adds_value"] is True
    worse = {"value": -0.04, "low": -0.07, "high": -0.01}
    assert verdict("A", "b", "B", worse, {"value": -0.04, "low": -0.09, "high": 0.01})["adds_value"] is None
    assert verdict("A", "b", "B", worse, worse)["adds_value"] is False


def test_what_was_filtered_and_joined_is_written_down() -> None:
    """The record names the inputs, so that an evaluation with other inputs is not taken for the model's evaluation."""
    cohort = make_cohort(n=40, covariate=0.0)
    rated = Repeatability("icc.csv", "0" * 64, 0.75, MappingProxyType({"original_glcm_0": 0.4}))
    written = json.loads(json.dumps(input_record(replace(cohort, repeatability=rated))))
    assert written == {
        "covariates": [{"name": "age", "levels": []}],
        "repeatability": {
            "table": "icc.csv",
            "sha256": "0" * 64,
            "minimum": 0.75,
            "left_out": {"original_glcm_0": 0.4},
        },
    }
    assert input_record(cohort)["repeatability"] is None


def test_a_planted_leak_is_called_one() -> None:
    """The leak is a column with the stage and a little noise, such as the size of lymph nodes."""
    cohort = make_cohort(n=90, signal=0.0)
    values = cohort.values.copy()
    values[:, 7] = cohort.labels + 0.05 * np.random.default_rng(0).normal(size=90)
    names = ("original_shape_Sphericity", "original_shape_MeshVolume", *cohort.features[2:])
    compared = (GL_RFE, "anova_lr", "sphericity_volume", "majority")
    evaluation, _ = evaluate(replace(cohort, values=values, features=names), PROCEDURE, _silent, compared)
    said = " ".join(evaluation["warnings"])
    assert "above that of sphericity + volume, logistic (" in said
    assert "on the same patients: GL-RFE" in said
    assert "AUC above 0.95: " in said
    assert "Accuracy above 0.90 in 90 patients: " in said
    assert "Assume data leakage until you have excluded it." in said
    assert "ANOVA-8 + logistic (1.00)" in said
    assert "majority" not in said


def test_what_is_plausible_depends_on_the_endpoint_and_the_number_of_patients() -> None:
    def method(label: str, auc: float, accuracy: float, reach: float = 0.05) -> dict[str, Any]:
        metrics = {"auc": {"value": auc, "low": auc - reach}, "accuracy": {"value": accuracy}}
        return {"label": label, "metrics": metrics}

    def said(auc: float, accuracy: float, endpoint: Endpoint, patients: int, reach: float = 0.05) -> list[str]:
        simple = {"volume": method("volume", 0.6, 0.6), "sphericity_volume": method("the two", 0.7, 0.6)}
        return warnings({"one": method("it", auc, accuracy, reach), **simple}, endpoint, patients)

    stage = make_cohort().endpoint
    assert said(0.79, 0.89, stage, 200) == []
    (sentence,) = said(0.82, 0.89, stage, 200)
    assert sentence == (
        "AUC more than 0.1 above that of the two (0.70) on the same patients: it (0.82). "
        "Assume data leakage until you have excluded it."
    )
    assert said(0.82, 0.89, stage, 200, reach=0.15) == []  # so few patients give such a difference by chance
    assert warnings({"one": method("it", 0.9, 0.8)}, stage, 200) == []  # no simple model to compare with
    assert said(0.94, 0.89, SURVIVAL, 200) == []
    assert len(said(0.96, 0.95, SURVIVAL, 200)) == 2
    assert len(said(0.96, 0.95, SURVIVAL, 400)) == 1


def test_the_table_has_a_row_a_method_and_marks_what_is_wrong_on_purpose() -> None:
    evaluation = evaluation_record()
    out = StringIO()
    print_evaluation(evaluation, Console(file=out))
    printed = out.getvalue()
    lines = printed.splitlines()
    for one in evaluation["methods"].values():
        auc = one["metrics"]["auc"]
        start = one["label"][:30].rsplit(" ", 1)[0]  # a long label continues in the next line
        row = [line for line in lines if start in line and f"{auc['value']:.2f} ({auc['low']:.2f}, " in line]
        assert row, one["label"]
    for one in (*evaluation["verdicts"], {"sentence": f"Warning: {evaluation['warnings'][0]}"}):
        assert one["sentence"] in lines
    assert "WRONG ON PURPOSE" in printed
    assert printed.count("WRONG: ") == len(evaluation["leakage"]["variants"])
    out = StringIO()
    print_evaluation(evaluation | {"leakage": None}, Console(file=out))
    assert "WRONG" not in out.getvalue()


def test_few_selectors_stand_beside_the_simple_models() -> None:
    features = ("original_shape_MeshVolume", "original_shape_Sphericity", *(f"original_glcm_{i}" for i in range(20)))
    left = methods_of(["anova", " lasso "], QUICK, features)
    assert {name for name in left if name.endswith("_dnn")} == {
        "gl_rfe_dnn", "anova_dnn", "lasso_dnn", "best_single_dnn",
    }  # fmt: skip
    assert {*SIMPLE, "majority"} <= {*left}
    assert not {"random_forest", "gradient_boosting", "boruta_dnn", "l2_lr"} & {*left}
    with pytest.raises(ValueError, match=r"no selector anvoa; known are gl_rfe, .*boruta"):
        methods_of(["anvoa"], QUICK, features)
