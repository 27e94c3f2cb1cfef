"""Reference volume, mask and spec in; the selected features out, through PyRadiomics' own feature classes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import firstorder, glcm, gldm, glrlm, glszm, imageoperations, ngtdm

from appliance.errors import ReasonCode, Refused
from appliance.radiomics import grid
from appliance.radiomics.mesh import MeshShape
from appliance.spec import FEATURE_NAMES_BY_CLASS, ExtractionSpec, FeatureVector

# A feature that fails is reported as missing, with the case; PyRadiomics' own log lines would only repeat it.
logging.getLogger("radiomics").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class _GreyLevels:
    """The ROI discretised once for all texture classes, as ``imageoperations.binImage`` does it."""

    matrix: npt.NDArray[np.int64]
    present: npt.NDArray[np.int64]

    @classmethod
    def of(cls, image: sitk.Image, label: sitk.Image, settings: dict[str, Any]) -> _GreyLevels:
        values = sitk.GetArrayViewFromImage(image)
        inside = sitk.GetArrayViewFromImage(label) == 1
        roi = values[inside]
        # The edges follow from the extremes alone, and PyRadiomics looks for those in a Python loop.
        edges = imageoperations.getBinEdges(np.array([roi.min(), roi.max()]), **settings)
        matrix = np.zeros(values.shape, dtype="int")
        matrix[inside] = np.digitize(roi, edges)
        return cls(matrix, np.unique(matrix[inside]))


class _SharedGreyLevels:
    """Mixin for PyRadiomics' classes: take the grey levels from the settings instead of binning again."""

    def _applyBinning(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.int64]:  # noqa: N802  (PyRadiomics' name)
        levels: _GreyLevels = self.settings["grey_levels"]  # type: ignore[attr-defined]
        self.coefficients["grayLevels"] = levels.present  # type: ignore[attr-defined]
        self.coefficients["Ng"] = int(levels.present[-1])  # type: ignore[attr-defined]
        return levels.matrix.copy()


def _sharing(base: type) -> type:
    # Under the library's own module name, so that its log lines stay in its own logger.
    return type(base.__name__, (_SharedGreyLevels, base), {"__module__": base.__module__})


_CLASSES = MappingProxyType(
    {
        "shape": MeshShape,
        "firstorder": _sharing(firstorder.RadiomicsFirstOrder),
        "glcm": _sharing(glcm.RadiomicsGLCM),
        "gldm": _sharing(gldm.RadiomicsGLDM),
        "glrlm": _sharing(glrlm.RadiomicsGLRLM),
        "glszm": _sharing(glszm.RadiomicsGLSZM),
        "ngtdm": _sharing(ngtdm.RadiomicsNGTDM),
    }
)


def _prove_measurable(label: sitk.Image, spec: ExtractionSpec, when: str) -> None:
    """Refuse masks that PyRadiomics would refuse, in plainer words."""
    where = np.nonzero(sitk.GetArrayViewFromImage(label))
    voxels = len(where[0])
    if voxels == 0:
        raise Refused(ReasonCode.ROI_EMPTY, f"The region of interest holds no voxel{when}.")
    extents = sum(int(index.max()) > int(index.min()) for index in where)
    if extents == 0 or extents < spec.settings.get("minimumROIDimensions", 2):
        raise Refused(
            ReasonCode.ROI_TOO_SMALL,
            f"The region of interest holds {voxels} voxel(s) in {extents} dimension(s){when}; that is too few.",
        )
    minimum = spec.settings.get("minimumROISize")
    if minimum is not None and voxels <= minimum:
        raise Refused(ReasonCode.ROI_TOO_SMALL, f"The region of interest holds only {voxels} voxels{when}.")


@dataclass(frozen=True, slots=True)
class MeasurableRoi:
    """Image and mask on the grid on which features are computed, cropped to the ROI."""

    image: sitk.Image
    label: sitk.Image


def place_on_grid(volume: hd.Volume, mask: npt.NDArray[np.bool_], spec: ExtractionSpec) -> MeasurableRoi:
    """Resample and crop a reference volume.

    Parameters
    ----------
    volume
        (slices, rows, columns) in HU; its first voxel is the origin of the resampling grid.
    mask
        (slices, rows, columns).
    spec
        What to measure, and how.

    Raises
    ------
    Refused
        ``roi_empty`` or ``roi_too_small``, before or after resampling.
    """
    image, label = grid.to_images(volume, mask)
    _prove_measurable(label, spec, "")
    if spec.resampled_spacing is not None:
        image, label = grid.resample(image, label, spec.settings)
        _prove_measurable(label, spec, " after resampling")
    return MeasurableRoi(*grid.crop(image, label))


def compute(roi: MeasurableRoi, spec: ExtractionSpec) -> FeatureVector:
    """Compute the features that `spec` names, and nothing that they do not need.

    Returns
    -------
    FeatureVector
        In the spec's order; NaN where PyRadiomics' formula fails.

    Notes
    -----
    Definitions are those of PyRadiomics 3.0.1; where they differ from IBSI is listed in ``tests/radiomics``.
    """
    settings: dict[str, Any] = dict(spec.settings)
    values: dict[str, float] = {}
    for group in FEATURE_NAMES_BY_CLASS:
        prefix = f"original_{group}_"
        wanted = [name.removeprefix(prefix) for name in spec.features if name.startswith(prefix)]
        if not wanted:
            continue
        if group != "shape" and "grey_levels" not in settings:
            settings["grey_levels"] = _GreyLevels.of(roi.image, roi.label, settings)
        calculator = _CLASSES[group](roi.image, roi.label, **settings)
        for name in wanted:
            calculator.enableFeatureByName(name)
        with np.errstate(all="ignore"):
            for name, value in calculator.execute().items():
                values[prefix + name] = float(value)
    return FeatureVector(spec.features, np.array([values[name] for name in spec.features]))


def extract(volume: hd.Volume, mask: npt.NDArray[np.bool_], spec: ExtractionSpec) -> FeatureVector:
    """Measure a reference volume: :func:`place_on_grid`, then :func:`compute`."""
    return compute(place_on_grid(volume, mask, spec), spec)
