"""A bundle on an external cohort: its figures equal scikit-learn's, shifts are found, wrong tables are noticed."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import STAGE_GROUP, Covariate, Endpoint
from lungstage.appliance.model.answering import AnswerRule
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.model.manifest import EndpointEntry, FeatureEntry
from lungstage.export.bundle import build
from lungstage.training import cli
from lungstage.training.cohorts import cohort as cohort_reader
from lungstage.training.cohorts.cohort import Cohort, read_cohort
from lungstage.training.cohorts.endpoint import Target
from lungstage.training.configuration import ConfigurationError
from lungstage.training.options import bundle_target
from lungstage.training.validation.shift import LEVELS, compare, reached_by_chance, stability_index
from lungstage.training.validation.validate import extraction_differences, validate
from lungstage.training.validation.wording import figure, summary, warnings
from tests.export.conftest import make_run

COVARIATES = (Covariate("age"), Covariate("sex", ("F", "M")))
DESCRIPTION = 'name="x"\nsource="s"\nlicence="l"\ncitation="c"\n[extraction]\n{}\n'
SAME = 'binWidth=25.0\ninterpolator="sitkLinear"\nresampledPixelSpacing=[1, 1, 1]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights and two covariates."""
    folder = tmp_path_factory.mktemp("models") / "made-up"
    build(make_run(covariates=COVARIATES), folder)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder, self_test=False)


def make_table(bundle: Bundle, path: Path, n: int = 80, seed: int = 0, **changed: dict[str, Any]) -> Path:
    """Make patients within the training envelope; the stage is the bundle's answer with some noise."""
    rng = np.random.default_rng(seed)
    entries = bundle.manifest.features
    low, high = (np.array([entry.training_quantiles[q] for entry in entries]) for q in ("0", "1"))
    values = low + (high - low) * rng.uniform(0.02, 0.98, size=(n, len(entries)))
    age, male = rng.uniform(40, 80, n), rng.random(n) < 0.6
    p = bundle.predictor.run(values, np.column_stack([age, male])).probability_advanced
    advanced = logit(np.clip(p, 1e-6, 1 - 1e-6)) + rng.normal(size=n) * 0.5 > np.median(
        logit(np.clip(p, 1e-6, 1 - 1e-6))
    )
    columns = {
        "patient_id": [f"SECRET{i}" for i in range(n)],
        "stage": np.where(advanced, "advanced", "early").tolist(),
        "age": age.tolist(),
        "sex": np.where(male, "M", "F").tolist(),
        **{entry.name: values[:, i].tolist() for i, entry in enumerate(entries)},
        "clinical_t": ["T9"] * n,
    }
    for name, cells in changed.items():
        columns[name] = [cells.get(str(i), cell) for i, cell in enumerate(columns[name])]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read(bundle: Bundle, table: Path) -> Cohort:
    return read_cohort(table, features=bundle.spec.features, covariates=COVARIATES)


@pytest.fixture(scope="module")
def usual(bundle: Bundle) -> dict[str, Any]:
    """The validation on a cohort with random features."""
    return validate(bundle, _cohort(bundle))


@pytest.fixture
def table(bundle: Bundle, tmp_path: Path) -> Path:
    table = make_table(bundle, tmp_path / "external.csv")
    table.with_suffix(".toml").write_text(DESCRIPTION.format(SAME))
    return table


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lungstage-train", "validate", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


# Figures


def test_figures_are_those_of_scikit_learn(bundle: Bundle, table: Path) -> None:
    cohort = read(bundle, table)
    record = validate(bundle, cohort)
    p = bundle.predictor.run(cohort.values, cohort.covariate_values).probability_advanced
    y = cohort.labels
    values = {name: one["value"] for name, one in record["metrics"].items()}
    assert values["auc"] == pytest.approx(roc_auc_score(y, p))
    assert values["brier"] == pytest.approx(brier_score_loss(y, p))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, p >= 0.5))
    training = bundle.manifest.provenance.prevalence_advanced
    constant = record["constant_guess"]
    assert constant["metrics"]["brier"]["value"] == pytest.approx(brier_score_loss(y, np.full(len(y), training)))
    assert constant["difference"]["auc"]["value"] == pytest.approx(values["auc"] - 0.5)
    moved = expit(logit(p) + record["prevalence"]["logit_shift"])
    assert record["at_own_prevalence"]["metrics"]["brier"]["value"] == pytest.approx(brier_score_loss(y, moved))
    assert record["calibration"]["in_the_large"]["value"] == pytest.approx((y - p).mean())
    assert record["prevalence"] == {
        "training": training, "table": y.mean(), "logit_shift": pytest.approx(logit(y.mean()) - logit(training)),
    }  # fmt: skip
    for one in record["metrics"].values():
        assert one["low"] <= one["value"] <= one["high"]


