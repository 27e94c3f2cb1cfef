"""Measure the time of each kernel in one extraction, and the rest in Python."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics import _kernels
from lungstage.appliance.radiomics.extract import extract
from tests.long.benchmarks.bare import STATED
from tests.long.benchmarks.page import duration, table
from tests.long.benchmarks.subjects import GRIDS, Subject, tumours

REPEATS = 21
LEFT, TOTAL = "rest: plan, bins, formulas, arrays", "total"
WHAT = {
    "bounds": "box of the ROI",
    "resample_linear": "interpolation",
    "resample_bspline": "B-spline: filter and interpolation",
    "mesh_counts": "mesh",
    "diameters": "diameters",
    "histogram": "histogram of HU",
    "levels": "grey-level volume",
    "glcm": "GLCM",
    "gldm": "GLDM",
    "alike": "equal neighbours, for GLRLM and GLSZM",
    "glrlm": "GLRLM",
    "zones": "GLSZM",
}


class Timed:
    """Replaces the module of the kernels, and adds up the seconds of each kernel."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kernel = getattr(_kernels, name)

        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return kernel(*arguments)
            finally:
                self.seconds[name] += time.process_time() - start

        return timed


def steps(subject: Subject, spec: ExtractionSpec) -> dict[str, float]:
    """Return the median milliseconds of each kernel in the order of calls, of the rest, and of all."""
    volume, mask = subject.reference(spec)
    extract(volume, mask, spec)  # the first call makes tables that later calls reuse
    users = [
        m
        for name, m in sys.modules.items()
        if name.startswith("lungstage.appliance.radiomics.") and hasattr(m, "_kernels")
    ]
    runs: list[dict[str, float]] = []
    for _ in range(REPEATS):
        watch = Timed()
        with ExitStack() as stack:
            for module in users:
                stack.enter_context(mock.patch.object(module, "_kernels", watch))
            start = time.process_time()
            extract(volume, mask, spec)
            total = time.process_time() - start
        named = {WHAT.get(name, name): seconds for name, seconds in watch.seconds.items()}
        runs.append(named | {LEFT: total - sum(named.values()), TOTAL: total})
    return {step: 1000 * statistics.median(run[step] for run in runs) for step in runs[0]}


def section() -> str:
    """Render the table: a row for each step, a column for each region."""
    columns = {
        f"{name}, {subject.name}": steps(subject, ExtractionSpec(STATED, GRIDS[name]))
        for name in GRIDS
        for subject in tumours()
    }
    order = [*dict.fromkeys(step for column in reversed(columns.values()) for step in column)]
    rows = [
        [step, *(duration(column[step]) if step in column else "–" for column in columns.values())] for step in order
    ]
    return table(["step", *columns], rows)
