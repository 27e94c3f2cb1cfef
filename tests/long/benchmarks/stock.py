"""Compare lungstage with stock PyRadiomics: times, and the relative difference of every feature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.radiomics import grid
from lungstage.appliance.radiomics.extract import extract, place_on_grid
from tests.long.benchmarks.page import duration, table, times
from tests.long.benchmarks.subjects import GRIDS, Subject, cropped, median_milliseconds, once, stock

HEADINGS = (
    "grid", "ROI", "voxels", "stock, whole volume", "stock, cropped", "ours", "of this, resampling and cropping",
    "whole / ours", "cropped / ours", "largest relative difference", "ours, all 106",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table: milliseconds, and the relative difference of each feature."""

    grid: str
    roi: str
    voxels: int
    whole: float
    crop: float
    ours: float
    placing: float
    every: float
    differences: Mapping[str, float]

    @property
    def against_whole(self) -> float:
        """Time of stock PyRadiomics on the whole volume, divided by ours."""
        return self.whole / self.ours

    @property
    def against_crop(self) -> float:
        """Time of stock PyRadiomics on the crop, divided by ours."""
        return self.crop / self.ours

    @property
    def cells(self) -> list[str]:
        """Cells of the table."""
        return [
            self.grid, self.roi, f"{self.voxels:,}", duration(self.whole), duration(self.crop), duration(self.ours),
            duration(self.placing), times(self.against_whole), times(self.against_crop),
            f"{max(self.differences.values()):.0e}", duration(self.every),
        ]  # fmt: skip


def compare(subject: Subject, grid_name: str, features: tuple[str, ...]) -> Row:
    """Time one region on one grid."""
    settings = GRIDS[grid_name]
    spec, every = (ExtractionSpec(names, settings) for names in (features, ALL_FEATURES))
    volume, mask = subject.reference(spec)
    whole, slab = grid.to_images(*subject.whole), grid.to_images(volume, mask)
    crop = grid.to_images(*cropped(volume, mask, spec.margin_slices, subject.period))
    bare, full = stock(features, settings, info=False), stock(features, settings, info=True)
    theirs, ours = bare.execute(*slab), extract(volume, mask, spec).as_dict()
    differences = {
        name: abs(float(theirs[name]) - value) / abs(value) for name, value in ours.items() if value is not None
    }
    return Row(
        grid_name, subject.name, int(mask.sum()),
        once(lambda: full.execute(*whole)),
        median_milliseconds(lambda: bare.execute(*crop)),
        median_milliseconds(lambda: extract(volume, mask, spec)),
        median_milliseconds(lambda: place_on_grid(volume, mask, spec)),
        median_milliseconds(lambda: extract(volume, mask, every)),
        differences,
    )  # fmt: skip


def measure(subjects: Iterable[Subject], grids: Sequence[str], features: tuple[str, ...]) -> Iterator[Row]:
    """Time every region on every grid."""
    by_subject = [[compare(subject, name, features) for name in grids] for subject in subjects]
    for rows in zip(*by_subject, strict=True):
        yield from rows


def equality(rows: Sequence[Row]) -> str:
    """Render the relative difference of each feature, the largest of all regions."""
    grids = list(dict.fromkeys(row.grid for row in rows))
    largest = [
        [feature.removeprefix("original_")]
        + [f"{max(row.differences[feature] for row in rows if row.grid == name):.1e}" for name in grids]
        for feature in rows[0].differences
    ]
    return table(["feature", *grids], largest)
