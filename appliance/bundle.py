"""Model bundles: ``model.onnx``, ``extraction.yaml``, ``manifest.json`` and ``MODEL_CARD.md`` in one folder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureEntry(_Frozen):
    """One input of the network: its name, its unit and what training saw of it."""

    name: str
    unit: str  # UCUM
    ibsi: str | None  # IBSI code, None where IBSI does not define the feature
    training_median: Finite
    training_quantiles: dict[str, Finite]  # keys "0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1"


class RoiRule(_Frozen):
    """How the region of interest is chosen among those an RTSTRUCT or SEG offers."""

    # Case-insensitive regular expressions, full match, tried in order; the first that matches any ROI decides,
    # and must then match exactly one.
    name_patterns: tuple[str, ...]
    excluded_patterns: tuple[str, ...]  # nodes and organs; never chosen by rule
    # (code value, coding scheme designator) of Segmented Property Types that mean the primary tumour.
    property_types: tuple[tuple[str, str], ...]


class IntendedUse(_Frozen):
    """The limits inside which the model may answer; outside them a case is refused."""

    statement: str
    modality: Literal["CT"]
    body_parts: tuple[str, ...]  # accepted values of BodyPartExamined; an absent one needs lung in the slices
    slice_thickness_mm: tuple[Finite, Finite]
    pixel_spacing_mm: tuple[Finite, Finite]
    hu_range: tuple[Finite, Finite]  # of the voxels inside the ROI
    domain_distance_warn: Finite
    domain_distance_max: Finite


class Decision(_Frozen):
    """Class-conditional conformal thresholds (split conformal on out-of-fold probabilities).

    A class stays possible while its probability is at least its threshold; exactly one possible class is the
    stage, both or none is ``indeterminate``.
    """

    alpha: Finite
    early_min_probability: Finite
    advanced_min_probability: Finite


class GoldenCase(_Frozen):
    """What the generated phantom must give, to 1e-9 relative (features) and 1e-6 (probability)."""

    phantom: str  # name and version of the generator, e.g. "spiculated-1"
    features: dict[str, Finite]
    probability_advanced: Finite


class Provenance(_Frozen):
    """Where the model comes from."""

    cohort: str
    source: str
    licence: str
    table_sha256: str
    rows: int
    rows_excluded: int
    prevalence_advanced: Finite
    stages_absent: tuple[str, ...]
    seed: int
    versions: dict[str, str]


class Manifest(_Frozen):
    """``manifest.json``: what the bundle is, what it may be used for and how it proves itself."""

    schema_version: Literal[1]
    name: str
    version: str
    research_use_only: Literal[True]
    files: dict[str, str]  # file name -> SHA-256 of model.onnx, extraction.yaml, MODEL_CARD.md
    features: tuple[FeatureEntry, ...]
    slice_margin: int
    pixel_type: Literal["int16 if the rescale is integral, else float64"]
    roi_rule: RoiRule
    intended_use: IntendedUse
    decision: Decision
    provenance: Provenance
    golden: GoldenCase
