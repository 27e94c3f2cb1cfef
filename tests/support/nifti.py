"""Generated NIfTI pairs on disk, and the features that stock PyRadiomics measures in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import featureextractor

from lungstage.appliance.contract.spec import ExtractionSpec

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def write_image(
    path: Path,
    array: npt.NDArray[Any],
    spacing: Sequence[float] = (0.75, 0.75, 2.5),
    origin: Sequence[float] = (-12.5, 20.0, 30.0),
    direction: Sequence[float] = AXIAL,
) -> Path:
    """Write (slices, rows, columns); spacing and origin (x, y, z) in LPS mm."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(step) for step in spacing])
    image.SetOrigin([float(place) for place in origin])
    image.SetDirection([float(part) for part in direction])
    sitk.WriteImage(image, str(path))
    return path


def write_pair(
    folder: Path, kind: str = "int16", *, seed: int = 0, label: int = 1, **geometry: Any
) -> tuple[Path, Path]:
    """Write an ellipsoid in lung with this pixel type; floating-point values are not whole numbers."""
    random = np.random.default_rng(seed)
    shape = (14, 18, 16)
    z, y, x = np.indices(shape)
    inside = ((z - 6.5) / 4.5) ** 2 + ((y - 8) / 6) ** 2 + ((x - 8) / 5) ** 2 < 1
    values = np.where(inside, random.normal(-20, 60, shape), random.normal(-820, 40, shape))
    if kind.startswith("u"):
        values = (values + 1024) / (1 if kind == "uint16" else 8)
    values = values if kind.startswith("float") else np.rint(values)
    folder.mkdir(parents=True, exist_ok=True)
    image = write_image(folder / "image.nii.gz", values.astype(kind), **geometry)
    return image, write_image(folder / "mask.nii.gz", inside.astype(np.uint8) * np.uint8(label), **geometry)


def stock(image: Path, mask: Path, spec: ExtractionSpec, label: int = 1) -> dict[str, float]:
    """Measure a pair by PyRadiomics itself, from its files."""
    extractor = featureextractor.RadiomicsFeatureExtractor(**dict(spec.settings), additionalInfo=False)
    measured = extractor.execute(str(image), str(mask), label=label)
    return {name: float(measured[name]) for name in spec.features}
