"""A comparison over tables continues after a stop, a faulty table affects no other, and the bytes are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lungstage.appliance.contract.errors import ExitStatus, Refused
from lungstage.training import cli
from lungstage.training.comparison import compare, pieces
from lungstage.training.comparison.pieces import Piece
from lungstage.training.comparison.protocol import Protocol, ProtocolError
from lungstage.training.comparison.tables import read_table
from lungstage.training.long_runs import processes
from lungstage.training.reporting import comparison_page
from tests.training.comparison.made_up import columns_of, written

PROTOCOL = Protocol(
    preset="quick", selectors=("anova", "gl_rfe", "lasso", "best_single", "random"), features=3, folds=3
)
TOML = 'preset = "quick"\nselectors = ["anova", "gl_rfe", "lasso", "best_single", "random"]\nfeatures = 3\nfolds = 3\n'


def here(function: Callable[[Piece], Any], work: Iterable[Piece]) -> Iterator[tuple[Piece, Any]]:
    """Replace :func:`training.long_runs.processes.run` in this process."""
    for piece in work:
        yield piece, function(piece)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tables that can be used and one that cannot."""
    made = tmp_path_factory.mktemp("tables")
    written(made / "plain.csv", columns_of(seed=1, features=10))
    shape = {"Volume": "f2", "Sphericity": "f3"}
    columns = columns_of(seed=2)
    written(made / "shape.csv.gz", columns | {new: columns.pop(old) for new, old in shape.items()})
    written(made / "noise.gz", columns_of(seed=3, signal=0.0))
    written(made / "few.csv", columns_of(rows=12))
    return made


def run_over(
    folder: Path, out: Path, run: compare.Run = here, protocol: Protocol = PROTOCOL
) -> tuple[Any, Any, list[compare.Done]]:
    tables = compare.read_folder(folder, protocol)
    compare.settle(out, protocol)
    done = list(compare.compare(compare.all_pieces(tables, protocol), out, run))
    return *compare.results(tables, protocol, done), done


@pytest.fixture(scope="module")
def made(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any], Path, dict[Piece, Any]]:
    out = tmp_path_factory.mktemp("out")
    record, timings, done = run_over(folder, out)
    return record, timings, out, {one.piece: one.answer for one in done}


@pytest.fixture(scope="module")
def finished(made: tuple[Any, Any, Path, Any]) -> tuple[dict[str, Any], dict[str, Any], Path]:
    return made[:3]


@pytest.fixture(scope="module")
def known(made: tuple[Any, Any, Path, dict[Piece, Any]]) -> compare.Run:
    """Return the results of the finished run, for tests of what is done with the results."""
    return lambda function, work: ((piece, made[3][piece]) for piece in work)


@pytest.fixture(scope="module")
def page(finished: tuple[Any, Any, Path]) -> str:
    return comparison_page.render(finished[0])


def test_every_figure_is_there_and_follows_from_the_folds(finished: tuple[Any, Any, Path]) -> None:
    record, timings, _ = finished
    assert list(record["tables"]) == ["noise", "plain", "shape"]
    assert record["refused"] == {"few": "The table has 12 usable rows; at least 30 are needed."}
    assert record["protocol"]["sha256"] == PROTOCOL.digest()
    for table, one in record["figures"].items():
        assert set(one["references"]) == {"all_features"} | ({"sphericity_volume"} if table == "shape" else set())
        for of_selector in one["auc"].values():
            assert list(of_selector) == list(PROTOCOL.selectors)
            assert all(len(folds) == 3 and 0 <= min(folds) <= max(folds) <= 1 for folds in of_selector.values())
        for kinds in one["stability"].values():
            assert all(-1 <= value <= 1 for value in kinds.values())
    for classifier, own in record["classifiers"].items():
        assert sum(own["mean_rank"].values()) == pytest.approx(15), "ranks of five"
        assert set(own["against"]) == {*PROTOCOL.selectors, "all_features", "sphericity_volume"} - {"gl_rfe"}
        means = {
            name: np.mean([np.mean(one["auc"][classifier][name]) for one in record["figures"].values()])
            for name in PROTOCOL.selectors
        }
        for name, mean in means.items():
            assert own["mean_auc"][name]["value"] == pytest.approx(mean)
            if name != "gl_rfe":
                assert own["against"][name]["difference"]["value"] == pytest.approx(means["gl_rfe"] - mean)
    assert [(one["classifier"], one["against"]) for one in record["tests"]] == [
        (classifier, name) for classifier in ("network", "logistic") for name in ("anova", "lasso", "random")
    ]
    assert len(record["verdicts"]) == 6
    assert set(timings["tables"]) == set(record["tables"])
    assert all(seconds >= 0 for seconds in timings["mean"].values())
    assert "seconds" not in json.dumps(record)


