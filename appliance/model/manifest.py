"""``manifest.json``: what a bundle is, its intended use, and the expected results of its self-test.

Plain frozen values with strict parsing. Unknown keys, NaN, wrong types and contradictory entries are refused in one
message, which names each of them by its path. :mod:`model.bundle` reads a bundle and runs its self-test.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lungstage.appliance.contract.evidence import Estimate, Worth
from lungstage.appliance.contract.spec import ALL_FEATURES, COVARIATES, Covariate, Endpoint
from lungstage.appliance.model import sealed

ContourSource = Literal["expert", "assisted"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Interval = tuple[Finite, Finite]
# Used as the meaning of a code in the report: a Long String without backslash or control character (PS3.5 6.2).
Label = Annotated[str, Field(pattern=r"^[^\s\\\x00-\x1f\x7f]([^\\\x00-\x1f\x7f]{0,62}[^\s\\\x00-\x1f\x7f])?$")]

QUANTILES: Final = ("0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1")
"""The quantiles of the training rows that a bundle contains for each feature."""

HASHED_FILES: Final = ("MODEL_CARD.md", "extraction.yaml", "model.onnx")
"""The files whose SHA-256 the manifest contains; with ``manifest.json`` they are the whole bundle."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FeatureEntry(_Frozen):
    """One input of the network: its name, its unit and its values in training."""

    name: str
    unit: str  # UCUM
    ibsi: str | None  # IBSI code, None if IBSI does not define the feature
    training_median: Finite
    training_quantiles: dict[str, Finite]  # keys are QUANTILES

    @model_validator(mode="after")
    def _quantiles_ascend(self) -> Self:
        if set(self.training_quantiles) != set(QUANTILES):
            raise ValueError(f"training_quantiles must contain exactly {', '.join(QUANTILES)}")
        values = [self.training_quantiles[key] for key in QUANTILES]
        if values != sorted(values):
            raise ValueError("training_quantiles must not descend")
        return self


class CovariateColumn(_Frozen):
    """One input of the network for a covariate, or for one level of it."""

    name: str
    training_median: Finite  # used for a missing value
    limits: Interval  # the graph clips to them; equal if training had a single value


class CovariateEntry(_Frozen):
    """A clinical input of the model in addition to the features."""

    name: str  # one of COVARIATES
    levels: tuple[Label, ...]  # levels of a category, the reference first; empty for a number
    columns: tuple[CovariateColumn, ...]  # Covariate.columns, in order

    @model_validator(mode="after")
    def _columns_follow_from_levels(self) -> Self:
        if self.name not in COVARIATES:
            raise ValueError(f"a covariate must be one of {', '.join(COVARIATES)}")
        if (self.name == "age") != (not self.levels) or len(self.levels) == 1:
            raise ValueError("age must have no levels, and every other covariate must have at least two")
        # Sex has the values of Patient's Sex (0010,0040); a level with another name would never be used.
        if len({level.casefold() for level in self.levels}) < len(self.levels) or (
            self.name == "sex" and set(self.levels) != {"M", "F"}
        ):
            raise ValueError("levels must differ, and those of sex must be M and F")
        if tuple(column.name for column in self.columns) != self.covariate.columns:
            raise ValueError(f"columns must be exactly {', '.join(self.covariate.columns)}")
        if any(column.limits[0] > column.limits[1] for column in self.columns):
            raise ValueError("limits must not descend")
        return self

    @property
    def covariate(self) -> Covariate:
        """The covariate that this entry describes."""
        return Covariate(self.name, self.levels)


