"""Write the page's section about the other libraries."""

from __future__ import annotations

from tests.long.benchmarks.page import duration, table, times
from tests.long.benchmarks.peers.inside import title
from tests.long.benchmarks.peers.measure import OURS, Comparison, Row

# Features with the same definition in all libraries. The mean is left out, because it is near 0 for noise.
ALIKE = (
    "original_firstorder_10Percentile", "original_shape_Sphericity", "original_glcm_Contrast",
    "original_glszm_SizeZoneNonUniformity", "original_gldm_DependenceEntropy",
)  # fmt: skip


def _cell(row: Row, name: str) -> str:
    if name in row.errors:
        return "failed"
    return f"{duration(row.median(name))} ({times(row.ratio(name))})"


def _differences(rows: list[Row], name: str) -> list[str]:
    """Return the difference furthest from 0 of all rows, by feature; a dash if the library has no such feature."""
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
        f"From the start of its process to its first features, pictologics takes {cold:.0f} s before anything is "
        f"compiled, and {warm:.1f} s afterwards. The first time is measured once per environment. Lungstage's kernels "
        "are compiled when it is installed."
    ]


def section(comparison: Comparison) -> str:
    """Render times, ratios, differences and missing measurements."""
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
        "Measured alternately in one run, on one core, on the same arrays, after one untimed call. In brackets is the "
        "ratio to ours. The others get the box of the ROI, which is the best case for them; lungstage starts from the "
        "reference volume as always. Each library resamples by itself. It gets the lowest edge or the number of the "
        "grey levels that lungstage found.",
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
        "Features with the same definition everywhere show that the same region was measured: relative differences "
        "from ours, the largest of the three sizes. At 1 mm each library places its own grid, most of them keep "
        "fractions of HU, and MIRP interpolates the mask. So only values on the native grid can agree.",
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
