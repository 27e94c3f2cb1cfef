from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lungstage.appliance.model.bundle import load_bundle
from lungstage.export import cli
from lungstage.training.run import Run


def status(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lungstage-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_build_then_verify(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.save(tmp_path / "run")
    assert status(monkeypatch, "build", tmp_path / "run", "-o", tmp_path / "models" / "name") == 0
    assert "parity over 1000 random inputs" in capsys.readouterr().out
    assert status(monkeypatch, "verify", tmp_path / "models" / "name") == 0
    assert load_bundle(tmp_path / "models" / "name").digest in capsys.readouterr().out


def test_one_file_says_what_goes_where(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.save(tmp_path / "runs" / "made-up")
    config = tmp_path / "study.toml"
    config.write_text('[study]\nrun = "runs/made-up"\nbundle = "bundles/named"\n')
    assert status(monkeypatch, "build", "--config", config) == 0
    assert load_bundle(tmp_path / "bundles" / "named", self_test=False).manifest.name == "named"
    assert status(monkeypatch, "build", "--config", config, "-o", tmp_path / "other") == 0
    assert (tmp_path / "other" / "model.onnx").is_file()
    config.write_text("[study]\nbundel = 1\n")
    assert status(monkeypatch, "build", "--config", config) == 2
    assert "study.bundel: there is no such key; did you mean 'bundle'?" in capsys.readouterr().err


def test_a_changed_bundle_is_refused_with_its_code(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(packed, tmp_path / "copy"))
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert status(monkeypatch, "verify", folder) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("refused: bundle_hash_mismatch: ")
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "nowhere", "-o", "x"],
        ["build", ".", "-o", "x"],  # no run in it
        ["build", "."],
        ["pack"],
        ["verify"],
        ["verify", "x", "--more"],
    ],
)
def test_usage(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(monkeypatch, *arguments) == 2


@pytest.mark.parametrize("name", ["my model", ".hidden", "a|b"])
def test_a_bundle_needs_a_plain_name(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(tmp_path / "run")
    assert status(monkeypatch, "build", tmp_path / "run", "-o", tmp_path / name) == 2
    assert not (tmp_path / name).exists()


def test_a_place_that_cannot_be_written_is_unavailable(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.save(tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert status(monkeypatch, "build", tmp_path / "run", "-o", tmp_path / "file" / "name") == 4
    assert capsys.readouterr().err.startswith("unavailable: ")


def test_a_defect_stays_loud(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path, **_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "load_bundle", broken)
    monkeypatch.setattr(sys, "argv", ["lungstage-export", "verify", str(packed)])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize("command", [[], ["build"], ["keygen"], ["sign"], ["verify"]])
def test_every_command_has_help(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(monkeypatch, *command, "--help") == 0
    assert len(capsys.readouterr().out) > 100