def test_conformal_coverage_and_domain_are_counted_as_the_appliance_decides(bundle: Bundle, table: Path) -> None:
    cohort = read(bundle, table)
    record = validate(bundle, cohort)
    answer, use = bundle.predictor.run(cohort.values, cohort.covariate_values), bundle.manifest.intended_use
    p, decision = answer.probability_advanced, bundle.manifest.decision
    early, advanced = 1 - p >= decision.early_min_probability, p >= decision.advanced_min_probability
    covered = record["conformal"]["coverage"]
    assert covered["early"]["value"] == pytest.approx(early[~cohort.labels].mean())
    assert covered["advanced"]["value"] == pytest.approx(advanced[cohort.labels].mean())
    assert record["conformal"]["indeterminate"]["value"] == pytest.approx((early == advanced).mean())
    for limit in ("warn", "max"):
        far = answer.domain_distance > getattr(use, f"domain_distance_{limit}")
        lonely = answer.neighbour_distance > getattr(use, f"neighbour_distance_{limit}")
        assert record["domain"][limit] == {
            "domain_distance": far.mean(), "neighbour_distance": lonely.mean(), "either": (far | lonely).mean(),
        }  # fmt: skip


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3, deadline=None)
def test_neither_the_order_of_rows_nor_that_of_columns_changes_a_value(
    bundle: Bundle, usual: dict[str, Any], seed: int
) -> None:
    cohort = _cohort(bundle)
    order = np.random.default_rng(seed).permutation(len(cohort.labels))
    assert cohort.covariate_values is not None
    shuffled = replace(
        cohort, patients=tuple(cohort.patients[i] for i in order), labels=cohort.labels[order],
        values=cohort.values[order], covariate_values=cohort.covariate_values[order],
    )  # fmt: skip
    one, two = usual, validate(bundle, shuffled)
    for name, found in one["metrics"].items():
        assert two["metrics"][name]["value"] == pytest.approx(found["value"], rel=1e-6, abs=1e-9), name
    for name, feature in one["features"].items():
        assert two["features"][name] == pytest.approx(feature), name
    for limit, shares in one["domain"].items():
        assert two["domain"][limit] == pytest.approx(shares), limit


def _cohort(bundle: Bundle) -> Cohort:
    """Make a cohort with random features."""
    rng = np.random.default_rng(3)
    low, high = (np.array([e.training_quantiles[q] for e in bundle.manifest.features]) for q in ("0", "1"))
    values = low + (high - low) * rng.uniform(size=(60, len(low)))
    labels = np.arange(60) % 2 == 0
    covariates = np.column_stack([rng.uniform(40, 80, 60), labels])
    return Cohort(
        tuple(f"P{i}" for i in range(60)), labels, bundle.spec.features, values, _description(), "t.csv", "0" * 64,
        60, {}, covariates=COVARIATES, covariate_values=covariates,
    )  # fmt: skip


def _description(extraction: dict[str, Any] | None = None) -> Any:
    from lungstage.training.cohorts.description import UNDECLARED

    same = {"binWidth": 25, "interpolator": "sitkLinear", "resampledPixelSpacing": [1, 1, 1]}
    return UNDECLARED.model_copy(update={"name": "declared", "extraction": extraction or same})


# Shifts

QUANTILES = {"0": -3.0, "0.01": -2.33, "0.05": -1.645, "0.25": -0.674, "0.5": 0.0, "0.75": 0.674, "0.95": 1.645,
             "0.99": 2.33, "1": 3.0}  # fmt: skip


def _entry(quantiles: dict[str, float] = QUANTILES) -> FeatureEntry:
    return FeatureEntry(name="f", unit="1", ibsi=None, training_median=0.0, training_quantiles=quantiles)


def test_the_index_is_nothing_where_the_shares_are_those_of_training() -> None:
    counts = np.array([5, 20, 25, 25, 20, 5])
    inside = np.array([-2.0, -1.0, -0.3, 0.3, 1.0, 2.0])
    assert stability_index(QUANTILES, np.repeat(inside, counts)) == pytest.approx(0.0, abs=1e-12)


