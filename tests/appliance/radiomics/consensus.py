"""IBSI's consensus values, their configurations, and how well lungstage agrees with them.

Reference: Zwanenburg et al., Radiology 2020, 295(2):328-338; values and tolerances of the IBSI 1 reference set, which
names each by a tag. The processing of configurations A and B is that of the reference manual, arXiv 1612.07003.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import highdicom as hd
import numpy as np

from lungstage.appliance.commissioning.ibsi_phantom import agrees, as_ibsi_defines, read_consensus, read_nifti
from lungstage.appliance.commissioning.ibsi_tags import TAGS
from lungstage.appliance.contract.spec import ExtractionSpec, FeatureVector, Grid
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics import grid, ibsi, parameters
from lungstage.appliance.radiomics.extract import compute, extract, place_on_grid
from lungstage.appliance.radiomics.grid import MeasurableRoi
from lungstage.appliance.staging.one_shot import Options, measure_paths


@dataclass(frozen=True)
class Aggregation:
    """How texture matrices are made from a volume.

    Attributes
    ----------
    name
        In words.
    setting
        The setting for it in PyRadiomics, and so in lungstage.
    directional, other
        The end of the tags of GLCM and GLRLM, and of the other textures; None where these are the same as in another
        aggregation and are compared there, with everything that is no texture.
    """

    name: str
    setting: str
    directional: str
    other: str | None

    def tag(self, feature: str) -> str | None:
        """Tag of a feature, or None if it is not compared in this aggregation."""
        group = feature.partition("_")[0]
        if group in ("glcm", "glrlm"):
            return TAGS[feature] + self.directional
        if self.other is None:
            return None
        return TAGS[feature] + ("" if group in ("shape", "firstorder") else self.other)


IN_SPACE = Aggregation("in 3D, averaged over directions", "", "_3D_avg", "_3D")
IN_SPACE_MERGED = Aggregation("in 3D, directions merged", "weightingNorm: no_weighting", "_3D_comb", None)
IN_PLANE = Aggregation("in 2.5D, averaged over directions", "force2D: true", "_2_5D_avg", "_2_5D")
IN_PLANE_MERGED = Aggregation(
    "in 2.5D, directions merged", "force2D: true, weightingNorm: no_weighting", "_2_5D_comb", None
)


@dataclass(frozen=True)
class Configuration:
    """One of IBSI's images with its processing.

    Attributes
    ----------
    name
        IBSI's name for it.
    file
        The file with its consensus values.
    grid, setting
        The settings for it in lungstage: the spec's grid and PyRadiomics settings.
    aggregations
        Those with values from IBSI and a setting in lungstage.
    """

    name: str
    file: str
    grid: Grid
    setting: str
    aggregations: tuple[Aggregation, ...]

    def text(self, aggregation: Aggregation) -> str:
        """Return the parameter file."""
        return f"setting: {{{', '.join(filter(None, (self.setting, aggregation.setting)))}}}"

    def compared(self, aggregation: Aggregation) -> Iterator[tuple[str, str]]:
        """Name the compared features and their tags; only the first aggregation has features other than texture."""
        for feature in TAGS:
            tag = aggregation.tag(feature)
            if tag is not None and (aggregation is self.aggregations[0] or tag != TAGS[feature]):
                yield feature, tag

    def spec(self, aggregation: Aggregation) -> ExtractionSpec:
        """Return what to measure."""
        return parameters.parse(self.text(aggregation), grid=self.grid)


PHANTOM = Configuration(
    "Digital phantom", "ibsi_1_dig_phantom.csv", "pyradiomics", "binWidth: 1",
    (IN_SPACE, IN_SPACE_MERGED, IN_PLANE, IN_PLANE_MERGED),
)  # fmt: skip
A = Configuration(
    "CT, configuration A", "ibsi_1_chest_config_a.csv", "ibsi", "binWidth: 25, resegmentRange: [-500, 400]",
    (IN_PLANE, IN_PLANE_MERGED),
)  # fmt: skip
B = Configuration(
    "CT, configuration B", "ibsi_1_chest_config_b.csv", "ibsi",
    "binCount: 32, resampledPixelSpacing: [2, 2, 0], interpolator: sitkLinear, resegmentRange: [-500, 400]",
    (IN_PLANE, IN_PLANE_MERGED),
)  # fmt: skip
CONFIGURATIONS = (PHANTOM, A, B)
CASES = [(configuration, aggregation) for configuration in CONFIGURATIONS for aggregation in configuration.aggregations]


@dataclass(frozen=True)
class Agreement:
    """A value of lungstage and the consensus value.

    Attributes
    ----------
    name, tag
        Of the feature: lungstage's name and IBSI's tag.
    consensus, tolerance
        The published values.
    ours
        lungstage's value.
    defined_otherwise
        Why the definitions differ; empty if they do not.
    as_defined
        lungstage's value by IBSI's definition.
    """

    name: str
    tag: str
    consensus: float
    tolerance: float
    ours: float
    defined_otherwise: str
    as_defined: float

    @property
    def met(self) -> bool:
        """Whether lungstage's value, by IBSI's definition, lies within the tolerance."""
        return agrees(self.as_defined, self.consensus, self.tolerance)


_PHANTOM_VOXELS = 74
_BY_N = "PyRadiomics divides the covariance by n, IBSI by n − 1"


def _as_ibsi_defines(feature: str, value: float, configuration: Configuration) -> tuple[str, float]:
    """Why PyRadiomics' definition differs, if it does to three digits, and the value by IBSI's definition."""
    if feature == "firstorder_Kurtosis":
        return "PyRadiomics does not subtract 3", as_ibsi_defines(feature, value, _PHANTOM_VOXELS)
    if configuration is PHANTOM and feature in ("shape_LeastAxisLength", "shape_MinorAxisLength"):
        return _BY_N, as_ibsi_defines(feature, value, _PHANTOM_VOXELS)
    return "", value


@cache
def consensus(data: Path, configuration: Configuration) -> Mapping[str, tuple[float, float]]:
    """Read consensus values and tolerances by tag; tags without consensus are left out."""
    return read_consensus(data / "ibsi/reference_values" / configuration.file)


@cache
def load(data: Path, name: str) -> tuple[hd.Volume, np.ndarray]:
    """Read ``digital_phantom`` or ``ct_phantom`` whole, from NIfTI."""
    folder = data / "ibsi" / name / "nifti"
    return read_nifti(folder / "image/phantom.nii.gz", folder / "mask/mask.nii.gz")


@cache
def measured(data: Path, configuration: Configuration, aggregation: Aggregation) -> Mapping[str, float]:
    """Measure the 106 features: of the CT from DICOM like a patient's, of the phantom from NIfTI."""
    spec = configuration.spec(aggregation)
    if configuration is PHANTOM:
        return _named(extract(*load(data, "digital_phantom"), spec))
    answer = measure_paths([data / "ibsi/ct_phantom/dicom"], ROI_RULE, spec, Options())
    return {name.removeprefix("original_"): value for name, value in answer["features"].items()}


