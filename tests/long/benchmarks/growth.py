"""Measure how lungstage's time and memory grow with the ROI and the volume, compared with PyRadiomics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import highdicom as hd
import numpy as np
from matplotlib.ticker import EngFormatter, StrMethodFormatter

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics.extract import extract
from lungstage.training.reporting.figures.canvas import BLUE, GREY, VERMILLION, canvas
from tests.long.benchmarks.bare import STATED
from tests.long.benchmarks.page import duration, table, times
from tests.long.benchmarks.probe import Engine, Finding, Probe, ask
from tests.long.benchmarks.subjects import (
    DIAMETERS,
    FAST_GRIDS,
    GRIDS,
    SHAPE,
    SPACING,
    median_milliseconds,
    noise,
    rough_ball,
)

VOXELS = (100, 1000, 10_000, 100_000, 1_000_000, 3_000_000, 12_000_000)
BOUND = 1024  # MiB above the baseline, for the largest ROI
SLICES = (80, 200, 500)

Curve = list[Finding]


def memory() -> str:
    """Render the rise of resident memory of lungstage and stock PyRadiomics, each in a fresh process."""
    engines = get_args(Engine)
    rows = []
    for name in FAST_GRIDS:
        for diameter in DIAMETERS:
            peaks = [ask(Probe(engine, name, diameter, tight=False)).peak for engine in engines]
            shares = [f"{peak:.1f}" + (f" ({times(peak / peaks[0])})" if n else "") for n, peak in enumerate(peaks)]
            rows.append([name, f"{diameter} mm", *shares])
    return table(["grid", "ROI", *engines], rows)


def by_voxels() -> Mapping[str, Curve]:
    """Return lungstage's time and memory over the size of the ROI, by grid."""
    voxel = float(np.prod(SPACING))
    # The uneven surface (a tenth of the radius) adds less than one per cent to the ball's volume.
    diameters = [2 * (3 * count * voxel / (4 * np.pi)) ** (1 / 3) for count in VOXELS]
    return {name: [ask(Probe("ours", name, diameter, tight=True)) for diameter in diameters] for name in FAST_GRIDS}


def by_slices() -> Mapping[str, list[float]]:
    """Return lungstage's time over the slices of the given volume, with the same ROI of 40 mm, by grid."""
    hu, affine = noise().array, noise().affine
    mask = rough_ball(noise(), 40)
    curves: dict[str, list[float]] = {name: [] for name in FAST_GRIDS}
    for count in SLICES:
        longer = np.concatenate([hu] * -(-count // SHAPE[0]))[:count]
        volume = hd.Volume(longer, affine, coordinate_system="PATIENT")
        inside = np.full(
            longer.shape, fill_value=False
        )  # full() writes the memory, like a real mask; zeros() would not
        inside[: SHAPE[0]] = mask
        for name, curve in curves.items():
            spec = ExtractionSpec(STATED, GRIDS[name])
            curve.append(median_milliseconds(lambda v=volume, m=inside, s=spec: extract(v, m, s)))  # type: ignore[misc]
    return curves


def draw(voxels: Mapping[str, Curve], slices: Mapping[str, list[float]], path: Path) -> None:
    """Draw the three curves as SVG."""
    colours = dict(zip(FAST_GRIDS, (BLUE, VERMILLION), strict=True))
    with canvas(2.9) as figure:
        time, memory, volume = figure.subplots(1, 3)
        for name, curve in voxels.items():
            style = {"color": colours[name], "marker": "o", "markersize": 3.5}
            counts = [finding.voxels for finding in curve]
            time.loglog(counts, [finding.milliseconds for finding in curve], label=name, **style)
            memory.loglog(counts, [finding.peak for finding in curve], **style)
            volume.plot(SLICES, slices[name], **style)
        largest = voxels[FAST_GRIDS[0]][-1]
        line = np.array([100, largest.voxels])
        time.loglog(
            line, line * largest.milliseconds / largest.voxels, color=GREY, linestyle=":", label="in proportion"
        )
        time.legend()
        time.set(title="Time", xlabel="voxels of the ROI", ylabel="ms")
        memory.set(title="Rise of memory", xlabel="voxels of the ROI", ylabel="MiB")
        volume.set(title="ROI of 40 mm, longer CT", xlabel="slices given", ylabel="ms", xlim=(0, None), ylim=(0, None))
        for axes in (time, memory, volume):
            axes.grid(visible=True)
        for axes in (time, memory):
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.tick_params(which="minor", length=0)
        figure.savefig(path, metadata={"Date": None})


def tables(voxels: Mapping[str, Curve], slices: Mapping[str, list[float]]) -> str:
    """Render the tables of :func:`draw`, and whether the largest ROI stays within its bound."""
    headings = [f"{name}, {what}" for name in voxels for what in ("ms", "ns a voxel", "MiB")]
    rows = []
    for findings in zip(*voxels.values(), strict=True):
        cells = [f"{findings[0].voxels:,}"]
        for one in findings:
            cells += [duration(one.milliseconds), f"{1e6 * one.milliseconds / one.voxels:.0f}", f"{one.peak:.1f}"]
        rows.append(cells)
    highest = max(curve[-1].peak for curve in voxels.values())
    met = "within" if highest <= BOUND else "**beyond**"
    count = next(iter(voxels.values()))[-1].voxels
    flat = [[str(n), *(duration(curve[k]) for curve in slices.values())] for k, n in enumerate(SLICES)]
    return "\n\n".join(
        [
            table(["voxels of the ROI", *headings], rows),
            f"The ROI of {count:,} voxels raises memory by at most {highest:.0f} MiB, {met} the bound of {BOUND} MiB.",
            table(["given slices", *(f"{name}, ms" for name in slices)], flat),
        ]
    )
