from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.report.vocabulary import CONCEPTS
from lungstage.export import card
from lungstage.export.bundle import _covariates, _decision, _entries, _out_of_fold, pack
from lungstage.export.intended_use import intended_use
from lungstage.export.markdown import figure
from lungstage.training.run import OWN, Run
from tests.support.covariates import AGE, HISTOLOGY, SEX
from tests.training.records import evaluation_record

from .conftest import SURVIVAL, make_run


def card_of(run: Run) -> str:
    """Return the card without a bundle; a test below checks that a bundle contains this card."""
    entries = _entries(run.model, run.record["envelope"])
    use = intended_use(run.record["domain"], run.endpoint)
    decision, seen = _decision(run.record["conformal"]), _out_of_fold(run.record)
    return card.render("made-up", "0.1.0", run, entries, _covariates(run.model), use, decision, seen)


@pytest.fixture(scope="module")
def text() -> str:
    return card_of(make_run())


def test_card_carries_the_runs_own_figures(text: str) -> None:
    for words in (
        "0.641 (0.552 to 0.726)", "98 advanced of 160 (61.3 %)", "35 (roi_touches_crop_edge)", "rows in the table: 195",
        "right in 61.3 %", "CC BY-NC 3.0", "Apache-2.0", "Stage IV is absent", "Nobody, 2020.", "ab" * 32,
        "advanced: 0.910", "early: 0.900", "0.310", "0.420", "Research use only", "at most 13.00", "above 5.00",
        "neighbour distance at most 3.00 (twice the training cohort's largest), with a warning above 1.25",
        "3 nearest of 32 references",
        "at least 5 patients", "the preset `hardened`", "features = 15, importance = effects",
        "this model's: AUC 0.660 (standard error 0.022)", "the fewest within one standard error of it: AUC 0.610",
        "on 25 pairs", "stability 0.707 (0.552 to 0.726)",
        "logit(training prevalence, 0.6125)", "**Warning:** Nothing here was learned.",
    ):  # fmt: skip
        assert words.lower() in text.lower(), words


def evaluated(run: Run) -> Run:
    """Add an evaluation of the same procedure and table to a run."""
    evaluation = json.loads(json.dumps(evaluation_record(endpoint=run.endpoint)))
    evaluation["table"]["sha256"] = run.record["table"]["sha256"]
    evaluation |= {key: run.record[key] for key in ("procedure_sha256", "covariates", "repeatability")}
    return replace(run, evaluation=evaluation)


def test_an_evaluation_of_the_same_procedure_and_table_is_quoted_in_full() -> None:
    run = evaluated(make_run())
    evaluation, text = run.evaluation, card_of(run)
    assert evaluation is not None
    for name, method in evaluation["methods"].items():
        label = method["label"] if name != evaluation["reference"] else f"**{method['label']}**"
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
        figures = [figure(method["metrics"]["auc"]), figure(method["stability"])]
        if name != evaluation["reference"]:
            figures += [figure(method["difference"]["auc"]), figure(method["difference_corrected"])]
        assert all(words in line for words in figures)
    for verdict in evaluation["verdicts"]:
        assert f"- {verdict['sentence']}" in text
    reference = evaluation["methods"][evaluation["reference"]]
    for metric in ("sensitivity", "calibration_slope", "ece"):
        assert figure(reference["metrics"][metric]) in text
    assert evaluation["leakage"]["warning"] in text
    for variant in evaluation["leakage"]["variants"]:
        assert f"| {variant['label']} | {variant['what_is_wrong']} |" in text
    for role in ("with", "without", "alone"):
        assert f"| {role}: {evaluation['methods'][evaluation['covariate_ablation'][role]]['label']} |" in text
    assert f"**Warning:** {evaluation['warnings'][0]}" in text
    assert f"advanced: {figure(reference['conformal']['coverage']['advanced'])}" in text
    assert f"right in {figure(reference['conformal']['accuracy_where_decided'])} of the cases" in text
    assert "lungstage-train evaluate features.csv -o RUN" in text
    section = text.split("## Performance")[1].split("Effect of the left-out rows")[0]
    assert "0.641 (0.552 to 0.726)" not in section, "these are the run's own figures, which the evaluation replaces"


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("procedure_sha256", "ff" * 32),
        ("table", {"sha256": "ff" * 32}),
        ("table", {"used": 195}),
        ("endpoint", {"positive": "death"}),
        ("covariates", [{"name": "age", "levels": []}]),
        ("repeatability", {"table": "icc.csv", "sha256": "ff" * 32, "minimum": 0.75, "left_out": {}}),
    ],
)
def test_an_evaluation_of_something_else_is_not_quoted(key: str, other: object, text: str) -> None:
    run = evaluated(make_run())
    assert run.evaluation is not None
    assert run.own_evaluation == run.evaluation
    old = run.evaluation[key]
    run.evaluation[key] = old | other if isinstance(old, dict) and isinstance(other, dict) else other
    assert run.own_evaluation is None
    assert card_of(run) == text


