"""Descriptors as a separate measurement group (TID 1411), with a separate algorithm identification.

They are computed from the same outline as the model's inputs. They are not inputs of the model and do not explain its
answer. They therefore have another group and another algorithm than the model. Concepts of the standard are used if
there is one, else private concepts. The level of evidence of each descriptor is its Measurement Method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from lungstage.appliance.descriptors.definitions import Worth
from lungstage.appliance.descriptors.size import LARGEST, T_LIMITS
from lungstage.appliance.descriptors.values import Descriptor, Descriptors
from lungstage.appliance.report.context import ReportContext
from lungstage.appliance.report.descriptor_words import in_unit
from lungstage.appliance.report.headers import MANUFACTURER
from lungstage.appliance.report.measurements import measurement
from lungstage.appliance.report.translation import Translator
from lungstage.appliance.report.vocabulary import CONCEPTS, HOUNSFIELD, private

DESCRIPTORS: Final = private("DESCRIPTORS", "Descriptors of the tumour (research use only)")
DESCRIPTION: Final = private("DESCRIPTION", "Description of the tumour")
ALGORITHM: Final = "lungstage descriptors"

_EQUAL_VOLUME: Final = private("EQUALVOLUMEBALL", "Of the ball of the same volume")
_SOLID_PART: Final = Code("RID50154", "RADLEX", "solid component of part-solid pulmonary nodule")


@dataclass(frozen=True, slots=True)
class Concept:
    """Codes of a descriptor.

    Attributes
    ----------
    name
        Concept name of the measurement.
    unit
        UCUM code of the written value; a share is written in %.
    derivation, site
        Modifiers that distinguish it from others of the same concept, if needed.
    """

    name: Code
    unit: str
    derivation: Code | None = None
    site: Code | None = None


NUMBERS: Final[Mapping[str, Concept]] = MappingProxyType(
    {
        "long_axis_mm": Concept(codes.SCT.LongAxis, "mm"),
        "short_axis_mm": Concept(codes.SCT.ShortAxis, "mm"),
        "diameter_3d_mm": Concept(CONCEPTS["original_shape_Maximum3DDiameter"].concept, "mm"),
        "volume_mm3": Concept(Code("YEKZ", "IBSI", "Volume from Voxel Summation"), "mm3"),
        "effective_diameter_mm": Concept(codes.SCT.Diameter, "mm", derivation=_EQUAL_VOLUME),
        "solid_long_axis_mm": Concept(codes.SCT.LongAxis, "mm", site=_SOLID_PART),
        "mean_hu": Concept(codes.DCM.AttenuationCoefficient, HOUNSFIELD, derivation=codes.cid7464.Mean),
        "solid_share": Concept(private("SOLIDSHARE", "Share of the tissue that is solid"), "%"),
        "radial_spread": Concept(private("RADIALSPREAD", "Spread of the radius (SD / mean)"), "1"),
        "irregularity": Concept(private("IRREGULARITY", "1 - perimeter of the hull / perimeter"), "1"),
        "margin_sharpness": Concept(private("MARGINSHARPNESS", "Probability that readers call the margin sharp"), "1"),
        "edge_slope_hu_per_mm": Concept(private("EDGESLOPE", "Steepest fall of attenuation (median)"), "[hnsf'U]/mm"),
        "edge_width_mm": Concept(private("EDGEWIDTH", "Width of the edge (median)"), "mm"),
        "edge_offset_mm": Concept(private("EDGEOFFSET", "Distance of the outline from the edge (median)"), "mm"),
        "contact_share": Concept(private("CONTACTSHARE", "Share of the surface beside what is not lung"), "%"),
        "cavity_share": Concept(codes.DCM.CavityExtentAsPercentOfVolume, "%"),
        "dense_share": Concept(private("DENSESHARE", "Share above 200 HU, without bone"), "%"),
        "air_share": Concept(private("AIRSHARE", "Share of air outside cavities"), "%"),
        "components": Concept(private("PARTS", "Number of separate parts"), "1"),
    }
)
"""Concepts of the descriptors that are numbers."""

_SIZE_CLASS: Final = private("TSIZECLASS", "T, size class only (research use only)")
_SIZES: Final = MappingProxyType(
    {size: private(f"TSIZE-{size}", f"{size} by size alone") for size in (*(name for _, name in T_LIMITS), LARGEST)}
)

WORDS: Final[Mapping[str, tuple[Code, Mapping[str, Code]]]] = MappingProxyType(
    {
        "mean_hu": (
            codes.DCM.TextureDescriptor,
            {
                "solid": Code("RID50151", "RADLEX", "solid pulmonary nodule"),
                "part-solid": Code("RID50152", "RADLEX", "part-solid pulmonary nodule"),
                "ground glass": Code("RID50153", "RADLEX", "non-solid pulmonary nodule"),
            },
        ),
        "radial_spread": (
            private("ROUNDNESS", "Roundness"),
            {"round": codes.SCT.RoundShape, "not round": private("NOTROUND", "not round")},
        ),
        "irregularity": (
            codes.DCM.BorderShape,
            {"irregular": codes.SCT.Irregular, "smooth": private("SMOOTH", "smooth")},
        ),
        "margin_sharpness": (
            codes.DCM.BorderDefinition,
            {"sharp": codes.SCT.WellDefined, "ill-defined": codes.SCT.PoorlyDefined},
        ),
    }
)
"""Concepts of the descriptors that have words, and the code of each word."""

_METHODS: Final = MappingProxyType(
    {
        Worth.EXACT: private("EXACT", str(Worth.EXACT)),
        Worth.READERS: private("READERS", f"{Worth.READERS} of CT, not pathology"),
        Worth.COMPUTED: private("COMPUTED", str(Worth.COMPUTED)),
    }
)

NAMES_BY_CODES: Final[Mapping[tuple[str, str | None, str | None], str]] = MappingProxyType(
    {
        (one.name.value, one.derivation and one.derivation.value, one.site and one.site.value): name
        for name, one in NUMBERS.items()
    }
    | {(concept.value, None, None): f"{name}, word" for name, (concept, _) in WORDS.items()}
    | {(_SIZE_CLASS.value, None, None): "t_size_class"}
)
"""Names of descriptors by the code values of concept, Derivation and Finding Site."""


def codes_used() -> tuple[Code, ...]:
    """Return all codes of descriptors: concepts, modifiers, words, and levels of evidence."""
    numbers = (code for one in NUMBERS.values() for code in (one.name, one.derivation, one.site) if code is not None)
    words = (code for concept, values in WORDS.values() for code in (concept, *values.values()))
    return (DESCRIPTORS, DESCRIPTION, *numbers, *words, _SIZE_CLASS, *_SIZES.values(), *_METHODS.values())


def descriptor_group(
    context: ReportContext, found: Descriptors, segment: sr.ReferencedSegment, tracking: sr.TrackingIdentifier
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Make the measurement group of the descriptors, for the segment that they describe.

    It has the Tracking UID of the model's group, because both are about one tumour. OHIF joins groups by this UID, and
    opens no report with a group that has no outline.
    """
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_segment=segment,
        finding_type=context.finding,
        finding_sites=[sr.FindingSite(site) for site in context.sites] or None,
        algorithm_id=sr.AlgorithmIdentification(
            name=ALGORITHM,
            version=context.software_version,
            family=codes.DCM.MorphologicalOperations,
            manufacturer=MANUFACTURER,
        ),
        measurements=[_measurement(one) for one in found.found if one.definition.name in NUMBERS and _is_said(one)],
        qualitative_evaluations=list(_evaluations(found)),
    )


