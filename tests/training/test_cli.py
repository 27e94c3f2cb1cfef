"""``lungstage-train`` reads one file; options take precedence over it, and a refusal leaves no files."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.contract.spec import ALL_FEATURES, STAGE_GROUP, Covariate, Endpoint
from lungstage.training import cli
from lungstage.training.cohorts.cohort import CUT_COLUMN, Cohort
from lungstage.training.options import PresetOption
from lungstage.training.procedure import PRESETS, Procedure
from tests.support.studies import rtstruct_study

from .conftest import Rows, make_rows

Write = Callable[..., Path]
A, B = ALL_FEATURES[:2]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lungstage-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


class ReachedError(Exception):
    """Raised at the point where the fit would start."""


@pytest.fixture
def fit_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Cohort, Procedure]]:
    """Return what the command passes to the fit."""

    def stop(*given: Any, **named: Any) -> None:
        raise ReachedError([*given, *named.values()])

    def fit_with(*arguments: object) -> tuple[Cohort, Procedure]:
        monkeypatch.setattr("lungstage.training.fit.fit", stop)
        monkeypatch.setattr(sys, "argv", ["lungstage-train", "fit", *map(str, arguments)])
        with pytest.raises(ReachedError) as reached:
            cli.main()
        given = reached.value.args[0]
        cohort = next(one for one in given if isinstance(one, Cohort))
        return cohort, next(one for one in given if isinstance(one, Procedure))

    return fit_with


@pytest.fixture
def study(write_table: Write, tmp_path: Path) -> Path:
    """The settings file of a study of death within 2 years."""
    rows = [
        row | {"days": str(100 if i % 2 else 900), "death": "1", "age": str(40 + i), CUT_COLUMN: str(i < 4)}
        for i, row in enumerate(make_rows(n=64))
    ]
    write_table(rows, "t.csv")
    file = tmp_path / "study.toml"
    file.write_text(
        '[study]\ntable = "t.csv"\nrun = "run"\n'
        '[endpoint]\ntarget = "days"\nhorizon_days = 730\nevent = "death"\n'
        '[covariates]\nnames = ["age"]\n'
        '[procedure]\npreset = "quick"\nseed = 7\nmembers = 3\nalpha = 0.3\nfeatures = 16\n'
    )
    return file


def test_one_file_says_all(study: Path, fit_with: Callable[..., tuple[Cohort, Procedure]]) -> None:
    cohort, procedure = fit_with("--config", study)
    assert cohort.endpoint == Endpoint("survival at 2 years", "survival beyond 2 years", "death within 2 years")
    assert cohort.covariates == (Covariate("age"),)
    assert dict(cohort.excluded) == {CUT_COLUMN: 4, "censored before day 730": 0}
    assert (procedure.seed, procedure.members, procedure.alpha, procedure.selection.features) == (7, 3, 0.3, 16)
    assert procedure.network == PRESETS["quick"].network
    assert sorted(file.name for file in study.parent.iterdir()) == ["study.toml", "t.csv"]


def test_options_outrank_the_file(study: Path, fit_with: Callable[..., tuple[Cohort, Procedure]]) -> None:
    cohort, procedure = fit_with(
        "--config", study, "--target", "stage", "--seed", "8", "--preset", "paper", "--keep-cut-rows", "--folds", "4"
    )
    assert cohort.endpoint == STAGE_GROUP
    assert len(cohort.patients) == 64
    assert (procedure.seed, procedure.members, procedure.folds) == (8, 3, 4)
    assert procedure.network == PRESETS["paper"].network


def test_without_a_file_the_contract_holds(
    write_table: Write, tmp_path: Path, fit_with: Callable[..., tuple[Cohort, Procedure]]
) -> None:
    rows = [row | {"grade": "ab"[i % 2], "sex": "mf"[i // 2 % 2]} for i, row in enumerate(make_rows())]
    table = write_table(rows)
    cohort, procedure = fit_with(table, "-o", tmp_path / "run")
    assert (cohort.endpoint, cohort.covariates, procedure) == (STAGE_GROUP, (), PRESETS["hardened"])
    cohort, _ = fit_with(table, "-o", tmp_path / "run", "--target", "grade", "--positive", "b", "--covariates", "sex")
    assert (cohort.endpoint, cohort.covariates) == (Endpoint("grade", "a", "b"), (Covariate("sex", ("F", "M")),))


def test_a_table_as_people_have_it(
    write_table: Write, tmp_path: Path, fit_with: Callable[..., tuple[Cohort, Procedure]],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """PyRadiomics' table with semicolons and stages in Roman numerals; another column can be the target, too."""
    rows = [
        {"": str(i), "ID": f"case {i}", "Label": "1", "Overall.Stage": ("IIB", "IIIA")[i % 2], "HPV": "01"[i // 2 % 2]}
        | {"wavelet-LLH_glcm_Idm": "1", "diagnostics_Image-original_Hash": "ab"}
        | {name: cell for name, cell in row.items() if name.startswith("original_")}
        for i, row in enumerate(make_rows())
    ]
    table = write_table(rows)
    table.write_text(table.read_text().replace(",", ";"))
    asked = (table, "-o", tmp_path / "run", "--id-column", "ID")
    cohort, _ = fit_with(*asked, "--target", "Overall.Stage", "--positive", "advanced")
    assert (cohort.endpoint, cohort.patients[7], cohort.features) == (STAGE_GROUP, "case 7", ALL_FEATURES[:20])
    assert "Note: 1 column of filtered images (wavelet*) was left out" in cli._cohort_line(cohort)
    cohort, _ = fit_with(*asked, "--target", "HPV", "--positive", "1")
    assert (cohort.endpoint, cohort.labels.sum()) == (Endpoint("HPV", "0", "1"), 30)
    for name in ("fit", "evaluate"):
        assert run(monkeypatch, name, *asked[:3], "--target", "HPV", "--positive", "1") == 3
        assert "--id-column" in capsys.readouterr().err


def _cell(column: str, value: str) -> Callable[[Rows], Rows]:
    return lambda rows: [row | {column: value} if i == 4 else row for i, row in enumerate(rows)]


BAD: dict[str, tuple[Callable[[Rows], Rows], tuple[str, ...], str]] = {
    "text": (_cell(A, "n/d"), (), f"Column {A}, line 6, patient 'P004': 'n/d' is not a number"),
    "infinite": (_cell(A, "inf"), (), f"Column {A}, line 6, patient 'P004': 'inf' is infinite"),
    "constant": (lambda rows: [row | {A: "1"} for row in rows], (), f"Column {A} is constant"),
    "empty": (lambda rows: [row | {A: "nan"} for row in rows], (), f"Column {A} has no value"),
    "duplicate column": (lambda rows: [row | {B: row[A]} for row in rows], (), f"Columns {A} and {B} hold the same"),
    "duplicate patient": (_cell("patient_id", "P001"), (), "Lines 3 and 6 have the same patient_id, 'P001'"),
    "few features": (lambda rows: [dict(list(row.items())[:16]) for row in rows], (), "14 feature columns"),
    "few rows": (lambda rows: rows[:29], (), "29 usable rows"),
    "one class": (lambda rows: [row | {"stage": "early"} for row in rows], (), "Column stage contains 'advanced' in 0"),
    "unknown target": (lambda rows: rows, ("--target", "stagee", "--positive", "x"), "the nearest is 'stage'"),
    "TNM": (lambda rows: [row | {"pT": "1"} for row in rows], ("--covariates", "pT"), "'pT' cannot be a covariate"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_refused_leaves_nothing_behind(
    fault: str, write_table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, options, told = BAD[fault]
    table = write_table(change(make_rows()))
    before = table.read_bytes()
    assert run(monkeypatch, "fit", table, "-o", tmp_path / "deep" / "run", *options) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("refused: table_invalid: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert [file.name for file in tmp_path.iterdir()] == [table.name]
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("", (), "-o RUN is missing: give it, or study.run"),
        ('[study]\nrun = "r"\n', (), "TABLE is missing: give it, or study.table"),
        ('[study]\nrun = "r"\ntable = "absent.csv"\n', (), "study.table: there is no file"),
        ("[procedure]\nsed = 1\n", (), "procedure.sed: there is no such key; did you mean 'seed'?"),
        ("", ("--target", "grade"), "endpoint: positive is missing"),
        ("", ("--horizon-days", "730"), "endpoint: horizon_days and event belong together"),
        ("", ("--preset", "best"), "procedure.preset: "),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    text: str, options: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = tmp_path / "study.toml"
    file.write_text(text)
    assert run(monkeypatch, "fit", "--config", file, *options) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("usage: ")
    assert told in captured.err
    assert [f.name for f in tmp_path.iterdir()] == ["study.toml"]


def test_measure_finds_everything_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    rtstruct_study(names=("GTV-1",)).write(folder / "ct")
    (folder / "cohort.csv").write_text("patient_id,path,roi,grade,age\nP1,ct,,high,61\n")
    (folder / "spec.yaml").write_text("featureClass: {firstorder: [Mean]}\nsetting: {binWidth: 25}\n")
    (folder / "study.toml").write_text(
        '[study]\ncohort_list = "cohort.csv"\ntable = "out/features.csv"\n[measure]\nspec = "spec.yaml"\nworkers = 1\n'
    )
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "measure", "--config", "study/study.toml") == 0
    with (folder / "out" / "features.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert set(row) == {"patient_id", "grade", "age", "original_firstorder_Mean"}
    assert (row["grade"], row["age"]) == ("high", "61")


def test_report_finds_the_run_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "study.toml"
    file.write_text('[study]\nrun = "run"\n')
    asked: list[Path] = []
    monkeypatch.setattr("lungstage.training.reporting.report.write", lambda folder, out: asked.append(folder))
    assert run(monkeypatch, "report", "--config", file) == 0
    assert run(monkeypatch, "report", tmp_path, "--config", file) == 0
    assert asked == [tmp_path / "run", tmp_path]
    assert run(monkeypatch, "report") == 2


def test_a_run_that_cannot_be_written_is_noticed_before_the_work(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (study.parent / "run").write_text("a file")
    monkeypatch.setattr("lungstage.training.fit.fit", lambda *given: pytest.fail("it was begun"))
    assert run(monkeypatch, "fit", "--config", study) == 4
    assert capsys.readouterr().err.startswith("unavailable: ")
    assert sorted(file.name for file in study.parent.iterdir()) == ["run", "study.toml", "t.csv"]


def test_what_could_not_be_moved_is_kept_and_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "model.npz" / "sub").mkdir(parents=True)
    with pytest.raises(Unavailable) as raised, cli._staged(out) as staging:
        (staging / "model.npz").write_text("hours of work")
    assert str(staging) in str(raised.value)
    assert (staging / "model.npz").read_text() == "hours of work"


def test_a_failure_takes_a_fresh_folder_away_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old", "fresh"):
        with pytest.raises(ReachedError), cli._staged(tmp_path / name):
            raise ReachedError
    assert [file.name for file in tmp_path.iterdir()] == ["old"]
    assert list((tmp_path / "old").iterdir()) == []


def test_the_benchmark_s_file_is_whole_and_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> dict[str, Any]:
        assert (tmp_path / "new").is_dir(), "the destination is checked before the work starts"
        raise ReachedError

    monkeypatch.setattr("lungstage.training.reporting.summary.print_benchmark", lambda *given: None)
    monkeypatch.setattr("lungstage.training.benchmarking.benchmark.benchmark_selectors", fail)
    out = tmp_path / "new" / "s.json"
    monkeypatch.setattr(sys, "argv", ["lungstage-train", "benchmark-selectors", "-o", str(out)])
    with pytest.raises(ReachedError):
        cli.main()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("lungstage.training.benchmarking.benchmark.benchmark_selectors", lambda *given: {"a": 1})
    assert run(monkeypatch, "benchmark-selectors", "-o", out) == 0
    (tmp_path / "plain").write_text("")
    assert out.read_text() == '{\n  "a": 1\n}\n'
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [file.name for file in out.parent.iterdir()] == ["s.json"]


@pytest.mark.parametrize("command", ["measure", "fit", "report", "validate"])
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    shown = capsys.readouterr().out
    assert len(shown) > 500
    assert ("--config" in shown) == (command != "validate")


@pytest.mark.parametrize("command", [(), ("evaluate",)])
def test_help_waits_for_nothing_heavy(command: tuple[str, ...]) -> None:
    heavy = {"torch", "sklearn", "scipy", "numpy", "matplotlib", "radiomics", "onnxruntime"}
    program = (
        "import atexit, sys\nfrom lungstage.training import cli\n"
        f"atexit.register(lambda: print('loaded:', sorted({heavy} & set(sys.modules))))\ncli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout
    assert done.stdout.endswith("loaded: []\n")


def test_help_names_every_preset() -> None:
    (option,) = PresetOption.__metadata__  # a literal list: importing the presets would import torch
    assert option.help.startswith(f"Named settings: {', '.join(PRESETS)}.")
