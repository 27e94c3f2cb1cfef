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
NEIGHBOUR_DISTANCE = private("NEIGHBOURDIST", "Distance to nearest training tumours (standard deviations)")


def measurement(name: Code, value: float, unit: str, derivation: Code | None = None) -> sr.Measurement:
    """One measurement; where `value` is not finite, one with the qualifier (114008, DCM, Calculation failure).

    The Decimal String of 16 characters is the nearest there is; Floating Point Value beside it holds `value` exactly.
    """
    if not math.isfinite(value):
        # The zero is for highdicom alone, which builds no measurement without a value: see blank_failures.
        failure = codes.DCM.CalculationFailure
        return sr.Measurement(name=name, value=0.0, unit=unit_code(unit), qualifier=failure, derivation=derivation)
    item = sr.Measurement(name=name, value=value, unit=unit_code(unit), derivation=derivation)
    item[0].MeasuredValueSequence[0].NumericValue = DSfloat(decimal_string(value))
    return item


def blank_failures(item: Dataset) -> None:
    """Empty, in place, the values of failed measurements: the qualifier takes their place (DICOM PS3.3 C.18.1)."""
    for child in item.get("ContentSequence", []):
        if "NumericValueQualifierCodeSequence" in child:
            child.MeasuredValueSequence = []
        blank_failures(child)


def feature_measurements(features: FeatureVector) -> list[sr.Measurement]:
    """Each feature under its concept (:data:`report.vocabulary.CONCEPTS`), in the vector's order."""
    return [
        measurement(CONCEPTS[name].concept, value, CONCEPTS[name].unit, CONCEPTS[name].derivation)
        for name, value in zip(features.names, features.values.tolist(), strict=True)
    ]


def domain_measurements(domain: DomainAssessment) -> list[sr.Measurement]:
    """Distances to the training cohort, to its centre and to its nearest tumours."""
    distances = {DOMAIN_DISTANCE: domain.distance, NEIGHBOUR_DISTANCE: domain.neighbour_distance}
    return [measurement(name, value, "1") for name, value in distances.items()]


def probability_measurement(result: StagingResult, words: Wording) -> sr.Measurement:
    """Probability in %, inferred from the contributions, each of which names its feature or covariate."""
    probability = measurement(words.probability, 100 * result.probability_advanced, "%")
    # Not below the features' own measurements: there TID 1419 has no row for a NUM but "inferred from".
    contributions = [_contribution(words.contribution, name, value) for name, value in result.contributions.items()]
    if contributions:
        probability[0].ContentSequence = sr.ContentSequence(contributions)
    return probability


def _contribution(concept: Code, source: str, value: float) -> sr.NumContentItem:
    item = sr.NumContentItem(concept, value, unit_code("1"), None, sr.RelationshipTypeValues.INFERRED_FROM)
    item.MeasuredValueSequence[0].NumericValue = DSfloat(decimal_string(value))
    item.ContentSequence = sr.ContentSequence(
        [
            sr.TextContentItem(
                COVARIATE if source in COVARIATES else FEATURE, source, sr.RelationshipTypeValues.HAS_CONCEPT_MOD
            )
        ]
    )
    return item
