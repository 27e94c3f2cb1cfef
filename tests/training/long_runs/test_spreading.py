"""Work on several processes and on a Dask cluster: if one dies, no work is lost and the right item is blamed."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lungstage.appliance.contract.errors import Unavailable
from lungstage.training.long_runs import cluster, processes
from tests.conftest import ROOT
from tests.support.cohorts import dask_cluster
from tests.training.long_runs.deadly import Deadly, babble, square

HARMLESS = range(8)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[psutil.Popen]]]:
    """A cluster that gives a task up after its second death, so that the tests are fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
        with dask_cluster(tmp_path_factory.mktemp("dask"), revive=True) as running:
            yield running


def test_a_deadly_item_is_blamed_and_no_other_is_touched(tmp_path: Path) -> None:
    recovers, deadly = Deadly(10, 2, tmp_path), Deadly(11, 99, tmp_path)
    items = [recovers, deadly, *(Deadly(number, 0, tmp_path) for number in HARMLESS)]
    answers = dict(processes.run(square, items, workers=2))
    assert answers == {item: None if item is deadly else item.number**2 for item in items}
    assert deadly.attempts() == processes.ATTEMPTS + 1
    assert {item.attempts() for item in items[2:]} == {1}


def test_a_neighbour_is_not_blamed_for_want_of_memory(tmp_path: Path) -> None:
    hungry = Deadly(10, processes.ATTEMPTS, tmp_path)  # succeeds when no other item runs
    items = [hungry, *(Deadly(number, 0, tmp_path) for number in HARMLESS)]
    answers = list(processes.run(square, items, workers=2))
    assert answers[-1] == (hungry, 100)
    assert len(answers) == len(items)


def test_processes_that_cannot_start_are_said_to_be_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(Unavailable, match="before they have started"):
        list(processes.run(square, [Deadly(1, 0, tmp_path)], workers=2))


@pytest.mark.parametrize("work", [square, babble])
def test_a_process_that_is_done_for_is_gone_before_its_item_is_judged(
    work: Callable[[Deadly], int], tmp_path: Path
) -> None:
    """If it is dead or writes invalid data: there is no zombie, and no old process runs beside the next attempt."""
    before, item = set(psutil.Process().children()), Deadly(11, 99, tmp_path)
    for judged, result in processes.run(work, [item], workers=1):
        assert (judged, result) == (item, None)
        assert set(psutil.Process().children()) <= before
    assert item.attempts() == processes.ATTEMPTS + 1


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    program = (
        "from tests.training.long_runs.deadly import nap\nfrom lungstage.training.long_runs import processes\n"
        "for _ in processes.run(nap, [0, 600, 600], workers=2): print('one', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"one\n"
        workers = psutil.Process(parent.pid).children()
        parent.kill()
    assert workers
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_dask_blames_the_deadly_item_alone(dask: tuple[str, list[psutil.Popen]], tmp_path: Path) -> None:
    deadly = Deadly(11, 99, tmp_path)
    items = [deadly, *(Deadly(number, 0, tmp_path) for number in range(20))]
    answers = dict(cluster.run(square, items, address=dask[0]))
    assert answers == {item: None if item is deadly else item.number**2 for item in items}


def test_dask_is_told_of_a_few_items_at_a_time(dask: tuple[str, list[psutil.Popen]], tmp_path: Path) -> None:
    taken: list[int] = []

    def items() -> Iterator[Deadly]:
        for number in range(40):
            taken.append(number)
            yield Deadly(number, 0, tmp_path)

    for done, _ in enumerate(cluster.run(square, items(), address=dask[0]), start=1):
        assert len(taken) - done <= 4  # two for each of the two threads
    assert len(taken) == 40


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        list(cluster.run(square, [Deadly(1, 0, tmp_path)], address="tcp://127.0.0.1:9"))
    assert time.monotonic() - start < 10


def test_a_cluster_without_workers_and_then_without_a_scheduler(tmp_path: Path) -> None:
    with dask_cluster(tmp_path, workers=0) as (address, started):
        with pytest.raises(Unavailable, match="no worker for 1 s"):
            list(cluster.run(square, [Deadly(1, 0, tmp_path)], address=address, no_worker_seconds=1))
        threading.Timer(1, started[0].kill).start()
        with pytest.raises(Unavailable, match="was lost"):
            list(cluster.run(square, [Deadly(1, 0, tmp_path)], address=address))


def test_a_cluster_that_has_no_lungstage(
    dask: tuple[str, list[psutil.Popen]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def work(item): return item\n")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").work
    with pytest.raises(Unavailable, match="cannot run lungstage"):
        list(cluster.run(work, [1, 2], address=dask[0]))