def test_the_index_of_a_known_shift() -> None:
    counts, expected = np.array([0, 0, 0, 50, 30, 20]), np.array([0.05, 0.2, 0.25, 0.25, 0.2, 0.05])
    inside = np.repeat([-2.0, -1.0, -0.3, 0.3, 1.0, 2.0], counts)
    observed = (counts + expected) / 101
    assert stability_index(QUANTILES, inside) == pytest.approx(
        ((observed - expected) * np.log(observed / expected)).sum()
    )
    assert compare([_entry()], inside[:, None], 160)["f"]["verdict"] == "large shift"
    assert compare([_entry()], inside[::10, None], 10)["f"]["verdict"] == "within chance"


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_the_index_is_never_negative_nor_infinite_whatever_coincides(values: list[float], levels: list[float]) -> None:
    quantiles = dict(zip(LEVELS, sorted(levels), strict=True))
    assert 0 <= stability_index(quantiles, np.array(values)) < 50


def test_chance_reaches_what_is_said_in_one_feature_of_twenty() -> None:
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(1000):
        training, rows = rng.normal(size=160), rng.normal(size=100)
        quantiles = {level: float(np.quantile(training, float(level))) for level in LEVELS}
        reached.append(stability_index(quantiles, rows))
    assert np.mean(np.array(reached) > reached_by_chance(100, 160)) == pytest.approx(0.05, abs=0.025)


def test_each_feature_is_compared_with_what_training_saw() -> None:
    values = np.array([[0.0], [1.348], [1.348], [1.348], [4.0], [-4.0], [np.nan], [np.nan]])
    one = compare([_entry()], values, 160)["f"]
    assert one["median_shift_in_iqr"] == pytest.approx(1.0)
    assert (one["above"], one["below"], one["missing"]) == (1 / 8, 1 / 8, 2 / 8)
    flat = QUANTILES | {"0.25": 0.0, "0.75": 0.0}
    assert compare([_entry(flat)], values, 160)["f"]["median_shift_in_iqr"] is None


# Tables that do not fit the bundle


def test_another_extraction_is_named_and_refused_unless_accepted(bundle: Bundle) -> None:
    cohort = replace(_cohort(bundle), description=_description({"binWidth": 10, "resampledPixelSpacing": [1, 1, 1]}))
    told = extraction_differences(bundle.spec, cohort)
    assert told == [
        "binWidth is 10 in the table and 25 in the bundle",
        "interpolator is not set in the table and sitkLinear in the bundle",
    ]
    with pytest.raises(Refused, match="binWidth is 10 in the table and 25 in the bundle"):
        validate(bundle, cohort)
    record = validate(bundle, cohort, accept_other_extraction=True)
    assert record["extraction"]["differences"] == told
    assert any("wrong inputs" in warning for warning in warnings(record))
    odd = replace(_cohort(bundle), description=_description({"normalize": True}))
    assert "normalize" in extraction_differences(bundle.spec, odd)[0]
    assert extraction_differences(bundle.spec, _cohort(bundle)) == []


def test_the_training_table_is_no_validation(bundle: Bundle, usual: dict[str, Any]) -> None:
    own = replace(_cohort(bundle), sha256=bundle.manifest.provenance.table_sha256)
    record = validate(bundle, own)
    assert warnings(record)[0].startswith("THE BUNDLE WAS TRAINED ON THIS TABLE")
    assert not any("TRAINED" in warning for warning in warnings(usual))


def test_classes_the_other_way_round_are_refused(bundle: Bundle) -> None:
    with pytest.raises(Refused, match="'early' as the positive class"):
        validate(bundle, replace(_cohort(bundle), endpoint=Endpoint("stage", "advanced", "early")))


def test_the_column_that_answers_to_an_endpoint() -> None:
    assert bundle_target(STAGE_GROUP, target=None, positive=None) == Target(
        target="stage", positive="advanced", negative="early", name="stage"
    )
    asked = bundle_target(STAGE_GROUP, target="group", positive="1", negative=None)
    assert asked == Target(target="group", positive="1", name="stage")
    death = Endpoint("death within 2 years", "alive", "dead")
    asked = bundle_target(death, target="days", horizon_days=730.0, event="death")
    assert (asked.negative, asked.positive, asked.name) == ("alive", "dead", "death within 2 years")
    with pytest.raises(ConfigurationError, match="belong together"):
        bundle_target(death, target="days", horizon_days=730.0)


