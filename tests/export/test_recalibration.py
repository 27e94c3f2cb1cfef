"""A recalibrated bundle: right on average at a site's prevalence, with the same ranking and a separate card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from typer.testing import CliRunner

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.model.answering import AnswerRule, singled_out
from lungstage.appliance.model.bundle import load_bundle
from lungstage.export.bundle import build
from lungstage.export.cli import app
from lungstage.export.recalibration import recalibrate
from tests.support.covariates import AGE

from .conftest import make_run, without_limits

PREVALENCE = 0.25
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def clinical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "made-up"
    build(without_limits(make_run(covariates=(AGE,))), folder)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(digest: str, **changes: Any) -> Path:
        record = {
            "bundle": {"digest": digest}, "trained_on_this_table": False, "cohort": "A hospital",
            "table": {"sha256": "ef" * 32, "used": 200, "positives": round(200 * PREVALENCE)},
            "extraction": {"differences": []},
            "calibration": {
                "slope": {"value": 0.6, "low": 0.3, "high": 0.9},
                "intercept": {"value": -1.2, "low": -1.6, "high": -0.8},
            },
        } | changes  # fmt: skip
        path = tmp_path / "validation.json"
        path.write_text(json.dumps(record))
        return path

    return write


def test_probabilities_are_those_of_the_recalibration_at_the_cohort_s_prevalence(
    clinical: Path, write: Write, tmp_path: Path
) -> None:
    before = load_bundle(clinical)
    recalibrate(clinical, write(before.digest), tmp_path / "own")
    after = load_bundle(tmp_path / "own")
    low, high = (np.array([e.training_quantiles[q] for e in before.manifest.features]) for q in ("0.05", "0.95"))
    values = low + (high - low) * np.random.default_rng(3).random((50, len(low)))
    old, new = (one.predictor.run(values) for one in (before, after))
    at_site = AnswerRule.of(after.manifest, PREVALENCE)
    wanted = expit(0.6 * logit(old.probability_advanced) - 1.2)
    here = [at_site.probability(float(p)) for p in new.probability_advanced]
    np.testing.assert_allclose(here, wanted, rtol=1e-9)
    np.testing.assert_allclose(new.contributions, 0.6 * old.contributions, rtol=1e-12)
    assert old.covariate_contributions is not None
    assert new.covariate_contributions is not None
    np.testing.assert_allclose(new.covariate_contributions, 0.6 * old.covariate_contributions, rtol=1e-12)
    np.testing.assert_array_equal(new.domain_distance, old.domain_distance)
    # The same patients get the same conformal set, and the same predictive value.
    for p, q in zip(old.probability_advanced, new.probability_advanced, strict=True):
        assert singled_out(float(p), before.manifest.decision) is singled_out(float(q), after.manifest.decision)
    assert after.manifest.worth == before.manifest.worth
    assert after.manifest.out_of_fold is not None
    assert before.manifest.out_of_fold is not None
    assert after.manifest.out_of_fold.positives_at_least == before.manifest.out_of_fold.positives_at_least


def test_it_is_a_version_of_its_own_with_a_card_of_its_own(packed: Path, write: Write, tmp_path: Path) -> None:
    before = load_bundle(packed)
    target = tmp_path / "own"
    done = CliRunner().invoke(app, ["recalibrate", str(packed), str(write(before.digest)), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert "slope 0.60 (0.30 to 0.90), intercept -1.20 (-1.60 to -0.80)" in done.output
    after = load_bundle(target)
    made = after.manifest.recalibration
    assert made is not None
    assert (made.cohort, made.rows, made.prevalence, made.of_digest) == ("A hospital", 200, 0.25, before.digest)
    assert after.manifest.version != before.manifest.version
    assert after.manifest.name == "own"
    card = (target / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# Model card: own {after.manifest.version}\n\n## Recalibration\n")
    assert "Slope 0.600 (0.300 to 0.900), intercept -1.200 (-1.600 to -0.800)" in card
    assert card.count("# Model card") == 1
    once = {file.name: file.read_bytes() for file in target.iterdir()}
    recalibrate(packed, write(before.digest), target)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == once
    # A recalibrated bundle can be recalibrated again.
    recalibrate(target, write(after.digest), tmp_path / "again")
    assert load_bundle(tmp_path / "again").manifest.recalibration != made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bundle": {"digest": "00" * 32}}, "of another bundle"),
        ({"trained_on_this_table": True}, "trained on"),
        ({"extraction": {"differences": ["binWidth"]}}, "measured with other settings"),
        ({"table": {"sha256": "ef" * 32, "used": 200, "positives": 19}}, "19 patients of the rarer class"),
        (
            {"calibration": {"slope": {"value": 0.2, "low": -0.1, "high": 0.5},
                             "intercept": {"value": 0.0, "low": -1.0, "high": 1.0}}},
            "Recalibration cannot repair",
        ),
        ({"calibration": None}, "not a validation.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_recalibrated_is_refused(
    packed: Path, write: Write, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    validation = write(**{"digest": load_bundle(packed).digest} | changes)
    with pytest.raises(Refused, match=said):
        recalibrate(packed, validation, tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_a_bundle_of_an_earlier_release_can_be_recalibrated(write: Write, tmp_path: Path) -> None:
    run = make_run()
    record = {key: value for key, value in run.record.items() if key not in ("reached", "verdicts")}
    build(replace(run, record=record), tmp_path / "old")
    old = load_bundle(tmp_path / "old")
    assert old.manifest.out_of_fold is None
    recalibrate(tmp_path / "old", write(old.digest), tmp_path / "own")
    assert load_bundle(tmp_path / "own").manifest.out_of_fold is None
