"""One TOML file: what it may contain, how its faults are named, and that its documentation is complete."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, Endpoint
from lungstage.export import cli as export_cli
from lungstage.training import cli as training_cli
from lungstage.training.cohorts.endpoint import Target
from lungstage.training.configuration import Configuration, ConfigurationError, load_configuration
from lungstage.training.options import PLACES, configured
from lungstage.training.procedure import HARDENED, PAPER, PRESETS
from tests.conftest import ROOT

from .cohorts.test_endpoint import Write
from .conftest import make_rows

EXAMPLE = ROOT / "docs" / "study.toml"
SECTIONS: dict[str, type[BaseModel]] = {}
for _name, _field in Configuration.model_fields.items():
    _model = _field.annotation if isinstance(_field.annotation, type) else _field.annotation.__args__[0]  # type: ignore[union-attr]
    SECTIONS[_name] = _model


def _write(folder: Path, text: str) -> Path:
    file = folder / "study.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_everything_is_as_documented() -> None:
    plain = load_configuration(None)
    assert plain == Configuration()
    assert plain.settings() == HARDENED
    assert plain.endpoint == Target()


def test_relative_paths_are_meant_from_the_file_and_options_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    text = '[study]\ntable = "t.csv"\nrun = "../runs/r"\nbundle = "/b"\n[measure]\nspec = "s.yaml"\n'
    file = _write(tmp_path / "sub", text)
    for said in (file, Path("sub/study.toml")):
        study = load_configuration(said)
        assert study.study.table == tmp_path / "sub" / "t.csv"
        assert study.study.run == tmp_path / "runs" / "r"
        assert study.study.bundle == Path("/b")
        assert study.measure.spec == tmp_path / "sub" / "s.yaml"
    assert load_configuration(file, {"study.table": Path("t.csv")}).study.table == tmp_path / "t.csv"
    assert load_configuration(_write(tmp_path, '[measure]\nspec = "all"')).measure.spec == "all"


def test_options_outrank_the_file_and_what_is_not_said_does_not(tmp_path: Path) -> None:
    file = _write(
        tmp_path, '[study]\nkeep_cut_rows = true\n[procedure]\npreset = "paper"\nseed = 3\nfolds = 4\nfeatures = 12\n'
    )
    settings = load_configuration(file, {"procedure.seed": 0, "procedure.folds": None}).settings()
    assert (settings.seed, settings.folds, settings.selection.features) == (0, 4, 12)
    assert settings.network == PAPER.network
    assert not configured(file, keep_cut_rows=False).study.keep_cut_rows
    assert configured(file, keep_cut_rows=None).study.keep_cut_rows
    assert configured(file, quick=True, seed=3).settings().repeats == PRESETS["quick"].repeats
    assert configured(None, covariates="age, sex").covariates.names == ("age", "sex")


def test_quick_and_another_preset_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="contradicts --preset paper"):
        configured(None, quick=True, preset="paper")
    assert configured(None, quick=True, preset="quick").procedure.preset == "quick"
    file = _write(tmp_path, '[procedure]\npreset = "paper"\n')
    assert configured(file, quick=True).procedure.preset == "quick", "an option takes precedence over the file"


def test_departures_are_what_a_fit_needs_beside_its_table(tmp_path: Path) -> None:
    assert Configuration().departures() == {}
    text = """