class EndpointEntry(_Frozen):
    """The model's two classes. *Early* and *advanced* in names here mean the negative and the positive class."""

    name: Label
    negative: Label
    positive: Label

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        if len({self.negative, self.positive, "indeterminate"}) < 3:
            raise ValueError("the classes must differ, and none of them may be named indeterminate")
        return self

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint as a plain value."""
        return Endpoint(self.name, self.negative, self.positive)


class RoiRule(_Frozen):
    """How to choose the region of interest among those in an RTSTRUCT or SEG."""

    # Case-insensitive regular expressions, full match, tried in order. The first that matches any ROI decides, and it
    # must match exactly one.
    name_patterns: tuple[str, ...]
    excluded_patterns: tuple[str, ...]  # nodes and organs; the rule never chooses them
    # (code value, coding scheme designator) of Segmented Property Types that mean the primary tumour.
    property_types: tuple[tuple[str, str], ...]

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        for pattern in self.name_patterns + self.excluded_patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return self


class IntendedUse(_Frozen):
    """The limits within which the model may answer; outside them a case is refused."""

    statement: str
    modality: Literal["CT"]
    body_parts: tuple[str, ...]  # accepted values of BodyPartExamined; if it is missing, the slices must contain lung
    slice_thickness_mm: Interval
    pixel_spacing_mm: Interval
    hu_range: Interval  # of the voxels inside the ROI
    # Separate limits for the distance to the training cohort and for that to the nearest training tumours.
    domain_distance_warn: Finite
    domain_distance_max: Finite
    neighbour_distance_warn: Finite
    neighbour_distance_max: Finite

    @model_validator(mode="after")
    def _limits_ascend(self) -> Self:
        for name in ("slice_thickness_mm", "pixel_spacing_mm", "hu_range"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} must ascend")
        for name in ("domain_distance", "neighbour_distance"):
            if not 0 < getattr(self, f"{name}_warn") <= getattr(self, f"{name}_max"):
                raise ValueError(
                    f"limits of {name} must be positive, and the warning limit must not exceed the maximum"
                )
        return self


class Decision(_Frozen):
    """Class-conditional conformal thresholds (cross-conformal: from out-of-fold probabilities).

    A class is possible if its probability is at least its threshold. Exactly one possible class is the stage; both or
    none give ``indeterminate``.
    """

    alpha: Probability
    early_min_probability: Probability
    advanced_min_probability: Probability
    # 95 % interval of each class's coverage in new patients like those used for the thresholds. With fewer patients it
    # is wider. None if the bundle does not contain it.
    early_coverage: tuple[Probability, Probability] | None = None
    advanced_coverage: tuple[Probability, Probability] | None = None


class OutOfFold(_Frozen):
    """Share of the patients of each class that reached each probability, predicted by models without these patients.

    The predictive value of an answer at any prevalence is computed from it (:mod:`model.answering`). It contains shares
    only, so no patient's values can be read from it.
    """

    positives: Annotated[int, Field(ge=1)]
    negatives: Annotated[int, Field(ge=1)]
    thresholds: tuple[Probability, ...]  # ascending from 0 to 1, at the training prevalence
    positives_at_least: tuple[Probability, ...]  # share of the positive class whose probability reached each threshold
    negatives_at_least: tuple[Probability, ...]

    @model_validator(mode="after")
    def _is_a_distribution(self) -> Self:
        marks, both = self.thresholds, (self.positives_at_least, self.negatives_at_least)
        if len(marks) < 2 or marks[0] != 0 or marks[-1] != 1 or any(b <= a for a, b in pairwise(marks)):
            raise ValueError("thresholds must ascend from 0 to 1")
        if any(len(s) != len(marks) or s[0] != 1 or any(b > a for a, b in pairwise(s)) for s in both):
            raise ValueError("the shares must descend from 1, one for each threshold")
        return self


class EstimateEntry(_Frozen):
    """A figure with its 95 % interval."""

    value: Finite
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _lies_within(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("the value must lie within its interval")
        return self

    @property
    def estimate(self) -> Estimate:
        """The figure as a plain value."""
        return Estimate(self.value, self.low, self.high)


RivalName = Literal["sphericity_volume", "volume", "best_single_lr", "covariates_alone"]


class WorthEntry(_Frozen):
    """Whether the model is shown to be better than chance and than the best model of at most two features."""

    auc: EstimateEntry
    beats_chance: bool
    rival: RivalName | None
    rival_auc: EstimateEntry | None
    beats_rival: bool

    @model_validator(mode="after")
    def _names_its_rival(self) -> Self:
        if (self.rival is None) != (self.rival_auc is None) or (self.beats_rival and self.rival is None):
            raise ValueError("rival and rival_auc must be given together, and beats_rival needs both")
        return self

    @property
    def worth(self) -> Worth:
        """The same as a plain value."""
        other = None if self.rival_auc is None else self.rival_auc.estimate
        return Worth(self.auc.estimate, self.beats_chance, self.rival, other, self.beats_rival)


class Recalibration(_Frozen):
    """Cohort and result of a recalibration of the logits after training: ``slope * logit + intercept``."""

    cohort: str
    table_sha256: Sha256
    rows: Annotated[int, Field(ge=1)]
    prevalence: Annotated[float, Field(gt=0, lt=1)]
    slope: EstimateEntry
    intercept: EstimateEntry  # for a model that states its probabilities at `prevalence`
    of_version: str
    of_digest: Sha256  # of the bundle before recalibration


class GoldenCase(_Frozen):
    """Expected results for the generated phantom, to 1e-9 relative (features) and 1e-6 (probability)."""

    phantom: str  # name and version of the generator, e.g. "spiculated-1"
    features: dict[str, Finite]
    covariates: dict[str, Finite | str]  # the value of each covariate; empty if the model uses none
    probability_advanced: Probability


class Provenance(_Frozen):
    """Where the model comes from."""

    cohort: str
    source: str
    licence: str
    table_sha256: Sha256
    rows: int
    rows_excluded: int
    prevalence_advanced: Annotated[float, Field(gt=0, lt=1)]
    stages_absent: tuple[str, ...]
    seed: int
    versions: dict[str, str]


class Manifest(_Frozen):
    """``manifest.json``: what the bundle is, its intended use, and the expected results of its self-test."""

    schema_version: Literal[2, 3]  # 2 has none of the entries that may be null
    name: str
    version: str
    research_use_only: Literal[True]
    files: dict[str, Sha256]  # file name -> SHA-256 of each of HASHED_FILES
    endpoint: EndpointEntry
    features: Annotated[tuple[FeatureEntry, ...], Field(min_length=1)]
    covariates: tuple[CovariateEntry, ...]
    slice_margin: Annotated[int, Field(ge=0)]
    pixel_type: Literal["int16 if the rescale is integral, else float64"]
    roi_rule: RoiRule
    intended_use: IntendedUse
    decision: Decision
    provenance: Provenance
    golden: GoldenCase
    out_of_fold: OutOfFold | None = None
    worth: WorthEntry | None = None
    recalibration: Recalibration | None = None
    # Who drew the contours that the model was validated on: experts, or persons who confirmed a semi-automatic contour.
    # None if the bundle does not contain it; then experts only.
    contour_sources: Annotated[tuple[ContourSource, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if set(self.files) != set(HASHED_FILES):
            raise ValueError(f"files must be exactly {', '.join(HASHED_FILES)}")
        names = self.feature_names
        unknown = [name for name in names if name not in ALL_FEATURES]
        if unknown or len(set(names)) != len(names):
            raise ValueError(f"features must be known and named once; unknown: {unknown}")
        if set(self.golden.features) != set(names):
            raise ValueError("golden.features must contain a value for each feature and nothing else")
        covariates = [entry.name for entry in self.covariates]
        if len(set(covariates)) != len(covariates):
            raise ValueError("covariates must be named once")
        if set(self.golden.covariates) != set(covariates):
            raise ValueError("golden.covariates must contain a value for each covariate and nothing else")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the network's inputs, in input order."""
        return tuple(entry.name for entry in self.features)

    @property
    def is_validated_on_assisted(self) -> bool:
        """Whether the model was validated on semi-automatic contours that a person confirmed."""
        return "assisted" in (self.contour_sources or ())


def render(manifest: Manifest) -> bytes:
    """Write `manifest` as sealed JSON (:func:`model.sealed.render`); the same manifest gives the same bytes."""
    return sealed.render(manifest)


def parse(text: bytes) -> Manifest:
    """Read the output of :func:`render`.

    Raises
    ------
    Refused
        As :func:`model.sealed.parse`.
    """
    return sealed.parse(text, Manifest)