def test_a_signal_is_ranked_before_chance(finished: tuple[Any, Any, Path]) -> None:
    aucs = finished[0]["figures"]["plain"]["auc"]["logistic"]
    assert np.mean(aucs["anova"]) > 0.65
    assert np.mean(aucs["anova"]) > np.mean(aucs["random"]) + 0.05
    assert 0.2 < np.mean(finished[0]["figures"]["noise"]["auc"]["logistic"]["anova"]) < 0.75


def test_no_piece_sees_the_rows_that_it_is_scored_on(folder: Path, tmp_path: Path) -> None:
    """If the labels of the left-out rows are inverted, the selections stay the same and each AUC becomes 1 - AUC."""
    tables = compare.read_folder(folder, PROTOCOL)
    piece = next(one for one in compare.all_pieces(tables, PROTOCOL) if one.table == "plain" and one.part == "fold")
    before = pieces.do_piece(piece)
    table = tables.tables["plain"]
    away = np.setdiff1d(np.arange(60), pieces._training_rows(piece, table))
    turned = table.labels.copy()
    turned[away] ^= True
    # The fold is still drawn from the true labels, so that only the scored labels change.
    rows = pieces._training_rows(piece, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_table", lambda *_: replace(table, labels=turned))
        patch.setattr(pieces, "_training_rows", lambda *_: rows)
        after = pieces.do_piece(piece)
    assert after["selected"] == before["selected"]
    for classifier, scores in before["auc"].items():
        for name, score in scores.items():
            assert after["auc"][classifier][name] == pytest.approx(1 - score)


def test_halves_are_disjoint_and_whole(folder: Path) -> None:
    table = compare.read_folder(folder, PROTOCOL).tables["plain"]
    own = [one for one in pieces.pieces_of(table, folder / "plain.csv", PROTOCOL) if one.part == "half"]
    one, other = (pieces._training_rows(piece, table) for piece in own)
    assert sorted([*one, *other]) == list(range(60))


def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(
    folder: Path, finished: tuple[Any, Any, Path], known: compare.Run, page: str, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stopping(function: Callable[[Piece], Any], work: Iterable[Piece]) -> Iterator[tuple[Piece, Any]]:
        for number, pair in enumerate(known(function, work)):
            if number == 7:
                raise Stopped
            yield pair

    with pytest.raises(Stopped):
        run_over(folder, tmp_path, stopping)
    journal = tmp_path / compare.JOURNAL
    journal.write_bytes(journal.read_bytes()[:-40])  # the last line is cut short
    record, _, done = run_over(folder, tmp_path, known)
    assert [one.recalled for one in done].count(True) == 6
    assert compare.as_json(record) == compare.as_json(finished[0])
    assert comparison_page.render(record) == page


def test_a_finished_run_is_read_from_its_journal_alone(folder: Path, finished: tuple[Any, Any, Path]) -> None:
    def refusing(function: Any, work: Iterable[Piece]) -> Iterator[Any]:
        assert not list(work)
        return iter(())

    record, timings, _ = run_over(folder, finished[2], refusing)
    assert (record, timings) == finished[:2]


def test_another_protocol_needs_another_folder(folder: Path, finished: tuple[Any, Any, Path]) -> None:
    with pytest.raises(ProtocolError, match="contains a run with another protocol"):
        run_over(folder, finished[2], protocol=PROTOCOL.model_copy(update={"seed": 1}))


def test_a_table_that_fails_is_left_out_by_name_and_costs_no_other(
    folder: Path, finished: tuple[Any, Any, Path], known: compare.Run, tmp_path: Path
) -> None:
    def failing(function: Callable[[Piece], Any], work: Iterable[Piece]) -> Iterator[tuple[Piece, Any]]:
        for piece, answer in known(function, work):
            yield piece, None if (piece.table, piece.part, piece.number) == ("noise", "fold", 1) else answer

    record, _, done = run_over(folder, tmp_path, failing)
    assert list(record["tables"]) == ["plain", "shape"]
    assert record["refused"]["noise"].startswith(
        "The comparison on this table failed: every process that worked on it was killed"
    )
    assert record["figures"]["plain"] == finished[0]["figures"]["plain"]
    again, _, done = run_over(folder, tmp_path, known)
    assert sum(not one.recalled for one in done) == 1, "the failed piece is tried again"
    assert again == finished[0]


def test_a_defect_in_a_selector_is_named_and_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("patient Mueller")

    monkeypatch.setattr(pieces, "selectors", broken)
    tables = compare.read_folder(folder, PROTOCOL)
    answer = pieces.do_piece(compare.all_pieces(tables, PROTOCOL)[0])
    assert answer["defect"]
    assert "ZeroDivisionError" in answer["failed"]
    assert "Mueller" not in answer["failed"]


def test_a_table_that_changes_under_the_run_is_not_mixed(folder: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "t.csv", columns_of())
    piece = compare.all_pieces(compare.read_folder(tmp_path, PROTOCOL), PROTOCOL)[0]
    written(file, columns_of(seed=9))
    assert pieces.do_piece(piece) == {"failed": "t.csv has changed since the run began", "defect": False}


def test_a_worker_of_other_versions_is_not_trusted(folder: Path) -> None:
    piece = compare.all_pieces(compare.read_folder(folder, PROTOCOL), PROTOCOL)[0]
    assert "other versions" in pieces.do_piece(replace(piece, software=(("numpy", "1"),)))["failed"]


def test_a_file_that_cannot_be_read_costs_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(file: Path, **asked: Any) -> Any:
        if file.name == "plain.csv":
            raise PermissionError(13, "Permission denied")
        return read_table(file, **asked)

    monkeypatch.setattr(compare, "read_table", reading)
    found = compare.read_folder(folder, PROTOCOL)
    assert found.refused["plain"] == "The file cannot be read: Permission denied."
    assert sorted(found.tables) == ["noise", "shape"]


def test_a_folder_of_which_nothing_can_be_used_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "few.csv", columns_of(rows=12))
    with pytest.raises(Refused, match="None of 1 tables can be used; few: The table has 12 usable rows"):
        compare.read_folder(tmp_path, PROTOCOL)


def test_the_command_says_what_it_left_out_and_writes_a_page(
    folder: Path, finished: tuple[Any, Any, Path], page: str, tmp_path: Path
) -> None:
    (tmp_path / "p.toml").write_text(TOML)
    called = CliRunner().invoke(
        cli.app, ["compare-selectors", str(folder), "-o", str(finished[2]), "--protocol", str(tmp_path / "p.toml")]
    )
    assert called.exit_code == 0, called.output
    assert "Left out: few: The table has 12 usable rows" in called.output
    assert (finished[2] / "results.json").read_bytes() == compare.as_json(finished[0])
    assert (finished[2] / "report.html").read_text() == page
    for text in ("Critical difference".lower(), PROTOCOL.digest(), "best single feature", "few"):
        assert text in page
    for loaded in ("<script", "http://", "https://", "<link", "<img"):
        assert loaded not in page


@pytest.mark.slow
def test_killed_and_gone_on_the_command_gives_the_same_bytes(
    folder: Path, finished: tuple[Any, Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with one worker is killed; the continuation runs in this process and computes the rest."""
    (tmp_path / "p.toml").write_text(TOML)
    command = [
        "compare-selectors", str(folder), "-o", str(tmp_path / "out"), "--protocol", str(tmp_path / "p.toml"),
        "--workers", "1",
    ]  # fmt: skip
    program = [sys.executable, "-m", "lungstage.training.cli"]
    running = subprocess.Popen([*program, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out" / compare.JOURNAL
    while running.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        time.sleep(0.05)
    assert running.poll() is None, "it ended before it could be killed"
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out" / compare.RESULTS).exists()
    monkeypatch.setattr(processes, "run", lambda function, work, *, workers: here(function, work))
    called = CliRunner().invoke(cli.app, command)
    assert called.exit_code == 0, called.output
    assert (tmp_path / "out" / compare.RESULTS).read_bytes() == compare.as_json(finished[0])


def test_a_usage_error_is_one(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv",
        ["x", "compare-selectors", str(folder), "-o", str(tmp_path), "--workers", "1", "--scheduler", "tcp://h:1"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == ExitStatus.USAGE
