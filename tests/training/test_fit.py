"""``lungstage-train`` end to end: the same run twice, refusals in one line, no incomplete files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lungstage.appliance.contract.spec import ALL_FEATURES
from lungstage.training import cli
from lungstage.training import fit as fitting
from lungstage.training.cohorts.cohort import CUT_COLUMN, read_cohort
from lungstage.training.fit import ENVELOPE
from lungstage.training.model.domain import QUANTILES as DOMAIN
from lungstage.training.model.domain import fit_domain
from lungstage.training.model.network import ensemble_logits
from lungstage.training.model.preprocessing import Standardise, standardise
from lungstage.training.run import RECORD_KEYS, Run

from .conftest import make_rows

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


def _command(*arguments: str, threads: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lungstage.training.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``lungstage-train`` in this process, to avoid the imports; return exit status, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lungstage-train", *arguments])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return int(exited.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table with cut rows and gaps, and the run fitted to it."""
    folder = tmp_path_factory.mktemp("fit")
    rows = [row | {CUT_COLUMN: str(i % 10 == 0)} for i, row in enumerate(make_rows(n=90, features=18))]
    rows[3][ALL_FEATURES[4]] = ""
    table = folder / "features.csv"
    table.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    done = _command("fit", str(table), "-o", str(folder / "run"), "--quick")
    assert done.returncode == 0, done.stderr
    assert "out of fold" in done.stdout
    expected, *bars = done.stderr.splitlines()
    assert re.fullmatch(r"81 patients: the fit takes about \d+ \w+ of processor time on this machine\.", expected)
    assert all("━" in bar for bar in bars), "nothing but progress bars follows"
    return table, folder / "run"


def test_the_record_is_complete(fitted: tuple[Path, Path]) -> None:
    table, folder = fitted
    record = Run.load(folder).record
    assert set(record) == set(RECORD_KEYS)
    assert record["table"] == {
        "name": "features.csv", "sha256": read_cohort(table).sha256, "rows": 90, "used": 81,
        "excluded": {CUT_COLUMN: 9}, "positives": int(read_cohort(table).labels.sum()),
    }  # fmt: skip
    assert record["configuration"] == {"procedure": {"preset": "quick"}}
    assert record["target"] == {
        "target": "stage", "positive": "advanced", "negative": "early", "event": None, "horizon_days": None,
    }  # fmt: skip
    assert record["extraction"] == {"binWidth": 25.0}
    assert "did not declare" in record["cohort"]["notes"][0]
    names = record["selection"]["features"]
    assert [r["remaining"] for r in record["selection"]["rounds"]] == [18, 16, 15]
    assert list(record["envelope"]) == sorted(names)  # json keys are sorted
    for quantiles in record["envelope"].values():
        assert tuple(sorted(quantiles, key=float)) == ENVELOPE
        assert np.all(np.diff([quantiles[level] for level in ENVELOPE]) >= 0)
    assert tuple(sorted(record["domain"]["quantiles"], key=float)) == DOMAIN
    assert {k: v["rows"] for k, v in record["cut_rows"].items()} == {
        "used_only": 81, "all_rows": 90, "all_rows_scored_on_used": 81,
    }  # fmt: skip
    seen = record["reached"]
    positives = record["table"]["positives"]
    assert (seen["positives"], seen["negatives"]) == (positives, 81 - positives)
    for shares in (seen["positives_at_least"], seen["negatives_at_least"]):
        assert len(shares) == len(seen["thresholds"])
        assert shares[0] == 1.0
        assert np.all(np.diff(shares) <= 0)
    assert np.mean(seen["positives_at_least"]) > np.mean(seen["negatives_at_least"]), "the classes must differ"
    assert sum(one["patients"] for one in record["cut_coverage"].values()) == 9
    assert all(0 <= one["covered"] <= one["patients"] for one in record["cut_coverage"].values())
    assert "sphericity_volume" in {one["against"] for one in record["verdicts"]}
    for name in ("early", "advanced"):
        low, high = record["conformal"][f"{name}_coverage"]
        assert low < 0.8 < high
    assert record["out_of_fold"]["auc"]["value"] > 0.7
    assert record["calibration"]["slope"] > 0
    for private in ("P001", str(folder), str(table.parent), str(Path.cwd())):
        assert private not in json.dumps(record)