def test_stage_and_survival_are_never_asked_of_one_another(bundle: Bundle) -> None:
    survival = EndpointEntry(**asdict(Horizon(2, "year").endpoint))
    of_survival = replace(bundle, manifest=bundle.manifest.model_copy(update={"endpoint": survival}))
    with pytest.raises(Refused, match=r"predicts 'survival at 2 years', and not 'stage'.*--horizon-days 730"):
        validate(of_survival, _cohort(bundle))
    followed = Target(target="days", event="death_observed", horizon_days=730)
    asked = replace(_cohort(bundle), endpoint=survival.endpoint, target=followed)
    with pytest.raises(Refused, match="predicts the stage, and not 'survival at 2 years'"):
        validate(bundle, asked)
    later = replace(asked, target=Target(target="days", event="death_observed", horizon_days=365))
    with pytest.raises(Refused, match="a horizon of 365 days is another endpoint"):
        validate(of_survival, later)
    assert validate(of_survival, asked)["asked"] == "survival at 2 years"


def test_another_horizon_or_column_is_no_answer_to_the_bundle_s_question(bundle: Bundle) -> None:
    def named(name: str) -> Bundle:
        endpoint = EndpointEntry(name=name, negative="no", positive="yes")
        return replace(bundle, manifest=bundle.manifest.model_copy(update={"endpoint": endpoint}))

    def asked(days: float | None, event: str | None = "death_observed", target: str = "days") -> Cohort:
        goal = Target(target=target, event=event, horizon_days=days, positive="yes", negative="no")
        return replace(_cohort(bundle), endpoint=Endpoint("x", "no", "yes"), target=goal)

    with pytest.raises(Refused, match="predicts 'death within 730 days', and a horizon of 90 days"):
        validate(named("death within 730 days"), asked(90))
    record = validate(named("death within 730 days"), asked(730))
    assert record["target"] == {
        "target": "days", "positive": "yes", "negative": "no", "event": "death_observed", "horizon_days": 730,
    }  # fmt: skip
    assert not any("same endpoint" in warning for warning in warnings(record))
    for name, cohort, said in (
        ("death within 2 years", asked(730), "survival at 2 years"),
        ("death within 730 days", asked(730, "exitus"), "exitus within 730 days"),
        ("death within 730 days", asked(None, None, "dead"), "dead"),
    ):
        (told,) = (w for w in warnings(validate(named(name), cohort)) if "same endpoint" in w)
        assert f"predicts {name!r}" in told
        assert repr(said) in told


def test_the_cohort_s_own_prevalence_has_its_own_constant_and_its_own_answers(bundle: Bundle, table: Path) -> None:
    cohort = read(bundle, table)
    rare = np.flatnonzero(cohort.labels)[:12]
    kept = np.sort(np.concatenate([rare, np.flatnonzero(~cohort.labels)]))
    fewer = replace(
        cohort, labels=cohort.labels[kept], values=cohort.values[kept],
        covariate_values=None if cohort.covariate_values is None else cohort.covariate_values[kept],
        patients=tuple(cohort.patients[i] for i in kept),
    )  # fmt: skip
    record, own = validate(bundle, fewer), 12 / len(kept)
    there = record["at_own_prevalence"]
    assert there["constant_guess"]["metrics"]["brier"]["value"] == pytest.approx(own * (1 - own))
    assert there["constant_guess"]["difference"]["brier"]["value"] == pytest.approx(
        there["metrics"]["brier"]["value"] - own * (1 - own)
    )
    assert there["calibration"]["slope"]["value"] == pytest.approx(record["calibration"]["slope"]["value"], rel=1e-6)
    shift = record["prevalence"]["logit_shift"]
    assert there["calibration"]["intercept"]["value"] == pytest.approx(
        record["calibration"]["intercept"]["value"] - record["calibration"]["slope"]["value"] * shift, rel=1e-6
    )
    assert there["decision_curve"] != record["decision_curve"]
    rule = AnswerRule.of(bundle.manifest, own)
    p = bundle.predictor.run(fewer.values, fewer.covariate_values).probability_advanced
    answers = np.array([str(rule.answer(float(one))[0]) for one in p])
    told = record["answers"]["table"]
    assert told["prevalence"] == pytest.approx(own)
    for name, truth in (("early", ~fewer.labels), ("advanced", fewer.labels)):
        one = told["classes"][name]
        assert one["answered"] == (answers == name).sum()
        assert one["right"] == ((answers == name) & truth).sum()
        if one["answered"]:
            assert one["predictive_value"]["value"] == pytest.approx(one["right"] / one["answered"])
    assert told["indeterminate"] + sum(one["answered"] for one in told["classes"].values()) == len(kept)