def agreements(data: Path, configuration: Configuration, aggregation: Aggregation) -> Iterator[Agreement]:
    """Every feature that this aggregation is compared for, in the order of :data:`TAGS`."""
    return _beside_consensus(data, configuration, aggregation, measured(data, configuration, aggregation))


def on_pyradiomics_grid(data: Path, configuration: Configuration) -> Iterator[Agreement]:
    """The features of a configuration of the CT with PyRadiomics' resampling instead of IBSI's."""
    spec = configuration.spec(IN_PLANE)
    settings = {key: value for key, value in spec.settings.items() if key != "resegmentRange"}
    roi = place_on_grid(*load(data, "ct_phantom"), replace(spec, grid="pyradiomics", settings=settings))
    return _beside_consensus(data, configuration, IN_PLANE, _named(compute(roi, spec)))


def _named(vector: FeatureVector) -> dict[str, float]:
    return {name.removeprefix("original_"): float(v) for name, v in zip(vector.names, vector.values, strict=True)}


def _beside_consensus(
    data: Path, configuration: Configuration, aggregation: Aggregation, values: Mapping[str, float]
) -> Iterator[Agreement]:
    published = consensus(data, configuration)
    for feature, tag in configuration.compared(aggregation):
        ours = values[feature]
        yield Agreement(feature, tag, *published[tag], ours, *_as_ibsi_defines(feature, ours, configuration))


def steps(data: Path, configuration: Configuration) -> Iterator[Agreement]:
    """Image and mask of a configuration of the CT after each step of the processing."""
    volume, mask = load(data, "ct_phantom")
    spec, published = configuration.spec(IN_PLANE), consensus(data, configuration)
    spacing = spec.resampled_spacing or (0, 0, 0)
    native = MeasurableRoi(volume.array, mask, volume.spacing)
    # The whole image on the new grid, as for a region that fills it.
    box = grid.bounds(np.ones_like(mask))[1]
    whole = ibsi.resample(volume, np.ones_like(mask), box, spacing)
    placed = place_on_grid(volume, mask, spec)
    kept = ibsi.resegment(placed, spec.resegmentation)
    values = _of_image(native, "init") | _of_image(whole, "interp")
    values |= _of_mask(native, "init", "int") | _of_mask(native, "init", "morph")
    values |= _of_mask(placed, "interp", "int") | _of_mask(placed, "interp", "morph")
    values |= _of_mask(kept, "reseg", "int") | _of_mask(placed, "reseg", "morph")
    for step, image in (("init", native), ("interp", whole), ("reseg", whole)):
        values |= {f"int_mask_dim_{axis}_{step}_roi": n for axis, n in zip("zyx", image.mask.shape, strict=True)}
    for tag, ours in values.items():
        yield Agreement("image and mask", tag, *published[tag], ours, "", ours)


def _of_image(roi: MeasurableRoi, step: str) -> dict[str, float]:
    sizes = {f"img_dim_{axis}_{step}_img": n for axis, n in zip("zyx", roi.image.shape, strict=True)}
    spacings = {f"vox_dim_{axis}_{step}_img": float(v) for axis, v in zip("zyx", roi.spacing, strict=True)}
    return sizes | spacings | {f"{name}_int_{step}_img": v for name, v in _statistics(roi.image).items()}


def _of_mask(roi: MeasurableRoi, step: str, kind: str) -> dict[str, float]:
    voxels, box = grid.bounds(roi.mask)
    values: dict[str, float] = {
        f"{kind}_mask_bb_dim_{axis}_{step}_roi": edge.stop - edge.start for axis, edge in zip("zyx", box, strict=True)
    }
    values[f"{kind}_mask_vox_count_{step}_roi"] = voxels
    if kind == "int":
        values |= {f"int_mask_{name}_int_{step}_roi": v for name, v in _statistics(roi.image[roi.mask]).items()}
    return values


def _statistics(hu: np.ndarray) -> dict[str, float]:
    return {"mean": float(hu.mean()), "min": float(hu.min()), "max": float(hu.max())}