def _is_said(one: Descriptor) -> bool:
    return one.value is not None


def _measurement(one: Descriptor) -> sr.Measurement:
    concept, definition = NUMBERS[one.definition.name], one.definition
    value = float(one.value or 0) * (100 if concept.unit == "%" else 1)
    method = _METHODS[definition.worth]
    return measurement(concept.name, value, concept.unit, concept.derivation, method=method, site=concept.site)


def _evaluations(found: Descriptors) -> Iterator[sr.QualitativeEvaluation]:
    size = found["t_size_class"].value
    if size is not None:
        yield sr.QualitativeEvaluation(_SIZE_CLASS, _SIZES[str(size)])
    for name, (concept, words) in WORDS.items():
        if (word := found[name].word) is not None:
            yield sr.QualitativeEvaluation(concept, words[word])


_PLAIN: Final = {0xA0: " ", 0x2212: "-", 0xB3: "3"}  # characters that every character set contains


def sentences(found: Descriptors) -> Iterator[str]:
    """Describe the tumour: first what the descriptors are not, then each with its level of evidence and caveats."""
    yield "The descriptors are not inputs of the model and do not explain its answer. They are not pathology findings."
    if found.unfit:
        yield f"No ratings in words for this outline: {' '.join(found.unfit)}"
    say = Translator("en")
    for one in found.found:
        value = "not determined" if one.value is None else in_unit(one, say)
        told = f"{one.definition.title}: {value}"
        if one.word is not None:
            told += f", {one.word}"
        if one.percentile is not None:
            told += f", higher than in {one.percentile} % of LIDC lesions"
        why = one.reason if one.reason and one.value is None else ""
        yield " ".join((f"{told} ({one.badge}).", *([why] if why else ()), *one.caveats)).translate(_PLAIN)
