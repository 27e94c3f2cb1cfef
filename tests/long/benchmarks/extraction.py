"""Compare the time of extraction with other libraries in the same run, and compare the numbers: ``make bench``.

Ratios of medians on one core; written to ``docs/benchmarks.md`` with a figure.
"""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version

from tests.conftest import ROOT
from tests.long.benchmarks import growth, patients, steps, stock
from tests.long.benchmarks.bare import STATED
from tests.long.benchmarks.page import processor, table
from tests.long.benchmarks.peers import section as others
from tests.long.benchmarks.peers.measure import Comparison, compare
from tests.long.benchmarks.subjects import FAST_GRIDS, GRIDS, bundle_features, one_core, tumours
from tests.long.benchmarks.targets import summary, targets

REPORT = ROOT / "docs" / "benchmarks.md"
FIGURE = ROOT / "docs" / "benchmarks-growth.svg"
QUIET = 0.95


def introduction(share: float) -> str:
    """Describe measurement, machine and load: `share` is the share of its core that this process had."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyradiomics", "SimpleITK", "numpy"))
    return (
        f"`make bench` writes this page. Milliseconds of processor time, medians, one core of {processor()}; Python "
        f"{platform.python_version()}, {packages}. The CT is 512 × 512 × 80 at 0.8 × 0.8 × 2.5 mm. The tumour is a "
        "rough ball of noise, the worst case for branches; real tumours are below. "
        f"During the comparison with PyRadiomics this process had its core for {share:.0%} of the time"
        + (
            "."
            if share >= QUIET
            else ": **other work ran at the same time**. Processor time does not include it, but it affects caches."
        )
    )


def against_stock(rows: list[stock.Row]) -> str:
    """Render times and equality."""
    return "\n\n".join(
        [
            table(stock.HEADINGS, [row.cells for row in rows]),
            "Relative difference by feature, the largest of the three sizes:",
            stock.equality(rows),
        ]
    )


def real_tumours() -> str:
    """Render the patients with available files, and name the others."""
    rows = list(stock.measure(patients.patients(), FAST_GRIDS, STATED))
    parts = [
        "Read with the appliance's own steps. *Whole volume* is the whole available series, columns × rows × slices in "
        "the table; it is smaller than a clinical CT. Differences are from stock PyRadiomics on the same reference "
        "volume. Here the crop of a resampled region has another grid, because no period fits. Only its time is used."
    ]
    if rows:
        parts.append(against_stock(rows).replace("of the three sizes", "of all patients"))
    if patients.absent():
        parts.append(
            f"Not measured, because the files are not on this machine: {', '.join(patients.absent())}. "
            "Set `LUNGSTAGE_DATA` to their folder."
        )
    return "\n\n".join(parts)


def growing() -> str:
    """Render and draw the growth of time and memory."""
    voxels, slices = growth.by_voxels(), growth.by_slices()
    growth.draw(voxels, slices, FIGURE)
    return "\n\n".join(
        [
            "Balls from a hundred voxels to twelve million, each in a fresh process and in the smallest volume that "
            "contains it. And the ROI of 40 mm in CTs with more and more slices, where all slices are passed. There "
            "the time grows because every voxel of the mask is read once. The appliance itself passes only the ROI's "
            "slices.",
            f"![Time and memory over the voxels of the ROI, and time over slices]({FIGURE.name})",
            growth.tables(voxels, slices),
        ]
    )


def page(fifteen: list[stock.Row], bundle: list[stock.Row], share: float, comparison: Comparison) -> str:
    """Render the page."""
    sections = {
        "Targets": targets(fifteen, comparison),
        "The stated fifteen against PyRadiomics": "*Stock, whole volume* is PyRadiomics' unchanged extractor, run "
        "once. *Stock, cropped* is the same without its diagnostics (`additionalInfo` off), on a crop that does not "
        "change the resampling grid. *Ours* is lungstage. It starts from the reference volume: the ROI's slices, "
        "uncropped, and the interpolator's margin. Differences are from stock PyRadiomics on the same volume. A crop's "
        "origin is rounded differently. ITK cuts interpolated HU towards zero, so this alone can change a voxel by 1 "
        "HU.\n\n"
        + against_stock(fifteen)
        + "\n\nA B-spline's coefficients depend on every voxel of a line, but voxels 40 or more away change no digit. "
        "So lungstage filters the ROI's box and this margin, while ITK filters the whole given volume. The table of "
        "the mesh's triangles is made once per process, in about ten milliseconds. The medians do not include this.",
        "Against other libraries": others.section(comparison),
        "Real tumours": real_tumours(),
        "Time by step": "The kernels of one extraction of the stated fifteen, and the rest in Python; milliseconds, "
        "medians. Measuring each kernel takes a little time itself.\n\n" + steps.section(),
        "Memory": "Largest rise of resident memory in one extraction, in MiB. The memory before it is not included: "
        "the libraries, loaded by an extraction of a small ROI, and the volume. Each is a fresh process; in brackets "
        "the ratio to ours.\n\n" + growth.memory(),
        "Growth": growing(),
        "The shipped bundle's fifteen": against_stock(bundle),
    }
    text = ["# Benchmarks", summary(fifteen, comparison), introduction(share)]
    text += [f"## {title}\n\n{content}" for title, content in sections.items()]
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Measure, print the report, and write it into the documentation."""
    os.chdir(ROOT)
    one_core()
    start = time.perf_counter(), time.process_time()
    fifteen, bundle = (list(stock.measure(tumours(), [*GRIDS], names)) for names in (STATED, bundle_features()))
    share = (time.process_time() - start[1]) / (time.perf_counter() - start[0])
    report = page(fifteen, bundle, share, compare())
    print(report)
    REPORT.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
