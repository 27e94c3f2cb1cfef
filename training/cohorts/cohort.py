"""Feature tables: one row per patient, read strictly, with a description of their source.

A table is CSV with the column ``patient_id``, the column that is predicted, and features under their PyRadiomics names.
The default for the predicted column is ``stage`` (early or advanced); see :class:`training.cohorts.endpoint.Target`.
The optional column ``roi_touches_crop_edge`` (True or False) marks tumours that are cut by the edge of their image.
These rows are left out by default. Age, sex and histology are read if they are requested as covariates. Features of
filtered images (``wavelet-*``) are left out and counted, because the appliance measures the original image only. Every
other column is ignored, including PyRadiomics' ``diagnostics_*`` and ``Label``. T, N and M are never an input.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.spec import ALL_FEATURES, STAGE_GROUP, Covariate, Endpoint
from lungstage.appliance.dicom.names import counted
from lungstage.training.cohorts.covariates import COLUMNS as COVARIATE_COLUMNS
from lungstage.training.cohorts.covariates import encode_covariates, find_covariates
from lungstage.training.cohorts.description import CohortDescription, describe
from lungstage.training.cohorts.endpoint import MAX_UNCLASSIFIED, STAGE, Outcome, Target, read_outcome
from lungstage.training.cohorts.repeatability import Repeatability, rate_features
from lungstage.training.cohorts.survival import ALL_OBSERVED, Survival, censoring_weights
from lungstage.training.cohorts.table import FEATURE, PATIENT, Table, check_upright, parse_table, refuse
from lungstage.training.cohorts.usable import check_usable

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CUT_COLUMN: Final = "roi_touches_crop_edge"
REDUNDANT_FEATURE: Final = "original_shape_VoxelVolume"  # nearly the same value as MeshVolume
MIN_FEATURES: Final = 15
_NEVER_NEGATIVE: Final = tuple(
    f"original_shape_{name}"
    for name in ("MeshVolume", "SurfaceArea", "Sphericity", "Maximum3DDiameter", "MajorAxisLength")
)
_PREFIXED: Final = re.compile(r".original_(?:shape|firstorder|glcm|gldm|glrlm|glszm|ngtdm)_")


@dataclass(frozen=True, slots=True)
class Cohort:
    """The used rows of a feature table.

    Attributes
    ----------
    patients
        n patient identifiers, all different. So a split by rows is a split by patients.
    labels
        (n,) bool, True for the endpoint's positive class.
    features
        d names of :data:`contract.spec.ALL_FEATURES`, in the order of that list and not of the table.
    values
        (n, d) float64 in PyRadiomics' units, NaN where missing.
    description
        Where the table comes from and how it was measured.
    table, sha256
        File name of the table and the hash of its bytes.
    rows
        Rows in the table, including those left out.
    excluded
        Number of rows left out, by reason: the name of a column, or a phrase. Each row counts once.
    endpoint
        The two classes.
    covariates, covariate_values
        Clinical covariates, and their encoded values (n, c), NaN where missing; c is the number of
        :attr:`contract.spec.Covariate.columns`. None without covariates.
    repeatability
        Features that were left out for low repeatability; None without an ICC table.
    warnings
        Plain sentences on reasons to doubt metrics from these rows.
    target
        The requested target, from which the endpoint was read.
    notes
        Plain sentences on columns of the table that were left out.
    survival
        Follow-up, if an event within a horizon is predicted; else None.
    """

    patients: tuple[str, ...]
    labels: Bools
    features: tuple[str, ...]
    values: Array
    description: CohortDescription
    table: str
    sha256: str
    rows: int
    excluded: Mapping[str, int]
    endpoint: Endpoint = STAGE_GROUP
    covariates: tuple[Covariate, ...] = ()
    covariate_values: Array | None = None
    repeatability: Repeatability | None = None
    warnings: tuple[str, ...] = ()
    target: Target = STAGE
    cut: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    notes: tuple[str, ...] = ()
    survival: Survival | None = None

    @property
    def weights(self) -> Array | None:
        """Number of patients that each row stands for in a metric, (n,); None if each stands for one."""
        return None if self.survival is None else self.survival.weights

    @property
    def prevalence(self) -> float:
        """Share of the positive class; under censoring the share of all patients, not of those with known class."""
        return float(self.labels.mean() if self.weights is None else np.average(self.labels, weights=self.weights))


def target_record(cohort: Cohort) -> dict[str, str | float | None]:
    """Return the columns and values that the classes were read from, for a record."""
    endpoint, target = cohort.endpoint, cohort.target
    return {
        "target": target.target,
        "positive": endpoint.positive,
        "negative": endpoint.negative,
        "event": target.event,
        "horizon_days": target.horizon_days,
    }


def read_cohort(
    table: Path,
    description: Path | None = None,
    *,
    keep_cut_rows: bool = False,
    target: Target = STAGE,
    covariates: Sequence[str] | Sequence[Covariate] = (),
    repeatability: tuple[Path, float] | None = None,
    features: Sequence[str] | None = None,
    id_column: str = PATIENT,
) -> Cohort:
    """Read a feature table and its description.

    Parameters
    ----------
    table
        The CSV file.
    description
        A TOML file, see :func:`training.cohorts.description.describe`.
    keep_cut_rows
        Also use the rows whose ``roi_touches_crop_edge`` is True.
    target
        What is predicted.
    covariates
        Names of covariates, whose levels are read from the table; or covariates of a model, with its levels.
    repeatability
        An ICC table, and the ICC below which features are left out.
    features
        The features to read, in this order; all must be in the table. None reads every feature of the table.
    id_column
        The column of the patient identifiers.

    Raises
    ------
    Refused
        ``table_invalid``: the table or its description is not valid.
    OSError
        A file cannot be read.
    """
    content = table.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    hint = "; if another column holds the patient identifiers, name it with --id-column"
    parsed = parse_table(content, (id_column, *(features or ())), hint=hint)
    check_upright(parsed.columns[id_column])
    _check_target(target, covariates, id_column)
    parsed = parsed._replace(columns={**parsed.columns, PATIENT: parsed.columns[id_column]})
    names = tuple(features) if features is not None else _feature_columns(parsed)
    rated = None if repeatability is None else rate_features(*repeatability, names)
    if rated is not None:
        names = tuple(name for name in names if name not in rated.left_out)
        _check_count(names, f"with an ICC of at least {rated.minimum:g} in {rated.table}")
    outcome = read_outcome(parsed, target)
    values = np.array([parsed.numbers(name) for name in names], dtype=np.float64).T
    cut = parsed.flags(CUT_COLUMN) if CUT_COLUMN in parsed.columns else np.zeros(len(values), dtype=np.bool_)
    left_out = cut & (not keep_cut_rows)
    kept = ~(left_out | outcome.unclassified)
    excluded = {CUT_COLUMN: int(left_out.sum())} if CUT_COLUMN in parsed.columns else {}
    if outcome.reason is not None:
        excluded[outcome.reason] = int((outcome.unclassified & ~left_out).sum())
    check_usable(parsed, target, outcome, kept, names, values)
    found = _covariates(parsed, covariates, kept)
    clinical = encode_covariates(parsed, found) if found else None
    return Cohort(
        patients=tuple(np.array(parsed.columns[PATIENT])[kept].tolist()),
        labels=outcome.labels[kept],
        features=names,
        values=values[kept],
        description=describe(table, sha256, description),
        table=table.name,
        sha256=sha256,
        rows=len(values),
        excluded=MappingProxyType(excluded),
        endpoint=outcome.endpoint,
        covariates=found,
        covariate_values=None if clinical is None else clinical[kept],
        repeatability=rated,
        warnings=(*_warnings(outcome, ~left_out, target), *_scaled(names, values[kept])),
        target=target,
        cut=cut[kept],
        notes=_notes(parsed),
        survival=_follow_up(outcome, target, ~left_out, values, clinical),
    )


def _follow_up(
    outcome: Outcome, target: Target, considered: Bools, values: Array, clinical: Array | None
) -> Survival | None:
    if outcome.days is None or outcome.observed is None or target.horizon_days is None:
        return None
    days, observed, lost = outcome.days[considered], outcome.observed[considered], outcome.unclassified[considered]
    return Survival(
        horizon_days=target.horizon_days,
        days=days[~lost],
        observed=observed[~lost],
        weights=censoring_weights(days, observed, target.horizon_days)[~lost],
        censored_days=days[lost],
        censored_values=values[considered][lost],
        censored_covariates=None if clinical is None else clinical[considered][lost],
    )


def _check_target(target: Target, covariates: Sequence[str] | Sequence[Covariate], id_column: str) -> None:
    """Refuse a target that is also an input of the model."""
    inputs = {column for one in covariates for column in COVARIATE_COLUMNS.get(getattr(one, "name", str(one)), ())}
    for column in target.columns:
        if column.startswith("original_"):
            refuse(f"Column {column} is a feature and an input of the model, so it cannot be the target.")
        if column in inputs:
            refuse(f"Column {column} is a covariate and an input of the model, so it cannot be the target.")
        if column in (id_column, PATIENT, CUT_COLUMN):
            refuse(f"Column {column} is not an outcome, so it cannot be the target. Name another column.")


def _feature_columns(table: Table) -> tuple[str, ...]:
    found = {name for name in table.columns if name.startswith("original_")} - {REDUNDANT_FEATURE}
    if unknown := sorted(found - set(ALL_FEATURES)):
        refuse(f"The table has features that the appliance cannot measure: {unknown}. Remove them from the table.")
    names = tuple(name for name in ALL_FEATURES if name in found)
    if len(names) < MIN_FEATURES and (prefixed := [name for name in table.columns if _PREFIXED.search(name)]):
        refuse(
            f"Column {prefixed[0]} and {len(prefixed) - 1} more have a prefix before the feature's name. Rename them "
            "so that they begin with original_ (in pandas: table.columns.str.removeprefix(PREFIX))."
        )
    _check_count(names, "in the table")
    return names


def _notes(table: Table) -> tuple[str, ...]:
    images = [found["image"] for name in table.columns if (found := FEATURE.fullmatch(name)) and found["image"]]
    filtered = Counter(image for image in images if image != "original")
    if not filtered:
        return ()
    kinds = ", ".join(sorted({f"{image.partition('-')[0]}*" for image in filtered}))
    left_out = f"{'was' if filtered.total() == 1 else 'were'} left out"
    return (
        f"{counted(filtered.total(), 'column')} of filtered images ({kinds}) {left_out}: the appliance measures the "
        "original image only.",
    )


def _check_count(names: Sequence[str], where: str) -> None:
    if len(names) < MIN_FEATURES:
        refuse(f"There are {len(names)} feature columns {where}; at least {MIN_FEATURES} are needed.")


def _covariates(table: Table, wanted: Sequence[str] | Sequence[Covariate], kept: Bools) -> tuple[Covariate, ...]:
    given = tuple(one for one in wanted if isinstance(one, Covariate))
    return given or find_covariates(table, [one for one in wanted if isinstance(one, str)], kept)


def _scaled(features: Sequence[str], values: Array) -> tuple[str, ...]:
    """Detect scaled features by negative sizes. The appliance would give a model of such features unscaled ones."""
    for name in _NEVER_NEGATIVE:
        if name in features and (below := int((values[:, list(features).index(name)] < 0).sum())):
            return (
                f"{name} is below 0 in {counted(below, 'row')}, which is impossible for a tumour: the features were "
                "scaled. The appliance measures unscaled features, so a bundle trained on this table gives wrong "
                "answers. Use the features as they were measured; the model scales them itself.",
            )
    return ()


def _warnings(outcome: Outcome, considered: Bools, target: Target) -> tuple[str, ...]:
    if outcome.observed is not None and outcome.observed[considered].all():
        return (ALL_OBSERVED,)
    share = float(outcome.unclassified[considered].mean())
    if share <= MAX_UNCLASSIFIED:
        return ()
    return (
        f"{share:.0%} of the rows were {outcome.reason}. Nothing was trained on them. In metrics the other rows are "
        "weighted for them (inverse probability of censoring). If censoring depends on the disease, every metric is "
        "biased.",
    )
