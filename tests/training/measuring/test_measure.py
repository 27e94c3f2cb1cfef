"""From a cohort to a feature table: the appliance's numbers, no patient lost, the same bytes after a kill."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from rich.console import Console

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics import parameters
from lungstage.appliance.staging.one_shot import Options, measure_paths
from lungstage.training.cli import main
from lungstage.training.cohorts.description import Counts, read_description
from lungstage.training.long_runs import cluster, processes, progress
from lungstage.training.measuring import measure
from lungstage.training.measuring.feature_table import refusals, write_table
from lungstage.training.measuring.journal import Entry, open_journal
from lungstage.training.measuring.subjects import read_subjects
from tests.support.cohorts import SPEC, command, dask_cluster, wait_for_lines, write_cohort, written
from tests.support.studies import rtstruct_study, seg_study, square_mask

STUDIES, FAULTS = 12, 2


class Done(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


def _in_this_process(
    function: Callable[[measure.Task], Entry], tasks: list[measure.Task], *, workers: int
) -> Iterator[tuple[measure.Task, Entry]]:
    """Replace :func:`training.long_runs.processes.run`."""
    assert workers >= 1
    return ((task, function(task)) for task in tasks)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``lungstage-train measure`` completely in this process, so that large imports happen once."""
    monkeypatch.setattr(processes, "run", _in_this_process)

    def call(cohort: Path, out: Path, *options: str) -> Done:
        monkeypatch.setattr(sys, "argv", command(cohort, out, *options))
        with pytest.raises(SystemExit) as exited:
            main()
        return Done(int(exited.value.code or 0), *capfd.readouterr())

    return call


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Four studies: one with contours, one with a SEG, one with a missing slice, and one that does not exist."""
    smaller = square_mask()
    smaller[:, :16] = False
    incomplete = rtstruct_study()
    del incomplete.slices[5]
    rtstruct_study(names=("GTV-1", "GTV-7")).write(tmp_path / "a")
    seg_study(np.asarray(smaller)).write(tmp_path / "b")
    incomplete.write(tmp_path / "c")
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "cohort.csv").write_text(
        "patient_id,path,roi,stage\nA,a,GTV-7,early\nB,b,,advanced\nC,c,,early\nD,nowhere,,advanced\n"
    )
    return tmp_path / "cohort.csv"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort list of twelve studies; two of them have faults."""
    return write_cohort(tmp_path_factory.mktemp("many"), STUDIES, FAULTS)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _measured(many: Path, out: Path, run: measure.Run, after_each: Callable[[int], None]) -> dict[str, bytes]:
    """Measure like the command, and call `after_each` after each study."""
    spec, subjects = parameters.parse(SPEC), read_subjects(many)
    method = measure.Method.of(spec)
    done: dict[str, measure.Measured] = {}
    with open_journal(out.with_suffix(".journal.jsonl"), method.digest, fresh=False) as journal:
        for one in measure.measure_cohort(subjects, method, journal, run):
            done[one.subject.patient_id] = one
            after_each(len(done))
    write_table([done[subject.patient_id] for subject in subjects], spec, many, out)
    return written(out)


