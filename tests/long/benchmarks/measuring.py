"""Check that a cohort's table always has the same bytes, even after a process is killed: ``make measure-acceptance``.

Measures with local processes and with a Dask cluster on loopback. For both, one run has a worker killed in the middle,
and in another the command itself is killed and started again. Every run is the real command. Ends with status 1 if a
table differs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.support.cohorts import command, dask_cluster, wait_for_lines, write_cohort, written

STUDIES, FAULTS = 200, 5
KILL_AT = STUDIES // 3  # finished studies

Victims = Callable[[int], list[psutil.Process]]
"""The processes to kill, given the process ID of the command."""


def run(cohort: Path, out: Path, where: list[str], victims: Victims | None = None) -> tuple[float, str]:
    """Measure, and kill `victims` meanwhile; if this ends the command, start it again."""
    start, journal = time.perf_counter(), out.with_suffix(".journal.jsonl")
    line = command(cohort, out, *where)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if victims is not None:
            wait_for_lines(journal, KILL_AT, process)
            doomed = victims(process.pid)
            for one in doomed:
                one.kill()
            at = journal.read_bytes().count(b"\n")
            if not doomed or at >= STUDIES:
                raise RuntimeError("nothing was killed in the middle")
        said, complaints = process.communicate()
    if victims is not None and process.returncode < 0:  # the command itself was killed
        if out.exists():
            raise RuntimeError("a run that was killed left a table")
        again = subprocess.run(line, capture_output=True, text=True, check=True)
        said = again.stdout
        if f"{at} were read from" not in said and f"{at + 1} were read from" not in said:
            raise RuntimeError(f"{at} studies were done before the kill, but: {said}")
    elif process.returncode:
        raise RuntimeError(complaints)
    return time.perf_counter() - start, ", ".join(re.findall(r"(\d+ measured, \d+ refused|\d+ were read from)", said))


def main() -> None:
    """Print the table."""
    console = Console()
    table = Table("run", "seconds", "outcome", "files", title=f"{STUDIES} generated studies")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort = write_cohort(folder, STUDIES, FAULTS)
        local = ["--workers", "2"]
        whole: dict[str, bytes] = {}

        def row(label: str, where: list[str], victims: Victims | None = None) -> None:
            out = folder / f"run-{table.row_count}" / "features.csv"
            seconds, outcome = run(cohort, out, where, victims)
            files = written(out)
            whole.update({} if whole else files)
            same = files == whole
            table.add_row(label, f"{seconds:.1f}", outcome, "same bytes" if same else "DIFFERENT")
            if not same:
                console.print(table)
                sys.exit(1)

        row("2 local processes", local)
        row("1 local process", ["--workers", "1"])
        row("local, a worker killed", local, lambda command: psutil.Process(command).children()[:1])
        row("local, the command killed", local, lambda command: [psutil.Process(command)])
        with dask_cluster(folder) as (address, started):
            dask = ["--scheduler", address]
            row("Dask, 2 workers", dask)
            row("Dask, a worker killed", dask, lambda _: started[1].children(recursive=True))
            row("Dask, the command killed", dask, lambda command: [psutil.Process(command)])
        with dask_cluster(folder, workers=1, threads=4) as (address, _):
            row("Dask, 1 worker of 4 threads", ["--scheduler", address])
    console.print(table)


if __name__ == "__main__":
    main()
