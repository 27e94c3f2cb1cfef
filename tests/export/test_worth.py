"""If a model's performance is not shown, every text about the model says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.manifest import WorthEntry
from lungstage.export.bundle import build
from lungstage.export.cli import app
from lungstage.export.worth import sentence, worth_of
from lungstage.training.run import Run
from tests.training.records import evaluation_record

from .conftest import make_run

OWN = {"value": 0.704, "low": 0.621, "high": 0.78}
SIMPLE = {"value": 0.753, "low": 0.676, "high": 0.826}
LESS = {"value": 0.6, "low": 0.5, "high": 0.7}


def run_of(own: dict[str, float], adds_value: bool | None, **others: dict[str, float]) -> Run:
    run = make_run()
    verdicts = [{"against": name, "adds_value": adds_value, "sentence": "."} for name in others]
    comparators = {name: {"auc": one} for name, one in others.items()}
    return replace(
        run, record=run.record | {"out_of_fold": {"auc": own}, "comparators": comparators, "verdicts": verdicts}
    )


def worth(run: Run) -> WorthEntry:
    found = worth_of(run)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (run_of(OWN, None, sphericity_volume=SIMPLE, volume=LESS),
         "not shown to be better than a simple model of two features (sphericity and volume). Its AUC in "
         "cross-validation is 0.704 (95 % interval 0.621 to 0.780); the AUC of the simple model is 0.753 (95 % "
         "interval 0.676 to 0.826)"),
        (run_of(OWN, False, volume=SIMPLE), "not shown to be better than tumour volume alone"),
        (run_of({**OWN, "low": 0.49}, True, volume=LESS),
         "not shown to be better than chance. Its AUC in cross-validation is 0.704"),
        (run_of(OWN, True, random_forest=LESS), "not compared with a simple model of two features"),
        (run_of(OWN, True, sphericity_volume=LESS, random_forest=SIMPLE), ""),
    ],
)  # fmt: skip
def test_what_is_said(run: Run, said: str) -> None:
    told = sentence(worth_of(run))
    assert (said in told) if said else not told


def test_a_run_that_says_nothing_is_not_spoken_well_of() -> None:
    run = make_run()
    bare = replace(run, record={k: v for k, v in run.record.items() if k not in ("out_of_fold", "comparators")})
    assert worth_of(bare) is None
    assert "does not say" in sentence(worth_of(bare))


def test_the_evaluation_of_the_same_model_counts() -> None:
    run = make_run()
    evaluation: dict[str, Any] = evaluation_record()
    evaluation |= {
        key: run.record[key] for key in ("procedure_sha256", "table", "endpoint", "covariates", "repeatability")
    }
    own = evaluation["methods"][evaluation["reference"]]["metrics"]["auc"]
    assert (
        worth(replace(run, evaluation=evaluation)).auc.value
        == own["value"]
        != run.record["out_of_fold"]["auc"]["value"]
    )


def test_the_build_warns_and_strict_refuses(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run, folder = run_of(OWN, None, sphericity_volume=SIMPLE), tmp_path / "run"
    run.save(folder)
    strict = CliRunner().invoke(app, ["build", str(folder), "-o", str(tmp_path / "none"), "--strict"])
    assert isinstance(strict.exception, Refused)
    assert strict.exception.reason.code is ReasonCode.WORTH_NOT_SHOWN
    assert "sphericity and volume" in strict.exception.reason.message
    assert not (tmp_path / "none").exists()
    done = CliRunner().invoke(app, ["build", str(folder), "-o", str(tmp_path / "weak")])
    assert done.exit_code == 0
    told = sentence(worth_of(run))
    assert told in done.output
    bundle = load_bundle(tmp_path / "weak")
    assert bundle.manifest.worth == worth_of(run)
    card = (tmp_path / "weak" / "MODEL_CARD.md").read_text()
    assert card.index(told) < card.index("## Intended use")
    assert card.count(told) == 2, "at the start of the card, and among its figures"
    verified = CliRunner().invoke(app, ["verify", str(tmp_path / "weak"), "--prevalence", "0.17"])
    assert told in verified.output
    assert "| 17 % |" in verified.output
    assert "net benefit" in verified.output


def test_a_model_that_is_shown_is_packed_without_a_word(tmp_path: Path) -> None:
    run = run_of(OWN, True, sphericity_volume=LESS)
    build(run, tmp_path / "good", strict=True)
    assert "not shown" not in (tmp_path / "good" / "MODEL_CARD.md").read_text().partition("## Performance")[0]
    assert "not shown" not in CliRunner().invoke(app, ["verify", str(tmp_path / "good")]).output


@pytest.mark.parametrize("prevalence", ["0", "1", "-0.1", "17"])
def test_a_prevalence_that_is_none_is_refused_plainly(packed: Path, prevalence: str) -> None:
    done = CliRunner().invoke(app, ["verify", str(packed), "--prevalence", prevalence])
    assert done.exit_code == 2
    assert "between 0 and 1" in done.output


def test_the_card_states_answers_and_decision_curve_at_prevalences(packed: Path) -> None:
    card = (packed / "MODEL_CARD.md").read_text()
    for prevalence in ("61.3 % (training)", "5 %", "17 %", "39 %", "61 %", "80 %"):
        assert f"| {prevalence} |" in card
    assert "Decision curve at the training prevalence" in card
    assert "0 of 14 early, 21 of 21 advanced kept their true class" in " ".join(card.split()) or (
        "21 of 21 advanced, 0 of 14 early kept their true class" in " ".join(card.split())
    )
