"""The speed targets, and whether the measurements reach them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.long.benchmarks.page import duration, table, times
from tests.long.benchmarks.peers.inside import title
from tests.long.benchmarks.peers.measure import OURS, Comparison
from tests.long.benchmarks.stock import Row
from tests.long.benchmarks.subjects import DIAMETERS, FAST_GRIDS, GRIDS

CROPPED, WHOLE, TOUGHEST = "PyRadiomics, cropped", "PyRadiomics, whole volume", "pictologics"
BARS = {CROPPED: (5.0, 14.0, 40.0), WHOLE: (500.0, 200.0, 80.0), TOUGHEST: (1.0, 1.0, 1.0)}
TARGET_GRIDS = {CROPPED: tuple(GRIDS), WHOLE: FAST_GRIDS, TOUGHEST: FAST_GRIDS}
AIM = 1.5  # against the fastest other library


@dataclass(frozen=True)
class Target:
    """The target and the measured ratio of another library's time to ours; None if it was not measured."""

    against: str
    grid: str
    roi: str
    bar: float
    ratio: float | None

    @property
    def met(self) -> bool:
        """Whether it was measured and met."""
        return self.ratio is not None and self.ratio >= self.bar

    @property
    def verdict(self) -> str:
        """Text for the table."""
        if self.ratio is None:
            return "not measured"
        written = times(self.ratio)
        if not self.met:
            if written == times(self.bar):  # after rounding, it would look as if it were met
                written = f"{self.ratio:.4g}×"
            return f"{written}, **not met**"
        if self.against != TOUGHEST:
            return f"{written}, met"
        return f"{written}, met" + (", aim met" if self.ratio >= AIM else ", aim not met")


def every(fifteen: Sequence[Row], comparison: Comparison) -> Iterator[Target]:
    """Yield every target with its measurement."""
    for against, bars in BARS.items():
        for grid in TARGET_GRIDS[against]:
            for diameter, bar in zip(DIAMETERS, bars, strict=True):
                roi = f"{diameter} mm"
                (row,) = (row for row in fifteen if (row.grid, row.roi) == (grid, roi))
                if against == TOUGHEST:
                    (other,) = (row for row in comparison.rows if (row.grid, row.roi) == (grid, roi))
                    ratio = other.ratio(TOUGHEST) if TOUGHEST in other.times else None
                else:
                    ratio = row.against_crop if against == CROPPED else row.against_whole
                yield Target(against, grid, roi, bar, ratio)


def targets(fifteen: Sequence[Row], comparison: Comparison) -> str:
    """Render a row for each comparison and grid."""
    found, rows = list(every(fifteen, comparison)), []
    for against, bars in BARS.items():
        asked = "at least " + " / ".join(f"{bar:g}" for bar in dict.fromkeys(bars)) + "×"
        asked += f", aim {AIM:g}×" if against == TOUGHEST else ""
        for grid in TARGET_GRIDS[against]:
            cells = [target.verdict for target in found if (target.against, target.grid) == (against, grid)]
            rows.append([against, asked, grid, *cells])
    return (
        "Time of the other libraries for the stated fifteen, divided by ours, and the targets at "
        f"{' / '.join(map(str, DIAMETERS))} mm.\n\n"
        + table(["against", "target", "grid", *(f"{n} mm" for n in DIAMETERS)], rows)
    )


def _span(ratios: Sequence[float]) -> str:
    low, high = (times(pick(ratios)).removesuffix("×") for pick in (min, max))
    return f"{low} to {high}"


def summary(fifteen: Sequence[Row], comparison: Comparison) -> str:
    """Write the important ratios in one paragraph."""
    native, linear = (
        " / ".join(duration(row.median(OURS)) for row in comparison.rows if row.grid == grid) for grid in FAST_GRIDS
    )
    fast = [row for row in fifteen if row.grid in FAST_GRIDS]
    others = ", ".join(
        f"{title(name)[0]} {_span([row.ratio(name) for row in comparison.rows if name in row.times])}"
        for name in comparison.libraries
        if any(name in row.times for row in comparison.rows)
    )
    found = list(every(fifteen, comparison))
    met = sum(target.met for target in found)
    missed = "; ".join(f"{one.against} on {one.roi}, {one.grid}: {one.verdict}" for one in found if not one.met)
    return (
        f"Fifteen features of a tumour of {' / '.join(map(str, DIAMETERS))} mm take {native} ms at the CT's own voxels "
        f"and {linear} ms on a 1 mm grid (linear). They are equal to PyRadiomics' own to a relative "
        f"{max(max(row.differences.values()) for row in fifteen):.0e}. On one core and in the same run, stock "
        f"PyRadiomics takes {_span([row.against_whole for row in fast])} times as long, and "
        f"{_span([row.against_crop for row in fast])} times as long if the volume is cropped for it"
        + (f". Other libraries on the cropped volume, in multiples of our time: {others}" if others else "")
        + f". {met} of the {len(found)} speed targets are met"
        + (f". Not met: {missed}." if missed else ".")
    )
