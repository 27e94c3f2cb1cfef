"""What the page says of the other libraries."""

from __future__ import annotations

from tests.long.benchmarks.page import duration, table, times
from tests.long.benchmarks.peers.inside import title
from tests.long.benchmarks.peers.measure import OURS, Comparison, Row

# Defined alike by all; the mean is left out, since that of noise is near 0.
ALIKE = (
    "original_firstorder_10Percentile", "original_shape_Sphericity", "original_glcm_Contrast",
    "original_glszm_SizeZoneNonUniformity", "original_gldm_DependenceEntropy",
)  # fmt: skip


def _cell(row: Row, name: str) -> str:
    if name in row.errors:
        return "failed"
    return f"{duration(row.median(name))} ({times(row.ratio(name))})"


def _differences(rows: list[Row], name: str) -> list[str]:
    """The furthest from 0 of all rows, by feature; a dash where the library has none."""
    cells = []
    for feature in ALIKE:
        every = [row.difference(name, feature) for row in rows if name in row.features]
        found = [difference for difference in every if difference is not None]
        cells.append(f"{max(found, key=abs):+.1e}" if found else "–")
    return cells


def _first_start(comparison: Comparison) -> list[str]:
    if not comparison.first_start:
        return []
    cold, warm = comparison.first_start.values()
    return [
        f"From the start of its process to its first features pictologics takes {cold:.0f} s while nothing is compiled "
        f"yet, and {warm:.1f} s from then on. The first is measured once for an environment; ours are compiled when "
        "they are installed."
    ]


def section(comparison: Comparison) -> str:
    """Render times, ratios, differences and what could not be measured."""
    rows, libraries = comparison.rows, comparison.libraries
    known = [
        [
            title(name)[0],
            f"{about['packages'][name]}, Python {about['python']}, NumPy {about['packages']['numpy']}",
            title(name)[1],
        ]
        for name, about in libraries.items()
    ]
    parts = [
        "By turns in one run, on one core, on the same arrays, after a call that does not count; in brackets how many "
        "times as long as ours. The others are handed the box of the ROI, which is the best case for them; ours starts "
        "from the reference volume as always. Each resamples by itself, and is told the lowest edge or the number of "
        "the grey levels that ours found.",
        table(["library", "version", "what it computes"], known),
        table(
            ["grid", "ROI", "ours", *(title(name)[0] for name in libraries)],
            [
                [row.grid, row.roi, duration(row.median(OURS)), *(_cell(row, name) for name in libraries)]
                for row in rows
            ],
        ),
        *(f"{title(name)[0]} is not measured here: {reason}." for name, reason in comparison.absent.items()),
        *(
            f"{title(name)[0]} failed on {row.roi}, {row.grid}: `{error}`"
            for row in rows
            for name, error in row.errors.items()
        ),
        *_first_start(comparison),
        "That the same region was measured shows in features that all define alike: relative differences from ours, "
        "the furthest of the three sizes. At 1 mm each library lays its own grid, most of them keep fractions of HU, "
        "and MIRP interpolates the mask; so only the native grid can agree.",
        table(
            ["grid", "library", *(feature.removeprefix("original_") for feature in ALIKE)],
            [
                [grid, title(library)[0], *_differences([row for row in rows if row.grid == grid], library)]
                for grid in dict.fromkeys(row.grid for row in rows)
                for library in libraries
            ],
        ),
    ]
    return "\n\n".join(part for part in parts if part)
