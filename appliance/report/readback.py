"""Read a report back from its file: how it was made, in enough detail to make it again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, CTImageStorage
from pydicom.valuerep import DT

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS, NotRobust, RobustnessOptions
from lungstage.appliance.contract.spec import COVARIATES, Engine
from lungstage.appliance.dicom.files import prove_whole
from lungstage.appliance.dicom.instance import OWN_MODEL_NAME
from lungstage.appliance.dicom.multiframe import ENHANCED_CT
from lungstage.appliance.report.caveats import recognise
from lungstage.appliance.report.descriptor_items import ALGORITHM, NAMES_BY_CODES
from lungstage.appliance.report.vocabulary import FEATURES_BY_CODES, PRIVATE_SCHEME

Codes = tuple[str, str]

_LIBRARY: Final = ("111028", "DCM")
_MEASUREMENTS: Final = ("126010", "DCM")
_TRACKING: Final = ("112039", "DCM")
_SEGMENT: Final = ("121191", "DCM")
_PARAMETER: Final = ("111002", "DCM")
_DERIVATION: Final = ("121401", "DCM")
_CONTRIBUTIONS: Final = ("CONTRIBUTIONS", PRIVATE_SCHEME)
_PREDICTIVE_VALUE: Final = ("PREDICTIVEVALUE", PRIVATE_SCHEME)
_ROBUSTNESS: Final = tuple(
    (code, PRIVATE_SCHEME) for code in ("PROBABILITYLOW", "PROBABILITYHIGH", "AGREEMENT", "VERSIONS")
)
_VARIATION: Final = ("VARIATION", PRIVATE_SCHEME)
_GROUP: Final = ("125007", "DCM")
_ALGORITHM_NAME: Final = ("111001", "DCM")
_SITE: Final = ("363698007", "SCT")
_BEYOND: Final = re.compile(r"slices_beyond=(\d+)\+(\d+)")
_NOTICE: Final = ("NOTICE", PRIVATE_SCHEME)
_WARNING: Final = ("WARNING", PRIVATE_SCHEME)
_ENDINGS: Final = frozenset({"never_came", "never_came_one", "left_out", "clipped"})
_EXTRAPOLATED: Final = "outermost voxels are extrapolated."
_OTHERS: Final = frozenset({"agree", "older"})
_GIVE = "Give a file SR-….dcm from an outbox."
_VALUE = re.compile(r"(\w+)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Account:
    """What a report says about itself.

    Attributes
    ----------
    sop_instance_uid, study_instance_uid
        UIDs of the report and its study.
    created
        When it was made, with the offset of its time zone.
    software, library
        Versions of lungstage and of highdicom.
    bundle, bundle_digest
        Name and version of the bundle, and its digest.
    parameters
        Algorithm parameters, unchanged.
    studies
        Study Instance UIDs of the report's inputs. An RTSTRUCT or SEG may have another one than the CT.
    slices
        SOP Instance UIDs of the reference volume, in its order. Frames are named as in
        :attr:`appliance.dicom.header.ImageHeader.name`.
    roi, roi_label
        SOP Instance UID of the RTSTRUCT or SEG of the region, and the name of the region (cut if too long).
    segmentation
        SOP Instance UID of the SEG that the report refers to: `roi`, or the one that was written with the report.
    predecessor
        The report that this one replaces, if any.
    notices, warnings
        Sentences of the report.
    answer
        Code Meaning of the predicted class.
    probability
        Probability of the positive class in %.
    predictive_value
        Probability that the answer is correct, in %; None if the report does not contain it.
    features
        Values by PyRadiomics name; None if a value could not be computed.
    contributions
        Contributions of features and covariates in logit units.
    before, behind
        SOP Instance UIDs of slices beyond the reference volume that perturbed versions could use, as in `slices`.
    robustness
        Range, agreement and number of the perturbed versions, by code; empty if the report does not contain them.
    variations
        Coefficient of variation of features in perturbed versions, in %.
    descriptors
        Descriptors by name: numbers in the report's units, and Code Meanings of words; empty if the report contains
        none.
    """

    sop_instance_uid: str
    study_instance_uid: str
    created: datetime
    software: str
    library: str
    bundle: str
    bundle_digest: str
    parameters: tuple[str, ...]
    studies: tuple[str, ...]
    slices: tuple[str, ...]
    roi: str
    roi_label: str
    segmentation: str
    predecessor: Predecessor | None
    notices: tuple[str, ...]
    warnings: tuple[str, ...]
    answer: str
    probability: float | None
    predictive_value: float | None
    features: Mapping[str, float | None]
    contributions: Mapping[str, float | None]
    before: tuple[str, ...]
    behind: tuple[str, ...]
    robustness: Mapping[str, float | None]
    variations: Mapping[str, float | None]
    descriptors: Mapping[str, float | str | None]

    @property
    def name(self) -> str:
        """Name of the document in an outbox."""
        return f"SR-{self.sop_instance_uid}.dcm"

    @property
    def engine(self) -> Engine:
        """Engine that computed the features."""
        return "reference" if "engine=reference" in self.parameters else "compiled"

    @property
    def match_by_geometry(self) -> bool:
        """Whether slices were matched by position."""
        return "by_position" in self._codes

    @property
    def chosen_number(self) -> int | None:
        """Number of the region if a person chose it; None if a rule or a name did."""
        found = map(recognise, self.warnings)
        return next((int(values["number"]) for code, values in found if code == "chosen"), None)

    @property
    def ending(self) -> str:
        """Why slices next to the region were not used, in the words of the report; empty if they were used."""
        known = zip(self.warnings, self._codes, strict=True)
        return next((text for text, code in known if code in _ENDINGS or text.endswith(_EXTRAPOLATED)), "")

    @property
    def other_rois(self) -> bool:
        """Whether the result depends on other ROI objects than `roi`: one that agrees with it, or an older version."""
        return not _OTHERS.isdisjoint(self._codes)

    @property
    def prevalence(self) -> float | None:
        """Prevalence of the site that the probability was corrected to."""
        value = self._values.get("prevalence")
        return None if value is None else float(value)

    @property
    def covariates(self) -> dict[str, float | str]:
        """Covariates that the model was given."""
        known = {name: value for name, value in self._values.items() if name in COVARIATES}
        return {name: float(value) if name == "age" else value for name, value in known.items()}

    @property
    def options(self) -> RobustnessOptions:
        """Settings of the robustness test."""
        values = self._values
        if "perturbations" not in values:
            return NO_ROBUSTNESS
        not_robust: NotRobust = "indeterminate" if values["not_robust"] == "indeterminate" else "warn"
        return RobustnessOptions(int(values["perturbations"]), float(values["contour_mm"]), not_robust)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Settings of the site that this report of an earlier release does not contain in full."""
        text = "\n".join(self.notices)
        lacking = []
        if "was corrected to this site's prevalence" in text and self.prevalence is None:
            lacking.append("the site's prevalence")
        if re.search(r"Covariates used: (?!none)", text) and not self.covariates:
            lacking.append("the patient's covariates")
        return tuple(lacking)

    @property
    def _codes(self) -> tuple[str | None, ...]:
        """Code of each warning; None if it is not known."""
        return tuple(recognise(warning)[0] for warning in self.warnings)

    @property
    def _values(self) -> dict[str, str]:
        return {found[1]: found[2] for text in self.parameters if (found := _VALUE.fullmatch(text))}


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it was found: its file, the file's bytes, all elements, and what it says about itself."""

    path: Path
    content: bytes
    dataset: Dataset
    account: Account


