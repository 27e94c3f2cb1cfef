"""How long the shipped bundle's fifteen features take, next to stock PyRadiomics in the same run: ``make bench``.

Ratios of medians on one core; the values are compared as well, for speed with other numbers would be worth nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from radiomics import featureextractor
from rich.console import Console
from rich.table import Table

from appliance.manifest import parse as parse_manifest
from appliance.radiomics import grid, parameters
from appliance.radiomics.extract import extract
from appliance.spec import ExtractionSpec
from tests.conftest import ROOT

BUNDLE = ROOT / "models" / "lung1-stage"
SHAPE, SPACING = (80, 512, 512), (1.5, 0.75, 0.75)
REPEATS = 3


def bundle_spec() -> ExtractionSpec:
    """The spec of the shipped bundle."""
    order = parse_manifest((BUNDLE / "manifest.json").read_bytes()).feature_names
    return parameters.parse((BUNDLE / "extraction.yaml").read_text(encoding="utf-8"), order=order)


def tumours() -> Iterator[tuple[str, hd.Volume, np.ndarray]]:
    """Rough balls of three sizes in a CT of 512 x 512 x 80."""
    random = np.random.default_rng(5)
    hu = random.integers(-150, 150, size=SHAPE).astype(np.int16)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING
    affine[3, 3] = 1
    volume = hd.Volume(hu, affine, coordinate_system="PATIENT")
    z, y, x = np.meshgrid(
        *((np.arange(n) - n / 2) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij", sparse=True
    )
    for millimetres in (10, 40, 90):
        radius = millimetres / 2 * (1 + 0.1 * np.sin(x / 3) * np.cos(y / 4))
        yield f"{millimetres} mm", volume, x * x + y * y + z * z <= radius * radius


def reference_volume(volume: hd.Volume, mask: np.ndarray, margin: int) -> tuple[hd.Volume, np.ndarray]:
    """The slices of the ROI and a margin, as the appliance reads them."""
    inside = np.flatnonzero(mask.any(axis=(1, 2)))
    kept = slice(max(0, inside[0] - margin), inside[-1] + margin + 1)
    return volume[kept], mask[kept]


def median_seconds(work: Callable[[], object]) -> float:
    """Median time of a few repetitions, after one that does not count."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    spec = bundle_spec()
    table = Table(
        "ROI", "voxels", "stock, whole volume", "stock, reference volume", "ours", "ratios", "largest difference",
        title="seconds for the shipped bundle's 15 features, one core",
    )  # fmt: skip
    with_file = featureextractor.RadiomicsFeatureExtractor(str(BUNDLE / "extraction.yaml"), additionalInfo=False)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    for name, volume, mask in tumours():
        part, part_mask = reference_volume(volume, mask, spec.margin_slices)
        whole_images, part_images = grid.to_images(volume, mask), grid.to_images(part, part_mask)
        theirs = with_file.execute(*part_images)
        ours = extract(part, part_mask, spec)
        difference = max(
            abs(float(theirs[feature]) - value) / abs(value)
            for feature, value in zip(ours.names, ours.values.tolist(), strict=True)
        )
        seconds = [
            median_seconds(lambda images=whole_images: with_file.execute(*images)),  # type: ignore[misc]
            median_seconds(lambda images=part_images: with_file.execute(*images)),  # type: ignore[misc]
            median_seconds(lambda p=part, m=part_mask: extract(p, m, spec)),  # type: ignore[misc]
        ]
        ratios = f"{seconds[0] / seconds[2]:.0f}x, {seconds[1] / seconds[2]:.1f}x"
        table.add_row(name, str(int(mask.sum())), *(f"{s:.3f}" for s in seconds), ratios, f"{difference:.0e}")
    Console().print(table)


if __name__ == "__main__":
    main()