def test_a_run_is_loaded_with_the_evaluation_beside_it(tmp_path: Path) -> None:
    run = evaluated(make_run(covariates=(AGE, HISTOLOGY)))
    run.save(tmp_path)
    assert Run.load(tmp_path).evaluation is None
    (tmp_path / "evaluation.json").write_text(json.dumps(run.evaluation))
    loaded = Run.load(tmp_path)
    assert (loaded.evaluation, loaded.record) == (run.evaluation, run.record)
    assert loaded.model.covariates == (AGE, HISTOLOGY)
    assert (loaded.model.domain_references == run.model.domain_references).all()
    assert card_of(loaded) == card_of(run)


def test_covariates_stand_among_the_inputs() -> None:
    text = card_of(make_run(covariates=(AGE, SEX, HISTOLOGY)))
    assert "elimination (GL-RFE), and age, sex, histology. A seed ensemble" in text
    for words in (
        "| age | age |",
        "| sex | sex=M |",
        f"| histology | {HISTOLOGY.columns[1]} |",
        "The reference level of sex is `F`",
    ):
        assert words in text


@pytest.mark.parametrize("with_evaluation", [False, True])
def test_another_endpoint_goes_by_its_own_names(with_evaluation: bool) -> None:
    run = make_run(endpoint=SURVIVAL)
    run.record["cohort"]["stages_absent"] = []
    text = card_of(evaluated(run) if with_evaluation else run)
    for words in (
        "predicts two-year survival (alive or dead)", "98 dead of 160", "calling every case dead",
        "Alive is possible from", "anything else that two-year survival depends on", "- dead: ", "- alive: ",
    ):  # fmt: skip
        assert words in text
    for words in ("stage", "staging", "early", "90.22"):
        assert words not in text.lower().replace("lungstage stage", "").replace("lungstage", "")


def test_what_was_configured_is_reproduced(text: str) -> None:
    assert "lungstage-train fit features.csv -o RUN" in text
    assert "study.toml" not in text
    run = evaluated(make_run())
    run.record["configuration"] = {
        "study": {"keep_cut_rows": True}, "covariates": {"names": ["age"]}, "endpoint": {"target": 'Überleben "d"'},
        "repeatability": {"table": "icc.csv", "minimum": 0.5},
    }  # fmt: skip
    shown = card_of(run).split("## How to reproduce")[1]
    assert "lungstage-train fit features.csv --config study.toml -o RUN\n" in shown
    assert "lungstage-train evaluate features.csv --config study.toml -o RUN --demonstrate-leakage\n" in shown
    assert tomllib.loads(shown.split("```toml\n")[1].split("```")[0]) == run.record["configuration"]
    assert run.evaluation is not None
    del run.evaluation["leakage"]
    assert "--demonstrate-leakage" not in card_of(run)


def test_a_record_of_the_bare_necessities_will_do() -> None:
    run = make_run()
    for key in (
        "endpoint", "covariates", "procedure_sha256", "stability_selection", "curve", "correlation", "distributions",
        "warnings", "repeatability", "stability", "selection_frequency", "cut_rows", "comparators", "interval",
        "out_of_fold",
    ):  # fmt: skip
        del run.record[key]
    text = card_of(run)
    assert "## Inputs" in text
    assert "None" not in text
    assert "nan" not in text


def test_features_left_out_for_not_repeating_are_named() -> None:
    run = make_run()
    run.record["repeatability"] = {
        "table": "icc.csv", "sha256": "0" * 64, "minimum": 0.75, "left_out": {"original_glcm_Idn": 0.4},
    }  # fmt: skip
    assert "correlation below 0.75 in `icc.csv`: `original_glcm_Idn`." in card_of(run)