def read_back(path: Path, content: bytes | None = None) -> Report:
    """Read a report.

    Parameters
    ----------
    path
        File of the report.
    content
        Bytes of the file, if they were read already.

    Raises
    ------
    Refused
        ``not_a_report``: the file is not a structured report of lungstage, or it is too damaged to be read.
    OSError
        The file cannot be read.
    """
    content = path.read_bytes() if content is None else content
    try:
        prove_whole(content)
        dataset = pydicom.dcmread(io.BytesIO(content))
        if dataset.SOPClassUID == Comprehensive3DSRStorage and dataset.ManufacturerModelName == OWN_MODEL_NAME:
            return Report(path, content, dataset, _account(dataset))
    except Exception as error:  # the bytes may be hostile: any error of the parser means that the file is unusable
        raise Refused(
            ReasonCode.NOT_A_REPORT, f"This file cannot be read as a structured report of lungstage. {_GIVE}"
        ) from error
    raise Refused(ReasonCode.NOT_A_REPORT, f"This file is not a structured report of lungstage. {_GIVE}")


def _account(dataset: Dataset) -> Account:
    every = tuple(_every(dataset))
    group = _child(next(item for item in every if _concept(item) == _MEASUREMENTS), 0)
    inside = tuple(group.ContentSequence)
    probability, *measured = (item for item in inside if item.ValueType == "NUM")
    parts = next((item for item in every if _concept(item) == _CONTRIBUTIONS), probability)  # until 0.2.0 below it
    contributions = {_text(_child(item, 0)): _number(item) for item in parts.get("ContentSequence", ())}
    segment = next(item for item in inside if _concept(item) == _SEGMENT)
    library = next(item for item in every if _concept(item) == _LIBRARY)
    ours = next(item for item in dataset.ContributingEquipmentSequence if item.get("DeviceUID"))
    theirs = next(i for i in dataset.ContributingEquipmentSequence if i.get("ManufacturerModelName") == "highdicom")
    segmentation = _referenced(segment)
    others = [uid for uid in _evidence(dataset) if uid != segmentation]
    parameters = tuple(_text(item) for item in inside if _concept(item) == _PARAMETER)
    slices = [_slice(item) for item in _every(library) if item.ValueType == "IMAGE"]
    beyond = next((_BEYOND.fullmatch(text) for text in parameters if _BEYOND.fullmatch(text)), None)
    first, last = (int(beyond[1]), len(slices) - int(beyond[2])) if beyond else (0, len(slices))
    return Account(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        created=_moment(ours),
        software=str(dataset.SoftwareVersions),
        library=str(theirs.SoftwareVersions),
        bundle=str(ours.SoftwareVersions[1]),
        bundle_digest=str(dataset.DeviceSerialNumber),
        parameters=parameters,
        studies=tuple(str(study.StudyInstanceUID) for study in _studies(dataset)),
        slices=tuple(slices[first:last]),
        roi=others[0] if others else segmentation,
        roi_label=next(_text(item) for item in inside if _concept(item) == _TRACKING).rsplit(": predicted ", 1)[0],
        segmentation=segmentation,
        predecessor=_predecessor(dataset),
        notices=tuple(_text(item) for item in every if _concept(item) == _NOTICE),
        warnings=tuple(_text(item) for item in every if _concept(item) == _WARNING),
        answer=next(_meaning(i) for i in inside if i.ValueType == "CODE" and _concept(i)[1] == PRIVATE_SCHEME),
        probability=_number(probability),
        predictive_value=next((_number(item) for item in measured if _concept(item) == _PREDICTIVE_VALUE), None),
        features={name: _number(item) for item in measured if (name := _feature(item))},  # distances, chance: none
        contributions=contributions,
        before=tuple(slices[:first]),
        behind=tuple(slices[last:]),
        robustness={_concept(item)[0]: _number(item) for item in measured if _concept(item) in _ROBUSTNESS},
        variations={_text(_child(item, 0)): _number(item) for item in every if _concept(item) == _VARIATION},
        descriptors=dict(_descriptors(every)),
    )


