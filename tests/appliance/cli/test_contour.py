"""``lungstage contour`` and ``lungstage stage`` say which bundle and which folder they need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.contract.errors import ReasonCode, Refused
from tests.support.studies import Study, rtstruct_study, seg_study

LINE = ("--diameter", "-12,0,1", "12,0,1")


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return Study(rtstruct_study().slices).write(tmp_path / "ct")


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    path = tmp_path / "tool.dcm"
    seg_study().rois[0].save_as(path, enforce_file_format=True)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def said(done: Result) -> str:
    """What the command says, in one line without the frame around a usage error."""
    return " ".join((done.stderr + str(done.exception)).replace("│", " ").split())


def test_a_bundle_of_the_other_kind_is_said_to_be_one(ct: Path, tmp_path: Path) -> None:
    done = run("contour", ct, *LINE, "--bundle", "lung1-stage", "--out", tmp_path / "out")
    assert isinstance(done.exception, Refused)
    assert done.exception.reason.code is ReasonCode.BUNDLE_INVALID
    assert "gives answers and draws no contours. Give the folder of a bundle that draws contours" in said(done)
    assert said(done).endswith("or the name of a shipped one: lung-contour.")
    done = run("stage", ct, "--bundle", "lung-contour", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 3
    reason = json.loads(done.stdout)["reason"]
    assert reason["code"] == "bundle_invalid"
    assert "draws contours and gives no answers. Give the folder of a bundle that gives answers" in reason["message"]
    assert reason["message"].endswith("or the name of a shipped one: lung1-stage, lung1-survival.")
    assert not (tmp_path / "out").exists()


def test_a_misspelt_bundle_is_answered_with_those_that_fit(ct: Path, tmp_path: Path) -> None:
    done = run("contour", ct, *LINE, "--bundle", "lung-countour", "--out", tmp_path / "out")
    assert said(done).endswith("or the name of a shipped one: lung-contour.")
    done = run("stage", ct, "--bundle", "lung2-stage", "--out", tmp_path / "out")
    assert "or the name of a shipped one: lung1-stage, lung1-survival." in done.stdout
    done = run("verify", "lung-countour")
    assert said(done).endswith("or the name of a shipped one: lung1-stage, lung1-survival, lung-contour.")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("file", "'file' is not a folder."), ("link", "'link' is a link that leads nowhere."),
        ("file/below", "'file' is not a folder."), ("", "the name is empty."), (" ", "the name is empty."),
    ],
)  # fmt: skip
def test_out_has_to_be_a_folder(
    ct: Path, seg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("file").write_bytes(b"content")
    Path("link").symlink_to("nowhere")
    for command in (("contour", ct, "--from", seg), ("stage", ct, "--bundle", "lung1-stage")):
        done = run(*command, "--out", name)
        assert done.exit_code == 2
        assert "Invalid value for '--out'" in said(done)
        assert says in said(done)
        assert "Give the path of a folder" in said(done)
    assert sorted(path.name for path in Path().iterdir()) == ["file", "link"]


def test_out_may_be_a_new_folder_or_the_current_one(
    ct: Path, seg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("new/one", "."):
        done = run("contour", ct, "--from", seg, "--out", name, "--json")
        assert done.exit_code == 0, done.output
        assert Path(json.loads(done.stdout)["seg"]).parent == Path(name)


def test_a_foreign_file_of_the_seg_s_name_is_said_and_left_alone(ct: Path, seg: Path, tmp_path: Path) -> None:
    command = ("contour", ct, "--from", seg, "--out", tmp_path / "out", "--json")
    path = Path(json.loads(run(*command).stdout)["seg"])
    path.write_bytes(b"another")
    done = run(*command)
    assert done.exit_code == 3
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["reason"]["code"]) == ("held", "outbox_occupied")
    message = answer["reason"]["message"]
    assert message.startswith("A document cannot be written: ")
    assert "is a file with other content. lungstage does not change it. Move it to another folder." in message
    assert "outbox" not in message
    assert "report" not in message
    assert path.read_bytes() == b"another"