def test_the_model_is_what_the_contract_says(fitted: tuple[Path, Path]) -> None:
    table, folder = fitted
    cohort, model = read_cohort(table), Run.load(folder).model
    columns = [cohort.features.index(name) for name in model.features]
    assert list(columns) == sorted(columns)
    raw = cohort.values[:, columns]
    z = standardise(model.preprocessing, raw)
    np.testing.assert_array_equal(z, Standardise().fit_transform(cohort.values)[:, columns])
    assert all(w.dtype == np.float64 for w in (*model.ensemble.weights, *model.ensemble.biases))
    assert [w.shape for w in model.ensemble.weights] == [(2, 15, 64), (2, 64, 32), (2, 32, 1)]
    slope, intercept = model.calibration
    p = 1 / (1 + np.exp(-(slope * ensemble_logits(model.ensemble, z) + intercept)))
    assert p[cohort.labels].mean() > p[~cohort.labels].mean() + 0.1
    np.testing.assert_allclose(model.domain_precision, model.domain_precision.T, atol=1e-12)
    assert np.linalg.eigvalsh(model.domain_precision).min() > 0
    far = standardise(model.preprocessing, raw, clip=False)
    domain = fit_domain(far)
    np.testing.assert_allclose(model.domain_precision, domain.precision, rtol=1e-9)
    assert Run.load(folder).record["domain"]["quantiles"] == pytest.approx(domain.quantiles)


def test_two_runs_are_the_same_bytes(fitted: tuple[Path, Path], tmp_path: Path, command: Command) -> None:
    table, folder = fitted
    again = tmp_path / "elsewhere"
    assert _command("fit", str(table), "-o", str(again), "--quick", threads=2).returncode == 0
    assert sorted(f.name for f in again.iterdir()) == ["model.npz", "run.json"]
    for name in ("model.npz", "run.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    (again / "evaluation.json").write_text('{"endpoint": {}}')
    status, said, _ = command("fit", str(table), "-o", str(again), "--quick", "--seed", "1")
    assert status == 0
    assert "Warning: run.json and evaluation.json are of different endpoints" in said
    assert (again / "model.npz").read_bytes() != (folder / "model.npz").read_bytes()


def test_a_refused_table_is_one_plain_line(write_table: Write, tmp_path: Path, command: Command) -> None:
    rows = make_rows()
    rows[0]["stage"] = "IV"
    refused = command("fit", str(write_table(rows)), "-o", str(tmp_path / "run"), "--quick")
    told = "Column stage, line 2, patient 'P000': 'IV' is neither early nor advanced."
    assert refused == (3, "", f"refused: table_invalid: {told}\n")
    assert not (tmp_path / "run").exists()


def test_a_destination_that_cannot_be_written(write_table: Write, tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").write_text("")
    status, _, said = command("fit", str(write_table(make_rows())), "-o", str(tmp_path / "file" / "run"), "--quick")
    assert status == 4
    assert said.startswith("unavailable: ")
    assert "Traceback" not in said


def test_wrong_usage(tmp_path: Path) -> None:
    assert _command("fit", str(tmp_path / "absent.csv"), "-o", str(tmp_path / "run")).returncode == 2


def test_a_failure_leaves_the_former_run_whole(
    fitted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    table, out = fitted[0], tmp_path / "run"
    shutil.copytree(fitted[1], out)
    before = {f.name: f.read_bytes() for f in out.iterdir()}

    def half(self: Run, folder: Path) -> None:
        (folder / "model.npz").write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(fitting, "fit", lambda *_: Run.load(fitted[1]))
    monkeypatch.setattr(Run, "save", half)
    assert command("fit", str(table), "-o", str(out), "--quick", "--seed", "3")[0] == 4
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before
    assert {f.name for f in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"])
    assert shown.exit_code == 0
    assert "TABLE" in shown.output
