"""``manifest.json``: what a bundle is, what it may be used for, and how it proves itself.

Plain frozen values with strict parsing: unknown keys, NaN, wrong types and entries that contradict each other are
refused, all of them in one message that names each by its path. Reading and proving a bundle is
:mod:`model.bundle`.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.evidence import Estimate, Worth
from lungstage.appliance.contract.spec import ALL_FEATURES, COVARIATES, Covariate, Endpoint

COPY_AGAIN: Final = "Copy the bundle again whole."
BUILD_AGAIN: Final = "Get the bundle again from whoever built it."
"""What helps where a bundle was damaged on its way, and where it was never sound."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Interval = tuple[Finite, Finite]
# Becomes the meaning of a code in the report: a Long String without backslash or control character (PS3.5 6.2).
Label = Annotated[str, Field(pattern=r"^[^\s\\\x00-\x1f\x7f]([^\\\x00-\x1f\x7f]{0,62}[^\s\\\x00-\x1f\x7f])?$")]

QUANTILES: Final = ("0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1")
"""The quantiles of the training rows that a bundle states for each feature."""

HASHED_FILES: Final = ("MODEL_CARD.md", "extraction.yaml", "model.onnx")
"""The files whose SHA-256 the manifest carries; with ``manifest.json`` they are the whole bundle."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FeatureEntry(_Frozen):
    """One input of the network: its name, its unit and what training saw of it."""

    name: str
    unit: str  # UCUM
    ibsi: str | None  # IBSI code, None where IBSI does not define the feature
    training_median: Finite
    training_quantiles: dict[str, Finite]  # keys are QUANTILES

    @model_validator(mode="after")
    def _quantiles_ascend(self) -> Self:
        if set(self.training_quantiles) != set(QUANTILES):
            raise ValueError(f"training_quantiles must hold exactly {', '.join(QUANTILES)}")
        values = [self.training_quantiles[key] for key in QUANTILES]
        if values != sorted(values):
            raise ValueError("training_quantiles must not descend")
        return self


class CovariateColumn(_Frozen):
    """One input of the network that stands for a covariate, or for one level of it."""

    name: str
    training_median: Finite  # which takes the place of a missing value
    limits: Interval  # to which the graph clips; equal where training saw a single value


class CovariateEntry(_Frozen):
    """A clinical input of the model beside the features."""

    name: str  # one of COVARIATES
    levels: tuple[Label, ...]  # of a category, the reference first; empty for a number
    columns: tuple[CovariateColumn, ...]  # Covariate.columns, in order

    @model_validator(mode="after")
    def _columns_follow_from_levels(self) -> Self:
        if self.name not in COVARIATES:
            raise ValueError(f"a covariate is one of {', '.join(COVARIATES)}")
        if (self.name == "age") != (not self.levels) or len(self.levels) == 1:
            raise ValueError("age is a number without levels, every other covariate has at least two")
        # Sex comes as Patient's Sex (0010,0040) writes it; a level under another name would never be met.
        if len({level.casefold() for level in self.levels}) < len(self.levels) or (
            self.name == "sex" and set(self.levels) != {"M", "F"}
        ):
            raise ValueError("levels must differ, and those of sex are M and F")
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
    """What the model tells apart; everything called *early* or *advanced* here is the negative or positive class."""

    name: Label
    negative: Label
    positive: Label

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        if len({self.negative, self.positive, "indeterminate"}) < 3:
            raise ValueError("the classes must differ, and neither may be called indeterminate")
        return self

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint as a plain value."""
        return Endpoint(self.name, self.negative, self.positive)


class RoiRule(_Frozen):
    """How the region of interest is chosen among those an RTSTRUCT or SEG offers."""

    # Case-insensitive regular expressions, full match, tried in order; the first that matches any ROI decides,
    # and must then match exactly one.
    name_patterns: tuple[str, ...]
    excluded_patterns: tuple[str, ...]  # nodes and organs; never chosen by rule
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
    """The limits inside which the model may answer; outside them a case is refused."""

    statement: str
    modality: Literal["CT"]
    body_parts: tuple[str, ...]  # accepted values of BodyPartExamined; an absent one needs lung in the slices
    slice_thickness_mm: Interval
    pixel_spacing_mm: Interval
    hu_range: Interval  # of the voxels inside the ROI
    # Of the distance to the training cohort and of that to the nearest training tumours, each on its own.
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
                raise ValueError(f"limits of {name} must be positive, and the warning must come first")
        return self


class Decision(_Frozen):
    """Class-conditional conformal thresholds (cross-conformal: from out-of-fold probabilities).

    A class stays possible while its probability is at least its threshold; exactly one possible class is the
    stage, both or none is ``indeterminate``.
    """

    alpha: Probability
    early_min_probability: Probability
    advanced_min_probability: Probability
    # Between which the coverage of the one and of the other class lies in new patients like those that the thresholds
    # rest on (95 %): the fewer they are, the wider. None where the bundle does not say.
    early_coverage: tuple[Probability, Probability] | None = None
    advanced_coverage: tuple[Probability, Probability] | None = None