@pytest.mark.parametrize("keep", [False, True])
def test_whole_and_cut_tumours_are_both_told_whichever_are_scored(bundle: Bundle, tmp_path: Path, keep: bool) -> None:
    table = make_table(bundle, tmp_path / "cut.csv")
    lines = table.read_text().splitlines()
    marked = [f"{lines[0]},roi_touches_crop_edge", *(f"{line},{k < 20}" for k, line in enumerate(lines[1:]))]
    table.write_text("\n".join(marked) + "\n")
    used, every = (
        read_cohort(table, features=bundle.spec.features, covariates=COVARIATES, keep_cut_rows=one)
        for one in (keep, True)
    )
    record = validate(bundle, used, every_row=every)
    assert record["table"]["used"] == (80 if keep else 60)
    assert (record["rows"]["whole"]["patients"], record["rows"]["cut"]["patients"]) == (60, 20)
    p = bundle.predictor.run(every.values, every.covariate_values).probability_advanced
    cut = record["rows"]["cut"]
    assert cut["brier"]["value"] == pytest.approx(brier_score_loss(every.labels[:20], p[:20]))
    assert cut["positives"] == every.labels[:20].sum()
    assert validate(bundle, used)["rows"]["cut"] is None


# The command


def test_the_command_writes_strict_json_without_a_patient(
    folder: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = table.parent / "validation"
    assert command(monkeypatch, folder, table, "-o", out, "--json") == 0
    written = (out / "validation.json").read_text()
    assert capsys.readouterr().out == written
    record = json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "SECRET" not in written
    assert str(table.parent) not in written
    assert [f.name for f in out.iterdir()] == ["validation.json"]
    assert record["table"]["used"] == 80
    assert record["trained_on_this_table"] is False
    assert any("patients of the rarer class" in warning for warning in record["warnings"])
    assert len(record["summary"]) == len(summary(record)) == 7
    monkeypatch.setenv("COLUMNS", "60")  # narrower than every table; still, nothing is cut off
    assert command(monkeypatch, folder, table) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    for name, one in record["metrics"].items():
        label = name.upper() if name in ("auc", "ece") else name.replace("_", " ")
        assert f"{label} " in shown
        assert figure(one) in shown
    assert {name.removeprefix("original_") for name in record["features"]} <= set(shown.split())
    assert all(sentence in shown for sentence in [*record["summary"], *record["warnings"]])
    monkeypatch.setattr(cohort_reader, "_scaled", lambda *_: ("A warning of the cohort.",))
    assert command(monkeypatch, folder, table) == 0
    assert capsys.readouterr().out.count("A warning of the cohort.") == 1


def test_what_is_refused_leaves_nothing_behind(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = bundle.spec.features[3]
    table = make_table(bundle, tmp_path / "t.csv", **{name: {"7": "n/d"}})
    assert command(monkeypatch, folder, table, "-o", tmp_path / "out") == 3
    assert f"Column {name}, line 9, patient 'SECRET7': 'n/d' is not a number" in capsys.readouterr().err
    text = make_table(bundle, table).read_text()
    table.write_text(text.replace(name, "original_other"))
    assert command(monkeypatch, folder, table, "-o", tmp_path / "out") == 3
    assert name in capsys.readouterr().err
    table.write_text(text)
    table.with_suffix(".toml").write_text(DESCRIPTION.format("binWidth=10"))
    assert command(monkeypatch, folder, table, "-o", tmp_path / "out") == 3
    assert "measured with other settings" in capsys.readouterr().err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["t.csv", "t.toml"]
    assert command(monkeypatch, folder, table, "-o", tmp_path / "out", "--accept-other-extraction") == 0


def test_a_changed_bundle_is_refused(
    folder: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(folder, table.parent / "copy"))
    (copy / "MODEL_CARD.md").write_text("better")
    assert command(monkeypatch, copy, table) == 3
    assert "bundle_hash_mismatch" in capsys.readouterr().err


def test_the_shipped_bundle_knows_its_own_table(shipped_bundle: Path, shared_data: Path) -> None:
    bundle = load_bundle(shipped_bundle, self_test=False)
    cohort = read_cohort(shared_data / "lung1" / "features.csv", features=bundle.spec.features)
    record = validate(bundle, cohort)
    assert record["trained_on_this_table"]
    assert record["extraction"] == {"declared": True, "differences": []}
    assert all(one["verdict"] == "similar" for one in record["features"].values())
    assert all(one["below"] == one["above"] == 0 for one in record["features"].values())