def test_card_follows_the_figures(text: str) -> None:
    run = make_run()
    run.record["out_of_fold"]["auc"] = {"value": 0.777, "low": 0.701, "high": 0.811}
    run.record["table"]["positives"] = 40
    changed = card_of(run)
    assert "0.777 (0.701 to 0.811)" in changed
    assert "calling every case early is right in 75.0 %" in changed
    assert "0.777" not in text


def test_every_input_stands_with_unit_and_code(text: str) -> None:
    for name in make_run().model.features:
        (line,) = [line for line in text.splitlines() if f"`{name}`" in line and line.startswith("| ")]
        assert f"| {CONCEPTS[name].unit} |" in line
        assert (CONCEPTS[name].ibsi or "none") in line


def test_the_papers_figure_is_only_quoted_as_a_claim(text: str) -> None:
    (line,) = [line for line in text.splitlines() if "90.22" in line]
    assert "claim" in line
    assert "2606.04453" in line


def test_all_stages_present_says_so() -> None:
    run = make_run()
    run.record["cohort"]["stages_absent"] = []
    text = card_of(run)
    assert "absent from the cohort" not in text
    assert "III–IV" in text


def test_without_cut_rows_there_is_no_empty_comparison(text: str) -> None:
    run = make_run()
    run.record["cut_rows"] = None
    assert "all rows" not in card_of(run)
    assert "all rows" in text


def test_skew_is_shown_for_the_selected_features_alone(text: str) -> None:
    assert "was not compared" in text
    run = make_run()
    first = run.model.features[0]
    run.record["cohort"]["skew"] = {
        "case": "the IBSI phantom",
        "cause": "rounder masks",
        "relative": {first: -0.005, "original_not_selected": 1.0},
        "in_iqr": {first: -0.25, "original_not_selected": 1.0},
    }
    shown = card_of(run)
    assert f"| `{first}` | -0.50 % | -0.250 |" in shown
    assert "the IBSI phantom" in shown
    assert "not_selected" not in shown


def test_card_of_a_bundle_is_the_hashed_one(packed: Path, run: Run) -> None:
    files, _ = pack(run, packed.name)
    assert (packed / "MODEL_CARD.md").read_bytes() == files["MODEL_CARD.md"]
    text = files["MODEL_CARD.md"].decode()
    assert text.partition("\n")[2] == card_of(run).partition("\n")[2].replace("made-up", packed.name)
    load_bundle(packed, self_test=False)


ASSISTED = {
    "patients": 31,
    "left_out": 1,
    "contours": {
        "expert": {"auc": {"value": 0.713, "low": 0.52, "high": 0.88}},
        "diameter": {
            "auc": {"value": 0.641, "low": 0.44, "high": 0.83},
            "difference": {"median": 0.087, "ninth_decile": 0.221}, "same_answer": 0.58,
        },
        "diameter, 2 corrections": {
            "auc": {"value": 0.694, "low": 0.5, "high": 0.86},
            "difference": {"median": 0.051, "ninth_decile": 0.143}, "same_answer": 0.742,
        },
    },
}  # fmt: skip


def test_who_drew_the_contours_is_said_and_what_semi_automatic_ones_change() -> None:
    run = make_run()
    assert "## Contours" not in card_of(run), "a run of an earlier release has no such entry"
    run.record["cohort"]["contours"] = ["expert"]
    alone = card_of(run)
    assert "drawn by experts." in alone
    assert "not validated on semi-automatic contours" in alone
    own = ASSISTED | {key: run.record.get(key) for key in OWN}
    told = card_of(replace(run, assisted=own))
    for words in (
        "| the expert's | 0.71 (0.52 to 0.88) |", "semi-automatic, not corrected | 0.64 (0.44 to 0.83) | 0.087; 0.221",
        "semi-automatic, 2 corrections", "74.2 %", "Answers for 31 patients", "no person drew them", "drawn: 1.",
    ):  # fmt: skip
        assert words in told, words
    for key in OWN:
        assert card_of(replace(run, assisted=own | {key: "of another"})) == alone
    run.record["cohort"]["contours"] = ["assisted", "expert"]
    assert "not validated" not in card_of(run)
    assert "persons who confirmed a semi-automatic contour and by experts" in card_of(run)
