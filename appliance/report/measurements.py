"""The numbers of a report as content items: TID 300 measurements with IBSI and DICOM codes and UCUM units."""

from __future__ import annotations

import math

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from lungstage.appliance.contract.spec import COVARIATES, DomainAssessment, FeatureVector, StagingResult
from lungstage.appliance.report.headers import decimal_string
from lungstage.appliance.report.vocabulary import CONCEPTS, private, unit_code
from lungstage.appliance.report.wording import Wording

FEATURE = private("FEATURE", "Feature (PyRadiomics name)")
COVARIATE = private("COVARIATE", "Clinical covariate")
DOMAIN_DISTANCE = private("DOMAINDISTANCE", "Distance to the training cohort (standard deviations)")
PREDICTIVE_VALUE = private("PREDICTIVEVALUE", "Chance that the predicted class is right (research)")
NEIGHBOUR_DISTANCE = private("NEIGHBOURDIST", "Distance to nearest training tumours (standard deviations)")


PROBABILITY_LOW = private("PROBABILITYLOW", "2.5th percentile of probability, perturbed (research)")
PROBABILITY_HIGH = private("PROBABILITYHIGH", "97.5th percentile of probability, perturbed (research)")
AGREEMENT = private("AGREEMENT", "Share of perturbed versions answered alike (research)")
VERSIONS = private("VERSIONS", "Number of perturbed versions answered (research)")
VARIATION = private("VARIATION", "Coefficient of variation in perturbed versions")

_DIGITS = 6  # more than two scans of one tumour have in common


def measurement(
    name: Code,
    value: float,
    unit: str,
    derivation: Code | None = None,
    *,
    method: Code | None = None,
    site: Code | None = None,
) -> sr.Measurement:
    """Make one measurement; a `value` that is not finite becomes (114008, DCM, Calculation failure).

    Numeric Value, which people read, has six significant digits. Floating Point Value contains `value` exactly.
    """
    if not math.isfinite(value):
        # The zero is needed because highdicom makes no measurement without a value: see blank_failures.
        failure = codes.DCM.CalculationFailure
        return sr.Measurement(name=name, value=0.0, unit=unit_code(unit), qualifier=failure, derivation=derivation)
    sites = None if site is None else [sr.FindingSite(site)]
    item = sr.Measurement(
        name=name, value=value, unit=unit_code(unit), derivation=derivation, method=method, finding_sites=sites
    )
    item[0].MeasuredValueSequence[0].NumericValue = _rounded(value, _DIGITS)
    return item


def _rounded(value: float, digits: int) -> DSfloat:
    return DSfloat(decimal_string(float(f"{value:.{digits}g}")))


def _percent(fraction: float) -> DSfloat:
    """Write a probability in % to one decimal; with more decimals if it would otherwise be rounded to 0 or 100."""
    percent, decimals = 100 * fraction, 1
    while 0 < percent < 100 and not 0 < round(percent, decimals) < 100 and decimals < 12:
        decimals += 1
    return DSfloat(decimal_string(round(percent, decimals)))


def blank_failures(item: Dataset) -> None:
    """Remove the values of failed measurements, in place: the qualifier replaces them (DICOM PS3.3 C.18.1)."""
    for child in item.get("ContentSequence", []):
        if "NumericValueQualifierCodeSequence" in child:
            child.MeasuredValueSequence = []
        blank_failures(child)


def feature_measurements(features: FeatureVector) -> list[sr.Measurement]:
    """Make the measurement of each feature (:data:`report.vocabulary.CONCEPTS`), in the order of the vector."""
    return [
        measurement(CONCEPTS[name].concept, value, CONCEPTS[name].unit, CONCEPTS[name].derivation)
        for name, value in zip(features.names, features.values.tolist(), strict=True)
    ]


def domain_measurements(domain: DomainAssessment) -> list[sr.Measurement]:
    """Make the distances to the centre of the training cohort and to its nearest tumours."""
    distances = {DOMAIN_DISTANCE: domain.distance, NEIGHBOUR_DISTANCE: domain.neighbour_distance}
    return [measurement(name, value, "1") for name, value in distances.items()]


def probability_measurement(result: StagingResult, words: Wording) -> sr.Measurement:
    """Make the probability of the positive class in %: to one decimal for people, and the exact value beside it."""
    probability = measurement(words.probability, 100 * result.probability_advanced, "%")
    probability[0].MeasuredValueSequence[0].NumericValue = _percent(result.probability_advanced)
    return probability


def predictive_value_measurements(result: StagingResult) -> list[sr.Measurement]:
    """Make the probability in % that the answer is correct at the prevalence in force; none if it is not known."""
    if result.answering is None or (found := result.answering.predictive_value) is None:
        return []
    chance = measurement(PREDICTIVE_VALUE, 100 * found.chance.value, "%")
    chance[0].MeasuredValueSequence[0].NumericValue = _percent(found.chance.value)
    return [chance]


def robustness_measurements(result: StagingResult) -> list[sr.Measurement]:
    """Make the results of the perturbed versions: range of the probability, agreement in %, and number of versions.

    The range is not the uncertainty of a measurement (TID 310) but percentiles over versions. CID 7464 has no codes for
    these percentiles, so the concepts are private. Empty if robustness is not known.
    """
    found = result.robustness
    if found is None or found.range is None or found.agreement is None:
        return []
    shares = {PROBABILITY_LOW: found.range[0], PROBABILITY_HIGH: found.range[1], AGREEMENT: found.agreement}
    items = []
    for name, share in shares.items():
        item = measurement(name, 100 * share, "%")
        item[0].MeasuredValueSequence[0].NumericValue = _percent(share)
        items.append(item)
    return [*items, measurement(VERSIONS, found.perturbations, "1")]


def variation_items(result: StagingResult) -> sr.ContentSequence | None:
    """Make the coefficient of variation of each feature in %, with the feature's name; None if it is not known."""
    found = result.robustness
    known = {} if found is None else {name: cv for name, cv in found.features.items() if cv is not None}
    return sr.ContentSequence([_variation(name, cv) for name, cv in known.items()]) if known else None


def _variation(feature: str, variation: float) -> sr.NumContentItem:
    item = sr.NumContentItem(VARIATION, 100 * variation, unit_code("%"), None, sr.RelationshipTypeValues.CONTAINS)
    item.MeasuredValueSequence[0].NumericValue = _rounded(100 * variation, 3)
    item.ContentSequence = sr.ContentSequence(
        [sr.TextContentItem(FEATURE, feature, sr.RelationshipTypeValues.HAS_CONCEPT_MOD)]
    )
    return item


def contributions(result: StagingResult, words: Wording) -> sr.ContentSequence:
    """Make the contribution of each input to the logit, with the input's name, strongest first."""
    return sr.ContentSequence(
        [_contribution(words.contribution, name, value) for name, value in strongest_first(result)]
    )


def strongest_first(result: StagingResult) -> list[tuple[str, float]]:
    """Sort inputs by the size of their contribution (logit units); equal ones stay in the model's order."""
    return sorted(result.contributions.items(), key=lambda item: -abs(item[1]))


def _contribution(concept: Code, source: str, value: float) -> sr.NumContentItem:
    item = sr.NumContentItem(concept, value, unit_code("1"), None, sr.RelationshipTypeValues.CONTAINS)
    item.MeasuredValueSequence[0].NumericValue = _rounded(value, 3)
    item.ContentSequence = sr.ContentSequence(
        [
            sr.TextContentItem(
                COVARIATE if source in COVARIATES else FEATURE, source, sr.RelationshipTypeValues.HAS_CONCEPT_MOD
            )
        ]
    )
    return item