[study]
table = "t.csv"
run = "r"
cohort_list = "c.csv"
description = "sub/d.toml"
keep_cut_rows = true
[endpoint]
target = "days"
horizon_days = 730
event = "death"
positive = "dead"
[covariates]
names = ["age"]
[procedure]
preset = "paper"
seed = 0
folds = 4
features = 15
[repeatability]
table = "sub/icc.csv"
minimum = 0.75
[measure]
scheduler = "tcp://host:1"
"""
    found = load_configuration(_write(tmp_path, text)).departures()
    assert found == {
        "study": {"description": "d.toml", "keep_cut_rows": True},
        "endpoint": {"target": "days", "positive": "dead", "horizon_days": 730.0, "event": "death"},
        "covariates": {"names": ["age"]},
        "procedure": {"preset": "paper", "folds": 4},
        "repeatability": {"table": "icc.csv"},
    }
    same = [("study.table", "t.csv"), ("study.run", "r")]
    assert load_configuration(None, {key: Path(value) for key, value in same}).departures() == {}


def test_another_target_puts_the_file_s_endpoint_aside(tmp_path: Path) -> None:
    file = _write(tmp_path, '[endpoint]\ntarget = "days"\nhorizon_days = 730\nevent = "death"\n')
    assert load_configuration(file, {"endpoint.target": "stage"}).endpoint == Target()
    assert load_configuration(file, {"endpoint.horizon_days": 365}).endpoint.horizon_days == 365


def test_workers_put_the_file_s_scheduler_aside_and_the_other_way_round(tmp_path: Path) -> None:
    scheduler = "tcp://127.0.0.1:8786"
    file = _write(tmp_path, f'[measure]\nscheduler = "{scheduler}"\n')
    assert load_configuration(file, {"measure.workers": 3}).measure.scheduler is None
    file = _write(tmp_path, "[measure]\nworkers = 3\n")
    assert load_configuration(file, {"measure.scheduler": scheduler}).measure.workers is None
    with pytest.raises(ConfigurationError, match="give one"):
        load_configuration(_write(tmp_path, f'[measure]\nworkers = 3\nscheduler = "{scheduler}"\n'))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[stduy]\n", "there is no section or key 'stduy'; did you mean 'study'?"),
        ("seed = 1\n", "there is no section or key 'seed'"),
        ('[study]\ntabel = "x"\n', "study.tabel: there is no such key; did you mean 'table'?"),
        ("[endpoint]\nhorizon = 3\n", "endpoint.horizon: there is no such key; did you mean 'horizon_days'?"),
        ("[procedure]\nqqq = 1\n", "procedure.qqq: there is no such key; known are preset, seed"),
        ("[procedure]\nseed = -1\n", "procedure.seed: "),
        ("[procedure]\nalpha = nan\n", "procedure.alpha: "),
        ('[procedure]\npreset = "papr"\n', "procedure.preset: "),
        ("[repeatability]\nminimum = 0.5\n", "repeatability.table is missing"),
        ('[endpoint]\ntarget = "grade"\n', "endpoint: positive is missing"),
        ("[measure]\nworkers = 0\n", "measure.workers: "),
        ("[measure]\nspec = 3\n", "measure.spec: "),
        ('[measure]\nscheduler = "localhost"\n', "measure.scheduler: "),
        ('[covariates]\nnames = ["age", 3]\n', "covariates.names.1: "),
        ('study = "x"\n', "study: "),
        ('[covariates]\nnames = "age"\n', "covariates.names: "),
        ("[study\n", "is not TOML"),
    ],
)
def test_a_fault_is_named_by_its_path(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_configuration(_write(tmp_path, text), {"procedure.repeats": 2})
    assert told in str(error.value)
    assert "study.toml" in str(error.value)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    file = _write(tmp_path, '[study]\ntabel = "x"\n[procedure]\nseed = "one"\n[measure]\nworkers = 0\n[colour]\n')
    with pytest.raises(ConfigurationError) as error:
        load_configuration(file)
    for path in ("study.tabel", "procedure.seed", "measure.workers", "'colour'"):
        assert path in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_configuration(tmp_path / "absent.toml")


@given(st.sampled_from(sorted({f"{s}.{k}" for s, m in SECTIONS.items() for k in m.model_fields})), st.integers(0, 40))
def test_a_slip_of_one_letter_is_refused_with_what_was_meant(path: str, at: int) -> None:
    section, key = path.split(".")
    slip = key[: at % len(key)] + "x" + key[at % len(key) :]
    if slip in SECTIONS[section].model_fields:
        return
    with pytest.raises(ConfigurationError, match=rf"{section}\.{slip}: there is no such key; did you mean '\w+'"):
        load_configuration(None, {f"{section}.{slip}": "x"})


def test_what_a_command_cannot_do_without_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"-o RUN is missing: give it, or study\.run"):
        Configuration().path("run", "-o RUN")
    with pytest.raises(ConfigurationError, match="TABLE is missing"):
        Configuration().cohort()
    with pytest.raises(ConfigurationError, match=r"study\.table: there is no file .*t\.csv"):
        load_configuration(_write(tmp_path, '[study]\ntable = "t.csv"')).cohort()


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Configuration().procedure.seed = 3  # type: ignore[misc]


def test_the_file_alone_gives_the_cohort(write_table: Write, tmp_path: Path) -> None:
    rows = [row | {"grade": "high" if i % 3 else "low", "age": str(40 + i)} for i, row in enumerate(make_rows())]
    write_table(rows, "t.csv")
    (tmp_path / "icc.csv").write_text(
        "feature,icc\n" + "".join(f"{f},{0.7 + 0.05 * (f != ALL_FEATURES[2])}\n" for f in ALL_FEATURES)
    )
    text = '[study]\ntable="t.csv"\n[endpoint]\ntarget="grade"\npositive="high"\n[covariates]\nnames=["age"]\n'
    cohort = load_configuration(_write(tmp_path, text + '[repeatability]\ntable="icc.csv"\n')).cohort()
    assert cohort.endpoint == Endpoint("grade", "low", "high")
    assert [covariate.name for covariate in cohort.covariates] == ["age"]
    assert ALL_FEATURES[2] not in cohort.features
    with pytest.raises(Refused, match="tnm"):
        load_configuration(_write(tmp_path, text), {"covariates.names": ("tnm",)}).cohort()


# The documentation


def test_the_example_is_valid_and_shows_every_key() -> None:
    example = load_configuration(EXAMPLE)
    assert example.study.table == ROOT / "docs" / "features.csv"
    assert example.endpoint.horizon_days == 730
    uncommented = re.sub(r"^# (\w+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown: dict[str, Any] = tomllib.loads(uncommented)
    assert {name: set(keys) for name, keys in shown.items()} == {
        name: set(model.model_fields) for name, model in SECTIONS.items()
    }


def documented(section: str) -> str:
    """Return the table of a section as docs/training.md must contain it."""
    lines = []
    for name, field in SECTIONS[section].model_fields.items():
        default = field.default
        if field.is_required():
            said = "required"
        elif default is None or default == ():
            said = "as the preset" if section == "procedure" else "none"
        else:
            said = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        lines.append(f"| `{name}` | {said} | {field.description} |")
    return "\n".join(lines)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_with_its_default(section: str) -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"## `[{section}]`\n\n| key | default | meaning |\n|---|---|---|\n{documented(section)}\n" in text


def test_every_option_has_its_place_in_the_file() -> None:
    for place in PLACES.values():
        section, key = place.split(".")
        assert key in SECTIONS[section].model_fields


def test_the_presets_that_the_file_may_name_are_those_there_are() -> None:
    for preset in PRESETS:
        assert load_configuration(None, {"procedure.preset": preset}).settings() == PRESETS[preset]


def _commands() -> list[list[str]]:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    block = text.split("```\n")[1]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_of_the_documentation_is_one(command: list[str]) -> None:
    """An option that does not exist is refused before the help is shown."""
    program, *arguments = command
    app = {"lungstage-train": training_cli.app, "lungstage-export": export_cli.app}[program]
    assert CliRunner().invoke(app, [*arguments, "--no-such-option", "--help"]).exit_code == 2
    shown = CliRunner().invoke(app, [*arguments, "--help"])
    assert shown.exit_code == 0, shown.output