@pytest.fixture(scope="module")
def undisturbed(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that this process writes in an undisturbed run."""
    out = tmp_path_factory.mktemp("undisturbed") / "features.csv"
    files = _measured(many, out, partial(_in_this_process, workers=1), lambda done: None)
    listed = [row["patient_id"] for row in _rows(out) + _rows(refusals(out))]
    assert sorted(listed) == [f"P{number:03}" for number in range(STUDIES)]
    assert len(_rows(refusals(out))) == FAULTS
    return files


def test_measured_as_the_appliance_measures_and_refusals_listed(cohort: Path, run: Command) -> None:
    out = cohort.with_name("features.csv")
    done = run(cohort, out)
    assert done.status == 4
    assert "2 measured, 1 refused, 1 unavailable" in done.stdout
    rows = _rows(out)
    assert [(row["patient_id"], row["stage"]) for row in rows] == [("A", "early"), ("B", "advanced")]
    spec = parameters.parse(SPEC)
    for row, study, roi in zip(rows, ("a", "b"), ("GTV-7", None), strict=True):
        own = measure_paths([cohort.parent / study], ROI_RULE, spec, Options(roi))["features"]
        assert {name: float(row[name]) for name in spec.features} == own
    refused = {row["patient_id"]: row["code"] for row in _rows(refusals(out))}
    assert refused == {"C": "slices_missing", "D": "unavailable"}


def test_a_later_run_measures_only_what_is_new_changed_or_was_unavailable(cohort: Path, run: Command) -> None:
    out = cohort.with_name("features.csv")
    run(cohort, out)
    before = _rows(out)
    shutil.copytree(cohort.parent / "b", cohort.parent / "nowhere")  # now it exists
    rtstruct_study().write(cohort.parent / "c")  # now it is complete
    seg_study().write(cohort.parent / "b")  # now it has another region
    done = run(cohort, out)
    assert done.status == 0
    assert "4 measured, 0 refused" in done.stdout
    assert "1 were read from features.journal.jsonl" in done.stdout
    after = _rows(out)
    assert [row["patient_id"] for row in after] == ["A", "B", "C", "D"]
    assert after[0] == before[0]
    assert after[1]["original_shape_MeshVolume"] != before[1]["original_shape_MeshVolume"]
    kept = written(out)
    assert "were read from" not in run(cohort, out, "--fresh").stdout
    assert written(out) == kept
    (cohort.parent / "spec.yaml").write_text(SPEC.replace("Entropy", "Maximum"))
    assert "were read from" not in run(cohort, out).stdout


def test_data_that_are_away_cost_no_table(cohort: Path, run: Command) -> None:
    out = cohort.with_name("features.csv")
    shutil.copytree(cohort.parent / "b", cohort.parent / "nowhere")
    assert run(cohort, out).status == 0
    before, journal = written(out), out.with_suffix(".journal.jsonl").read_bytes()
    for study in "ab":
        (cohort.parent / study).rename(cohort.parent / f"{study} away")
    done = run(cohort, out)
    assert done.status == 4
    assert "2 of 4 studies (" in done.stderr
    assert "features.csv was not changed. Run the same command again" in done.stderr
    assert "features.csv was not changed" in done.stdout
    assert written(out) == before
    assert out.with_suffix(".journal.jsonl").read_bytes() == journal


def test_the_description_counts_the_studies_of_the_last_run(cohort: Path, run: Command) -> None:
    out, description = cohort.with_name("features.csv"), cohort.with_name("features.toml")
    run(cohort, out)
    assert read_description(description).measured == Counts(listed=4, measured=2, refused=1)
    description.write_text(
        description.read_text().replace('"undeclared"', '"somebody\'s"') + '[skew]\ncase="c"\ncause="d"\n'
        "relative={}\nin_iqr={}\n"
    )
    shutil.copytree(cohort.parent / "b", cohort.parent / "nowhere")
    assert run(cohort, out).status == 0
    found = read_description(description)
    assert found.measured == Counts(listed=4, measured=3, refused=1)
    assert (found.licence, found.skew is not None) == ("somebody's", True)


def test_a_study_whose_times_alone_changed_is_measured_anew(cohort: Path) -> None:
    method = measure.Method.of(parameters.parse(SPEC))
    first = measure.measure_study(measure.Task(0, cohort.parent / "a", "GTV-1", method, None))
    again = measure.Task(0, cohort.parent / "a", "GTV-1", method, first.files)
    assert measure.measure_study(again).code == "unchanged"
    os.utime(cohort.parent / "a" / "0003", ns=(1, 1))
    anew = measure.measure_study(again)
    assert anew.features == first.features is not None
    assert anew.files != first.files


def test_nothing_measured_at_all(cohort: Path, run: Command) -> None:
    cohort.write_text("patient_id,path,roi,stage\nC,c,,early\nE,a,GTV-9,early\n")
    done = run(cohort, cohort.with_name("features.csv"))
    assert done.status == 3
    assert len(_rows(cohort.with_name("features.refused.csv"))) == 2


def test_a_defect_of_ours_costs_one_study_and_is_loud(
    cohort: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(paths: list[Path], *rest: object) -> dict[str, object]:
        if paths[0].name == "a":
            raise ZeroDivisionError("the name of a person")
        return measure_paths(paths, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(measure, "measure_paths", broken)
    done = run(cohort, cohort.with_name("features.csv"))
    assert done.status == 1
    refused = _rows(cohort.with_name("features.refused.csv"))
    assert refused[0]["code"] == "internal_error"
    assert "ZeroDivisionError at" in refused[0]["message"]
    assert "person" not in refused[0]["message"] + done.stdout + done.stderr


def test_a_description_that_says_otherwise_is_not_overwritten(cohort: Path, run: Command) -> None:
    out, description = cohort.with_name("features.csv"), cohort.with_name("features.toml")
    run(cohort, out)
    described = description.read_text()
    description.write_text(described.replace('licence = "undeclared"', 'licence = "CC BY 4.0"'))
    run(cohort, out)
    assert "CC BY 4.0" in description.read_text()
    description.write_text(described.replace("binWidth = 25", "binWidth = 10"))
    out.unlink()
    done = run(cohort, out, "--fresh")
    assert done.status == 3
    assert "measured with other settings" in done.stderr
    assert not out.exists()


def test_other_columns_are_carried_over_unchanged(cohort: Path, run: Command) -> None:
    cohort.write_text('patient_id,path,roi,survival_days,death_observed\nA,a,GTV-1,0412.50,True\nB,b,,,"no, lost"\n')
    assert run(cohort, cohort.with_name("features.csv")).status == 0
    rows = _rows(cohort.with_name("features.csv"))
    assert list(rows[0])[:3] == ["patient_id", "survival_days", "death_observed"]
    assert [list(row.values())[1:3] for row in rows] == [["0412.50", "True"], ["", "no, lost"]]


def test_killed_workers_leave_no_trace(many: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    def kill(done: int) -> None:
        if done == 3:
            for child in psutil.Process().children():
                child.kill()

    assert _measured(many, tmp_path / "features.csv", partial(processes.run, workers=2), kill) == undisturbed


def test_a_dask_cluster_leaves_no_trace_nor_does_its_killed_worker(
    many: Path, undisturbed: dict[str, bytes], tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster, killed = cluster.run, []

    def killing(*work: Any, **where: Any) -> Iterator[Any]:
        for number, answer in enumerate(on_cluster(*work, **where), start=1):
            if number == 3:
                killed.extend(started[1].children(recursive=True))
                for process in killed:
                    process.kill()
            yield answer

    monkeypatch.setattr(cluster, "run", killing)
    with dask_cluster(tmp_path) as (address, started):
        assert run(many, tmp_path / "features.csv", "--scheduler", address).status == 0
    assert killed
    assert written(tmp_path / "features.csv") == undisturbed


def test_a_killed_run_is_taken_up_where_it_was(
    many: Path, undisturbed: dict[str, bytes], tmp_path: Path, run: Command
) -> None:
    out, journal = tmp_path / "features.csv", tmp_path / "features.journal.jsonl"
    with subprocess.Popen(command(many, out, "--workers", "1"), stderr=subprocess.PIPE, text=True) as process:
        wait_for_lines(journal, 3, process)
        workers = psutil.Process(process.pid).children()
        process.kill()
    assert workers
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert not out.exists()
    known = journal.read_bytes().count(b"\n")
    with journal.open("ab") as file:
        file.write(b'{"study": ["P011", "stud')  # as after a power cut
    done = run(many, out)
    assert done.status == 0
    assert f"{known} were read from" in done.stdout
    assert known < STUDIES
    assert written(out) == undisturbed


def test_progress_away_from_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1, 10**6, 20))  # seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    shown = io.StringIO()
    tally = progress.Tally(100, ("measured", "refused"), Console(file=shown))
    for number in range(10):
        tally.add("refused" if number % 5 == 0 else "measured", timed=number > 1)
    lines = shown.getvalue().splitlines()
    assert 2 <= len(lines) <= 6
    assert lines[-1].endswith(" min left")
    assert str(tally) == "8 measured, 2 refused"


def test_two_runs_do_not_write_one_table(cohort: Path, run: Command) -> None:
    out = cohort.with_name("features.csv")
    with open_journal(out.with_suffix(".journal.jsonl"), "", fresh=False):
        done = run(cohort, out)
    assert done.status == 4
    assert "Another run" in done.stderr


def test_a_worker_with_other_software_measures_nothing(cohort: Path) -> None:
    method = measure.Method("", (), match_by_geometry=False, software="lungstage 0.0")
    entry = measure.measure_study(measure.Task(0, cohort.parent / "a", "", method, None))
    assert entry.code == "unavailable"
    assert "lungstage 0.0" in entry.message


def test_local_processes_open_no_socket(cohort: Path, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-o", trace, "-e", "trace=socket,socketpair,connect,bind,execve", "--"]
    program = f"""
from pathlib import Path
from lungstage.appliance.config.offline import without_requests
without_requests()  # as the command does
from lungstage.appliance.radiomics import parameters
from lungstage.training.long_runs import processes
from lungstage.training.measuring import measure
task = measure.Task(0, Path({str(cohort.parent / "a")!r}), "GTV-1", measure.Method.of(parameters.read("all")), None)
[(_, entry)] = processes.run(measure.measure_study, [task], workers=1)
assert entry.features is not None
"""
    subprocess.run([*strace, sys.executable, "-c", program], check=True)
    calls = re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE)
    assert calls.count("execve") >= 2  # this process, and the one that measures
    assert set(calls) == {"execve"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--scheduler", "tcp://127.0.0.1:9", "--workers", "2"), "give one"),
        (("--scheduler", "127.0.0.1:9"), "tcp"),
        (("-o", "{cohort}"), "--out"),
        (("-o", "features.toml"), ".csv"),
    ],
)
def test_options_that_contradict_each_other(options: tuple[str, ...], told: str, cohort: Path, run: Command) -> None:
    listed = cohort.read_bytes()
    done = run(cohort, cohort.with_name("features.csv"), *(option.format(cohort=cohort) for option in options))
    assert done.status == 2
    assert told in done.stderr
    assert cohort.read_bytes() == listed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("patient_id,path,stage\nA,a,early\n", "roi"),
        ("patient_id,path,roi\nA,a,\n", "Add the column stage"),
        ("patient_id,path,roi,stage\nA,a,,late\n", "late"),
        ("patient_id,path,roi,age,stage\nA,a,,61,\n", "stage, line 2"),
        ("patient_id,path,roi,stage\nA,,,early\n", "path, line 2"),
        ("patient_id,path,roi,stage\nA,a,,early\nA,b,,early\n", "same patient_id"),
        ("patient_id,path,roi,stage,original_shape_MeshVolume\nA,a,,early,1\n", "original_shape_MeshVolume"),
    ],
)
def test_a_list_that_is_not_one(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(Refused, match=told):
        read_subjects(tmp_path / "cohort.csv")