def _descriptors(every: tuple[Dataset, ...]) -> Iterator[tuple[str, float | str | None]]:
    """Give the descriptors: the group is known by its algorithm."""
    for group in (item for item in every if _concept(item) == _GROUP):
        inside = tuple(group.ContentSequence)
        if not any(_concept(item) == _ALGORITHM_NAME and _text(item) == ALGORITHM for item in inside):
            continue
        for item in inside:
            codes = _concept(item)[0], _modifier(item, _DERIVATION), _modifier(item, _SITE)
            if item.ValueType in ("NUM", "CODE") and (name := NAMES_BY_CODES.get(codes)):
                yield name, _number(item) if item.ValueType == "NUM" else _meaning(item)


def _moment(equipment: Dataset) -> datetime:
    """Return when this software contributed, by its own clock; content date and time may be in the CT's time zone."""
    moment = DT(equipment.ContributionDateTime)
    return datetime.combine(moment.date(), moment.time(), moment.tzinfo)


def _every(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _every(child)


def _child(item: Dataset, index: int) -> Dataset:
    child: Dataset = item.ContentSequence[index]
    return child


def _concept(item: Dataset) -> Codes:
    names = item.get("ConceptNameCodeSequence") or (Dataset(),)
    return str(names[0].get("CodeValue")), str(names[0].get("CodingSchemeDesignator"))


def _feature(item: Dataset) -> str | None:
    """Return the PyRadiomics name of a NUM item; None if it is not a feature."""
    return FEATURES_BY_CODES.get((*_concept(item), _modifier(item, _DERIVATION)))


def _modifier(item: Dataset, concept: Codes) -> str | None:
    """Return the code value of a modifier of an item, if it has one."""
    modifiers = (child for child in item.get("ContentSequence", ()) if _concept(child) == concept)
    return next((str(child.ConceptCodeSequence[0].CodeValue) for child in modifiers), None)


def _meaning(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def _text(item: Dataset) -> str:
    return str(item.TextValue)


def _number(item: Dataset) -> float | None:
    values = item.get("MeasuredValueSequence") or ()
    if not values:
        return None
    return float(values[0].get("FloatingPointValue", values[0].NumericValue))


def _referenced(item: Dataset) -> str:
    return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def _slice(item: Dataset) -> str:
    frame = item.ReferencedSOPSequence[0].get("ReferencedFrameNumber")
    return _referenced(item) + (f" frame {frame}" if frame else "")


def _predecessor(dataset: Dataset) -> Predecessor | None:
    for study in dataset.get("PredecessorDocumentsSequence", ()):
        series = study.ReferencedSeriesSequence[0]
        sop = series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        return Predecessor(str(study.StudyInstanceUID), str(series.SeriesInstanceUID), str(sop))
    return None


def _studies(dataset: Dataset) -> Iterator[Dataset]:
    """Give the evidence of the report's own study, then of other studies, each study as one item."""
    yield from dataset.CurrentRequestedProcedureEvidenceSequence
    yield from dataset.get("PertinentOtherEvidenceSequence", ())


def _evidence(dataset: Dataset) -> Iterator[str]:
    """Give the UIDs of the inputs that are not images."""
    for study in _studies(dataset):
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                if item.ReferencedSOPClassUID not in (CTImageStorage, *ENHANCED_CT):
                    yield str(item.ReferencedSOPInstanceUID)
