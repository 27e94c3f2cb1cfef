"""How long extraction takes next to others in the same run, and whether the numbers are the same: ``make bench``.

Ratios of medians on one core; written to ``docs/benchmarks.md`` with a figure beside it.
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
    """What was measured, on what, and how quietly: `share` is that of its core which this process had."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyradiomics", "SimpleITK", "numpy"))
    return (
        f"`make bench` writes this page. Milliseconds of processor time, medians, one core of {processor()}; Python "
        f"{platform.python_version()}, {packages}. The CT is 512 × 512 × 80 at 0.8 × 0.8 × 2.5 mm, the tumour a rough "
        "ball of noise, which is the worst case for branches; real ones follow below. "
        f"Against PyRadiomics this process had its core for {share:.0%} of the time"
        + (
            "."
            if share >= QUIET
            else ": **other work ran beside it**, which processor time leaves out but caches feel."
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
    """Render the patients whose files are there, and name the others."""
    rows = list(stock.measure(patients.patients(), FAST_GRIDS, STATED))
    parts = [
        "Read by the appliance's own steps. *Whole volume* is all there is of the series, columns × rows × slices in "
        "the table, which is less than a clinical CT. Differences are against stock PyRadiomics on the same reference "
        "volume. The crop of a resampled region has a grid of its own here, as no period fits: only its time counts."
    ]
    if rows:
        parts.append(against_stock(rows).replace("of the three sizes", "of all patients"))
    if patients.absent():
        parts.append(
            f"Not measured here, as the files are not on this machine: {', '.join(patients.absent())}. "
            "`LUNGSTAGE_DATA` names their folder."
        )
    return "\n\n".join(parts)


def growing() -> str:
    """Render how time and memory grow, and draw it."""
    voxels, slices = growth.by_voxels(), growth.by_slices()
    growth.draw(voxels, slices, FIGURE)
    return "\n\n".join(
        [
            "Balls from a hundred voxels to twelve million, each in a fresh process and a volume that just holds it; "
            "and the ROI of 40 mm in a CT of more and more slices, all of which are handed over. What rises there is "
            "one look at every voxel of the mask: the appliance hands over the ROI's slices alone.",
            f"![Time and memory over the voxels of the ROI, and time over slices]({FIGURE.name})",
            growth.tables(voxels, slices),
        ]
    )


def page(fifteen: list[stock.Row], bundle: list[stock.Row], share: float, comparison: Comparison) -> str:
    """Render the page."""
    sections = {
        "Targets": targets(fifteen, comparison),
        "The stated fifteen against PyRadiomics": "*Stock, whole volume* is PyRadiomics' extractor as it comes, run "
        "once. *Stock, cropped* is the same without its diagnostics (`additionalInfo` off), on a crop that keeps the "
        "resampling grid where it is. *Ours* starts from the reference volume: the ROI's slices, uncropped, and the "
        "interpolator's margin. Differences are against stock PyRadiomics on that same volume: a crop's origin is "
        "rounded otherwise, and as ITK cuts interpolated HU towards zero, that alone can move a voxel by 1 HU.\n\n"
        + against_stock(fifteen)
        + "\n\nA B-spline's coefficients depend on every voxel of a line, but on those 40 voxels away no longer in any "
        "digit: so the ROI's box and that margin are filtered, where ITK filters the whole volume that it is handed. "
        "The table of the mesh's triangles is made once for a process, in about ten milliseconds, which the medians do "
        "not show.",
        "Against other libraries": others.section(comparison),
        "Real tumours": real_tumours(),
        "Where the time goes": "The kernels of one extraction of the stated fifteen, and what is left for Python; "
        "milliseconds, medians. The clock around each kernel takes a little time itself.\n\n" + steps.section(),
        "Memory": "By how many MiB resident memory rises at most in one extraction, above what stands there before it: "
        "the libraries, loaded by an extraction of a small ROI, and the volume. Each in a fresh process; in brackets "
        "against ours.\n\n" + growth.memory(),
        "Growth": growing(),
        "The shipped bundle's fifteen": against_stock(bundle),
    }
    text = ["# Benchmarks", summary(fifteen, comparison), introduction(share)]
    text += [f"## {title}\n\n{content}" for title, content in sections.items()]
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Measure, print the report, and write it where the documentation has it."""
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