class OutOfFold(_Frozen):
    """How often patients of either class reached each probability, predicted by models that had not seen them.

    What an answer is worth at any prevalence follows from it (:mod:`model.answering`). Shares, not patients: no row can
    be read from it.
    """

    positives: Annotated[int, Field(ge=1)]
    negatives: Annotated[int, Field(ge=1)]
    thresholds: tuple[Probability, ...]  # ascending from 0 to 1, at the training prevalence
    positives_at_least: tuple[Probability, ...]  # share of the positive class whose probability reached each
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
    """Whether the model is shown to beat chance and the best model of two features at most."""

    auc: EstimateEntry
    beats_chance: bool
    rival: RivalName | None
    rival_auc: EstimateEntry | None
    beats_rival: bool

    @model_validator(mode="after")
    def _names_its_rival(self) -> Self:
        if (self.rival is None) != (self.rival_auc is None) or (self.beats_rival and self.rival is None):
            raise ValueError("a rival must be named with its AUC, and only then be beaten")
        return self

    @property
    def worth(self) -> Worth:
        """The same as a plain value."""
        other = None if self.rival_auc is None else self.rival_auc.estimate
        return Worth(self.auc.estimate, self.beats_chance, self.rival, other, self.beats_rival)


class Recalibration(_Frozen):
    """On whom the logits were recalibrated, after training: ``slope * logit + intercept``."""

    cohort: str
    table_sha256: Sha256
    rows: Annotated[int, Field(ge=1)]
    prevalence: Annotated[float, Field(gt=0, lt=1)]
    slope: EstimateEntry
    intercept: EstimateEntry  # for a model that states its probabilities at `prevalence`
    of_version: str
    of_digest: Sha256  # of the bundle that it was


class GoldenCase(_Frozen):
    """What the generated phantom must give, to 1e-9 relative (features) and 1e-6 (probability)."""

    phantom: str  # name and version of the generator, e.g. "spiculated-1"
    features: dict[str, Finite]
    covariates: dict[str, Finite | str]  # the value of each covariate; none where the model takes none
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
    """``manifest.json``: what the bundle is, what it may be used for and how it proves itself."""

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

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if set(self.files) != set(HASHED_FILES):
            raise ValueError(f"files must be exactly {', '.join(HASHED_FILES)}")
        names = self.feature_names
        unknown = [name for name in names if name not in ALL_FEATURES]
        if unknown or len(set(names)) != len(names):
            raise ValueError(f"features must be known and named once; unknown: {unknown}")
        if set(self.golden.features) != set(names):
            raise ValueError("golden.features must hold a value for each feature and nothing else")
        covariates = [entry.name for entry in self.covariates]
        if len(set(covariates)) != len(covariates):
            raise ValueError("covariates must be named once")
        if set(self.golden.covariates) != set(covariates):
            raise ValueError("golden.covariates must hold a value for each covariate and nothing else")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the network's inputs, in input order."""
        return tuple(entry.name for entry in self.features)


# The manifest's own hash, inside it: SHA-256 of the file with these 64 digits zeroed. The other files are held by
# the hashes in `files`, so one flipped byte anywhere in a bundle shows, and the bundle stays at four files.
_SEAL_FIELD = re.compile(rb'^  "seal": "([0-9a-f]{64})"$', re.MULTILINE)
_BLANK = b"0" * 64


def _digest(text: bytes, span: tuple[int, int]) -> bytes:
    return hashlib.sha256(text[: span[0]] + _BLANK + text[span[1] :]).hexdigest().encode()


def render(manifest: Manifest) -> bytes:
    """Write `manifest` as sealed JSON; the same manifest gives the same bytes.

    Returns
    -------
    bytes
        UTF-8 JSON whose last entry, ``seal``, is the SHA-256 of the whole text with the seal's digits zeroed.
    """
    document = {**manifest.model_dump(mode="json"), "seal": _BLANK.decode()}
    text = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    span = _seal_span(text)
    return text[: span[0]] + _digest(text, span) + text[span[1] :]


def _seal_span(text: bytes) -> tuple[int, int]:
    found = list(_SEAL_FIELD.finditer(text))
    if len(found) != 1:
        raise Refused(
            ReasonCode.BUNDLE_HASH_MISMATCH, f"The bundle's manifest.json does not carry one seal. {COPY_AGAIN}"
        )
    return found[0].span(1)


def parse(text: bytes) -> Manifest:
    """Read what :func:`render` wrote.

    Raises
    ------
    Refused
        ``bundle_hash_mismatch`` when any byte differs from what was sealed; ``bundle_invalid``, naming every
        offending entry by its path, when the manifest is not what this version understands.
    """
    span = _seal_span(text)
    if text[slice(*span)] != _digest(text, span):
        raise Refused(
            ReasonCode.BUNDLE_HASH_MISMATCH, f"The bundle's manifest.json was changed after it was sealed. {COPY_AGAIN}"
        )
    try:
        document = json.loads(text)
        document.pop("seal", None)
        return Manifest.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'manifest'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise Refused(
            ReasonCode.BUNDLE_INVALID, f"The bundle's manifest.json is not valid: {problems}. {BUILD_AGAIN}"
        ) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(
            ReasonCode.BUNDLE_INVALID, f"The bundle's manifest.json is not a JSON object. {BUILD_AGAIN}"
        ) from error
