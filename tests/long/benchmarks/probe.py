"""Measure time and rise of memory of one extraction in a separate process. Started by :mod:`growth`."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics import grid
from lungstage.appliance.radiomics.extract import extract
from tests.conftest import ROOT
from tests.long.benchmarks.bare import STATED, milliseconds
from tests.long.benchmarks.subjects import (
    GRIDS,
    PERIOD,
    SPACING,
    Placed,
    cropped,
    noise,
    one_core,
    rough_ball,
    slices_of,
    stock,
)

Engine = Literal["ours", "stock, cropped", "stock, whole volume"]
SMALL = 10.0  # mm; measured first, so that every library is loaded


@dataclass(frozen=True)
class Probe:
    """What to measure: an engine, a grid and a ball, in the whole CT or in the smallest volume that contains it."""

    engine: Engine
    grid: str
    millimetres: float
    tight: bool


@dataclass(frozen=True)
class Finding:
    """Voxels of the ROI, median milliseconds, and the rise of resident memory in MiB since before the first call."""

    voxels: int
    milliseconds: float
    peak: float


def ask(probe: Probe) -> Finding:
    """Run a probe in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.long.benchmarks.probe", json.dumps(dataclasses.asdict(probe))],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return Finding(**json.loads(done.stdout))


def _resident(which: Literal["VmRSS", "VmHWM"]) -> float:
    """Return the resident memory in MiB, now or at its highest."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def peak_of(work: Callable[[], object]) -> float:
    """Return the largest rise of resident memory during a call, in MiB.

    It uses the Linux kernel's high-water mark, like ``ru_maxrss``. The mark is reset first, because making the arrays
    also needed memory.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # otherwise the call would reuse freed memory, which counts as present already
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    work()
    return _resident("VmHWM") - before


def _placed(probe: Probe, margin: int) -> Placed:
    if not probe.tight:
        volume = noise()
        return volume, rough_ball(volume, probe.millimetres)
    # The surface is uneven by a tenth of the radius. The margin and one more voxel are added on either side.
    shape = tuple(math.ceil(1.1 * probe.millimetres / step) + 2 * (margin + 1) for step in SPACING)
    volume = noise(shape)
    return volume, rough_ball(volume, probe.millimetres)


def _work(probe: Probe) -> tuple[Callable[[], object], int]:
    settings = GRIDS[probe.grid]
    spec = ExtractionSpec(STATED, settings)
    margin = spec.margin_slices
    volume, mask = _placed(probe, margin)
    voxels = int(mask.sum())
    if probe.engine == "ours":
        part = slices_of(volume, mask, margin)
        return lambda: extract(*part, spec), voxels
    whole = probe.engine == "stock, whole volume"
    placed = (volume, mask) if whole else cropped(*slices_of(volume, mask, margin), margin, PERIOD)
    images, extractor = grid.to_images(*placed), stock(STATED, settings, info=whole)
    return lambda: extractor.execute(*images), voxels


def main() -> None:
    """Answer the probe on the command line, as JSON."""
    one_core()
    probe = Probe(**json.loads(sys.argv[1]))
    warm_up, _ = _work(dataclasses.replace(probe, millimetres=SMALL, tight=True))
    warm_up()
    work, voxels = _work(probe)
    peak = peak_of(work)
    print(json.dumps({"voxels": voxels, "milliseconds": statistics.median(milliseconds(work, fewest=1)), "peak": peak}))


if __name__ == "__main__":
    main()
