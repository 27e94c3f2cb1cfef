"""Documents from sources and conditions that differ in one respect each; the changes show where values come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any, Final, Literal

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedCTImageStorage, SegmentationStorage

from lungstage.appliance.contract.case import KnownCovariates, Predecessor
from lungstage.appliance.contract.evidence import Answering, Estimate, PredictiveValue, Worth
from lungstage.appliance.contract.robustness import Robustness
from lungstage.appliance.contract.spec import Endpoint, Stage
from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.descriptors.values import Descriptor, Descriptors
from lungstage.appliance.report.context import ReportContext, RoiSource, SegmentReference
from lungstage.appliance.report.headers import _ADDED_LAST, _ALWAYS, _WHERE_PRESENT
from lungstage.appliance.report.structured_report import build_report, build_segmentation
from tests.appliance.descriptors.shapes import ball
from tests.support.reports import generated_sources, made_up_context, reread

Kind = Literal["SR", "SEG"]

_BY_VR: Final[dict[str, tuple[Any, Any]]] = {
    "PN": ("Name^One", "Name^Other"), "LO": ("one", "other"), "SH": ("one", "other"), "AS": ("061Y", "062Y"),
    "DS": ("1.7", "1.8"), "DA": ("20200102", "20210304"), "TM": ("030405", "060708"), "CS": ("M", "F"),
}  # fmt: skip
_PARTICULAR: Final[dict[str, tuple[Any, Any]]] = {
    "PatientIdentityRemoved": ("YES", "NO"),
    "LongitudinalTemporalInformationModified": ("REMOVED", "MODIFIED"),
}


def _values(which: int) -> dict[str, Any]:
    """Give a value to every element of patient, study and device that a document may copy; `which` of two values."""
    values: dict[str, Any] = {}
    for keyword in (*_ALWAYS, *_WHERE_PRESENT, *_ADDED_LAST):
        probe = Dataset()
        setattr(probe, keyword, None)
        vr = probe[keyword].VR
        if vr == "SQ":
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator = ("113100", "113101")[which], "DCM"
            code.CodeMeaning = ("one", "other")[which]
            values[keyword] = [code]
        else:
            values[keyword] = _PARTICULAR.get(keyword, _BY_VR[vr])[which]
    # Loss and acquisition time belong to the image; the document contains both.
    values |= {"LossyImageCompression": "01", "LossyImageCompressionRatio": ("10", "20")[which]}
    values |= {"LossyImageCompressionMethod": ("ISO_15444_1", "ISO_14495_1")[which]}
    values |= {"AcquisitionDate": ("20200102", "20200103")[which], "AcquisitionTime": ("030405", "030406")[which]}
    values |= {"StudyInstanceUID": ("1.2.3", "1.2.33")[which], "SeriesInstanceUID": ("1.2.3.4", "1.2.33.4")[which]}
    values |= {"FrameOfReferenceUID": ("1.2.3.5", "1.2.33.5")[which], "PixelSpacing": ([0.75, 0.5], [0.7, 0.6])[which]}
    values |= {"PositionReferenceIndicator": ("SN", "XY")[which], "SliceThickness": (2.5, 2.6)[which]}
    values |= {"ImageOrientationPatient": ([1, 0, 0, 0, 1, 0], [0, 1, 0, -1, 0, 0])[which]}
    return values


_BARE_LACKS = (
    "PositionReferenceIndicator", "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "PatientBirthDate",
    "PatientSex", "PatientName", "PatientID", "Manufacturer", "SliceThickness",
)  # fmt: skip


def _otherwise(found: Descriptors) -> Descriptors:
    """Give each descriptor another value and another word."""

    def other(one: Descriptor) -> Descriptor:
        value = "T4" if isinstance(one.value, str) else None if one.value is None else one.value + type(one.value)(1)
        word = next((word for word in one.definition.words if word != one.word), None)
        return replace(one, value=value, word=word)

    return replace(found, found=tuple(map(other, found.found)))


_DESCRIBED: Final = describe(*ball(12))

_OTHER: Final[dict[str, Any]] = {
    "roi_name": "GTV-2",
    "roi_source": RoiSource(SegmentationStorage, "1.2.3.6.2", "1.2.3.7", "1.2.3.11"),
    "identity": "12" * 32,
    "created": datetime(2025, 6, 7, 8, 9, 10, 456000, timezone(timedelta(hours=-5))),
    "software_version": "0.2.0",
    "warnings": ("Another warning.", "And a second one."),
    "predecessor": Predecessor("1.2.3", "1.2.3.88", "1.2.3.88.1"),
    "finding": codes.SCT.NeoplasmPrimary,
    "sites": (codes.SCT.UpperLobeOfLung,),
    "others": ((2, "GTV-2"),),
    "descriptors": _otherwise(_DESCRIBED),
}


def _rich(sources: tuple[Dataset, ...]) -> ReportContext:
    """Everything that a source and a report can contain."""
    made = made_up_context(
        sources,
        predecessor=Predecessor(str(sources[0].StudyInstanceUID), "1.2.3.99", "1.2.3.99.1"),
        covariates=KnownCovariates({"age": 63.0}, ("sex",), ()),
        descriptors=_DESCRIBED,
    )
    return replace(made, roi_source=replace(made.roi_source, study_instance_uid="1.2.3.1"))


def _bare(sources: tuple[Dataset, ...]) -> ReportContext:
    """Only what is required: a region from a SEG, and no warning."""
    made = made_up_context(sources, warnings=(), segmentation=SegmentReference(SegmentationStorage, "1.2.3.6.1", 2))
    # A bundle that is shown to be better than chance, and an answer without a predictive value.
    answering = Answering(0.6125, False, 0.5, 0.7, is_known=True)
    result = replace(
        made.result,
        domain=replace(made.result.domain, outside=()), answering=answering, robustness=None,
    )  # fmt: skip
    shown = Worth(Estimate(0.8, 0.7, 0.9), True, "volume", Estimate(0.6, 0.5, 0.7), True)
    made = replace(made, bundle=replace(made.bundle, worth=shown))
    of_the_ct = replace(
        made.roi_source, sop_class_uid=SegmentationStorage, study_instance_uid=str(sources[0].StudyInstanceUID)
    )
    return replace(made, result=result, finding=None, sites=(), roi_source=of_the_ct)


def _other_source() -> tuple[Dataset, ...]:
    """A completely different CT."""
    sources = generated_sources(8, **_values(1))
    for k, source in enumerate(sources):
        source.SOPInstanceUID, source.Rows, source.Columns = f"1.2.33.4.{k}", 26, 30
        source.ImagePositionPatient = [-80.0, 10.0, -200.0 + 2.6 * k]
    return sources


def _enhanced() -> ReportContext:
    """Frames of one Enhanced CT."""
    sources = generated_sources(**_values(0))
    for source in sources:
        source.SOPClassUID, source.SOPInstanceUID = EnhancedCTImageStorage, "1.2.3.4.1"
    return replace(_rich(sources), frames=tuple(range(3, 3 + len(sources))))


def _other_circumstances() -> ReportContext:
    """The same CT on another day, with another region, model, release and answer."""
    rich = _rich(generated_sources(**_values(0)))
    result = replace(
        rich.result,
        stage=Stage.EARLY,
        probability_advanced=0.1,
        contributions={key: value + 1 for key, value in rich.result.contributions.items()},
        domain=replace(rich.result.domain, distance=3.3, neighbour_distance=0.9),
        answering=Answering(
            0.2, True, 0.4, None, predictive_value=PredictiveValue(Estimate(0.9, 0.8, 0.95), 60, 39), is_known=True
        ),
        robustness=Robustness(30, 28, (0.05, 0.3), 0.75, dict.fromkeys(rich.features.names, 0.5)),
    )
    bundle = replace(rich.bundle, name="other-stage", version="2", digest="ef" * 32, rows=99, licence="another")
    features = replace(rich.features, values=rich.features.values + 1.0)
    mask = np.roll(rich.mask, (1, 1), axis=(1, 2))
    mask[np.flatnonzero(mask.any(axis=(1, 2)))[0]] = False
    return replace(rich, result=result, bundle=bundle, features=features, mask=mask, **_OTHER)


def _other_endpoint() -> ReportContext:
    """The same CT, and a model of another endpoint than stage."""
    rich = _rich(generated_sources(**_values(0)))
    return replace(rich, bundle=replace(rich.bundle, endpoint=Endpoint("two-year survival", "alive", "dead")))


_MAKERS: Final[dict[str, Callable[[], ReportContext]]] = {
    "rich": lambda: _rich(generated_sources(**_values(0))),
    "bare": lambda: _bare(generated_sources(drop=_BARE_LACKS)),
    "single": lambda: _bare(generated_sources(1)),
    "enhanced": _enhanced,
    "other source": lambda: _rich(_other_source()),
    "other circumstances": _other_circumstances,
    "other endpoint": _other_endpoint,
}


@cache
def document(kind: Kind, name: str) -> Dataset:
    """A document of one of the contexts, read back from its file."""
    made = _MAKERS[name]()
    if kind == "SEG":  # a SEG is written for contours only, which contain no finding and no site
        contours = replace(made, finding=codes.SCT.Neoplasm, sites=made.sites and (codes.SCT.Lung,))
        return reread(build_segmentation(contours))
    reference = made.segmentation
    if reference is None:
        segmentation = build_segmentation(made)
        reference = SegmentReference(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1)
    return reread(build_report(made, reference))
