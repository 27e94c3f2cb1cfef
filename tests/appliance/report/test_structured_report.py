"""The structured report: its content, that it is repeated with the same bytes, and that other software reads it."""

from __future__ import annotations

import html
import json
import re
import struct
import warnings
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.spec import Endpoint, Stage, StagingResult
from lungstage.appliance.report.headers import decimal_string
from lungstage.appliance.report.measurements import (
    AGREEMENT,
    COVARIATE,
    DOMAIN_DISTANCE,
    FEATURE,
    NEIGHBOUR_DISTANCE,
    PREDICTIVE_VALUE,
    PROBABILITY_HIGH,
    PROBABILITY_LOW,
    VERSIONS,
)
from lungstage.appliance.report.preflight import faults_of
from lungstage.appliance.report.structured_report import (
    ANSWER,
    CONTRIBUTIONS,
    NOTICE,
    REASON,
    RESULT,
    VARIATIONS,
    WARNING,
    BundleIdentity,
    ReportContext,
    RoiSource,
    SegmentReference,
    build_report,
    build_segmentation,
    derive_uid,
)
from lungstage.appliance.report.vocabulary import CONCEPTS, PRIVATE_SCHEME
from lungstage.appliance.report.wording import CONTRIBUTION, PREDICTED_STAGE, PROBABILITY, wording
from tests.support.reports import (
    BARE,
    COVARIATES,
    FEATURES,
    OBLIQUE,
    SURVIVAL,
    WITH_NAN,
    dciodvfy_errors,
    generated_sources,
    made_up_context,
    of_survival,
    pixelmed_errors,
    reread,
    run_tool,
    tid1500reader,
    write_both,
)

pytestmark = pytest.mark.usefixtures("strict_dicom")

SEGMENT = SegmentReference("1.2.840.10008.5.1.4.1.1.66.4", "1.2.3.7.1", 2)


def _items(item: Dataset) -> list[Dataset]:
    children = list(item.get("ContentSequence", []))
    return children + [grandchild for child in children for grandchild in _items(child)]


def _named(item: Dataset, code_value: str) -> list[Dataset]:
    return [child for child in _items(item) if child.ConceptNameCodeSequence[0].CodeValue == code_value]


def _groups(report: Dataset) -> dict[str, Dataset]:
    return {group.ContentTemplateSequence[0].TemplateIdentifier: group for group in _named(report, "125007")}


ROBUSTNESS = [code.value for code in (PROBABILITY_LOW, PROBABILITY_HIGH, AGREEMENT, VERSIONS)]


class TestContent:
    report = reread(build_report(made_up_context(generated_sources()), SEGMENT))
    context = made_up_context(generated_sources())

    def test_kind(self) -> None:
        assert self.report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
        assert self.report.ConceptNameCodeSequence[0].CodeValue == "126000"
        assert self.report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
        assert (self.report.VerificationFlag, self.report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
        assert self.report.ContentQualification == "RESEARCH"
        (scheme,) = self.report.CodingSchemeIdentificationSequence
        assert scheme.CodingSchemeDesignator == PRIVATE_SCHEME

    def test_measurements_survive_exactly(self) -> None:
        measured = [
            item for item in _groups(self.report)["1411"].ContentSequence
            if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue not in (
                PROBABILITY.value, DOMAIN_DISTANCE.value, NEIGHBOUR_DISTANCE.value, PREDICTIVE_VALUE.value, *ROBUSTNESS)
        ]  # fmt: skip
        for name, value, item in zip(FEATURES, self.context.features.values, measured, strict=True):
            (number,) = item.MeasuredValueSequence
            assert number.FloatingPointValue == value
            assert float(number.NumericValue) == pytest.approx(value, rel=5e-6)
            assert len(str(number.NumericValue)) <= 13  # not more than six digits
            concept = CONCEPTS[name]
            assert item.ConceptNameCodeSequence[0].CodeValue == concept.concept.value
            assert number.MeasurementUnitsCodeSequence[0].CodeValue == concept.unit
            derivations = [child.ConceptCodeSequence[0].CodeValue for child in _named(item, "121401")]
            assert derivations == ([concept.derivation.value] if concept.derivation else [])

    def test_stage_and_probability(self) -> None:
        group = _groups(self.report)["1411"]
        (stage,) = _named(self.report, PREDICTED_STAGE.value)
        assert stage in list(group.ContentSequence)
        assert stage.ConceptCodeSequence[0].CodeMeaning == "advanced (III)"
        (probability,) = _named(group, PROBABILITY.value)
        assert probability.MeasuredValueSequence[0].FloatingPointValue == pytest.approx(81.23456789123456, rel=1e-15)
        assert probability.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "%"
        contributions = {
            _named(item, "FEATURE")[0].TextValue: item.MeasuredValueSequence[0].FloatingPointValue
            for item in _named(self.report, CONTRIBUTION.value)
        }
        assert contributions == self.context.result.contributions

    def test_never_passes_for_a_clinical_stage_or_a_certainty(self) -> None:
        used = {item.ConceptNameCodeSequence[0].CodeValue for item in _items(self.report)}
        assert not used & {"399537006", "111012", "111047"}

    def test_both_groups_track_the_same_finding(self) -> None:
        groups = _groups(self.report)
        assert set(groups) == {"1410", "1411"}
        for group in groups.values():
            (uid,) = _named(group, "112040")
            (label,) = _named(group, "112039")
            assert derive_uid(self.context.identity, "tracking") == uid.UID
            assert label.TextValue == "GTV-1: predicted stage advanced (III), research use only"

    def test_segment_and_key_slice_are_referred_to(self) -> None:
        groups = _groups(self.report)
        (segment,) = _named(groups["1411"], "121191")
        (reference,) = segment.ReferencedSOPSequence
        assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == ("1.2.3.7.1", 2)
        (region,) = _named(groups["1410"], "111030")
        assert region.GraphicType == "POLYLINE"
        assert region.GraphicData[:2] == region.GraphicData[-2:]
        key = int(np.argmax(self.context.mask.sum(axis=(1, 2))))
        image = region.ContentSequence[0].ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == self.context.sources[key].SOPInstanceUID
        columns, rows = np.array(region.GraphicData).reshape(-1, 2).T
        covered = np.argwhere(self.context.mask[key])
        assert (rows.min(), columns.min()) == tuple(covered.min(axis=0))
        assert (rows.max(), columns.max()) == tuple(covered.max(axis=0) + 1)
        (area,) = _named(groups["1410"], "42798000")
        assert area.MeasuredValueSequence[0].FloatingPointValue == pytest.approx(len(covered) * 0.75 * 0.5)

    def test_evidence_lists_images_segmentation_and_contours(self) -> None:
        (study,) = self.report.CurrentRequestedProcedureEvidenceSequence
        listed = {
            (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        images = {("1.2.3.4", source.SOPInstanceUID) for source in self.context.sources}
        written = {(derive_uid(self.context.identity, "seg-series"), "1.2.3.7.1")}
        assert listed == images | written | {("1.2.3.6", "1.2.3.6.1")}
        (library,) = _named(self.report, "111028")
        assert len(_named(library, "260753009")) == len(self.context.sources)

    def test_algorithm_and_equipment_name_the_bundle(self) -> None:
        group = _groups(self.report)["1411"]
        assert [item.TextValue for item in _named(group, "111001")] == ["lung1-stage"]
        assert f"manifest SHA-256 {'ab' * 32}" in [item.TextValue for item in _named(group, "111002")]
        assert _named(group, "111000")[0].ConceptCodeSequence[0].CodeValue == "123110"
        (ours,) = [e for e in self.report.ContributingEquipmentSequence if e.Manufacturer == "lungstage"]
        other = replace(self.context, bundle=replace(self.context.bundle, digest="12" * 32))
        theirs = build_report(other, SEGMENT).ContributingEquipmentSequence
        assert ours.DeviceUID not in {item.get("DeviceUID") for item in theirs}

    def test_the_bundle_s_digest_is_pinned_in_both_documents(self) -> None:
        for digest in ("ab" * 32, "12" * 32):
            context = replace(self.context, bundle=replace(self.context.bundle, digest=digest))
            report, segmentation = build_report(context, SEGMENT), build_segmentation(context)
            assert report.DeviceSerialNumber == segmentation.DeviceSerialNumber == digest
            (ours,) = [e for e in report.ContributingEquipmentSequence if e.Manufacturer == "lungstage"]
            assert ours.DeviceUID == derive_uid(digest, "device-0.1.0")
            assert [item.TextValue for item in _named(report, "121016")] == [digest]  # Device Observer Serial Number
            parameters = [item.TextValue for item in _named(_groups(report)["1411"], "111002")]
            assert [text for text in parameters if "SHA-256" in text] == [f"manifest SHA-256 {digest}"]

    def test_limits_are_said(self) -> None:
        notices = " ".join(item.TextValue for item in _named(self.report, NOTICE.value))
        for words in ("RESEARCH USE ONLY", "61 % of them", "no patient of stage IV", "CC BY-NC", "IBSI's IPH6 plus 3"):
            assert words in notices
        assert [item.TextValue for item in _named(self.report, WARNING.value)] == [
            "1 of 15 measurements lies outside the range of the training cohort. The model extrapolates there: "
            "Normalized Inverse Difference Moment of GLCM.",
            "The contours were matched by geometry.",
        ]

    def test_the_result_stands_first_and_what_the_template_orders_in_its_order(self) -> None:
        contained = [item for item in self.report.ContentSequence if item.RelationshipType == "CONTAINS"]
        order = [item.ConceptNameCodeSequence[0].CodeValue for item in contained]
        assert order == [RESULT.value, "111028", "126010", "C0034375", CONTRIBUTIONS.value, VARIATIONS.value]
        first, second, chance, robustness, worth, *rest = contained[0].ContentSequence
        assert "between 71 % and 89 % (95 % range), and 28 of 29 answers are the same" in robustness.TextValue
        assert first.TextValue.startswith("RESEARCH USE ONLY: not for diagnosis or treatment.")
        assert second.TextValue == (
            "Predicted stage: advanced (III). Probability of advanced stage: 81 %, at the training cohort's prevalence "
            "of 61 %."
        )
        assert chance.TextValue == (
            "Probability that this answer is correct: 78 % (95 % interval 66 % to 87 %). It holds if 61 % of patients "
            "are such cases (as in the training cohort). Estimated on 160 patients of NSCLC-Radiomics (62 early, 98 "
            "advanced), with models that were not trained on them."
        )
        assert worth.TextValue.startswith(
            "This model is not shown to be better than a simple model of two features (sphericity and volume). Its AUC "
            "in cross-validation is 0.704"
        )
        assert {item.ConceptNameCodeSequence[0].CodeValue for item in rest} == {WARNING.value}

    def test_that_there_is_no_warning_is_said_and_is_none(self) -> None:
        context = made_up_context(generated_sources())
        result = replace(context.result, domain=replace(context.result.domain, outside=()))
        sound = reread(build_report(replace(context, result=result, warnings=(), others=()), SEGMENT))
        assert [item.TextValue for item in _named(sound, WARNING.value)] == []
        told = [item.TextValue for item in _named(sound, RESULT.value)[0].ContentSequence]
        assert told[-1].startswith("No warnings.")
        assert "No warnings" not in _notices(self.report), "this report has warnings"

    def test_the_first_number_says_probability_and_research(self) -> None:
        first = next(item for item in _items(_named(self.report, "126010")[0]) if item.ValueType == "NUM")
        meaning = first.ConceptNameCodeSequence[0].CodeMeaning
        assert meaning == "Model probability of advanced stage (research)"
        assert str(first.MeasuredValueSequence[0].NumericValue) == "81.2"

    def test_each_item_has_a_line_of_its_own_but_for_the_slices(self) -> None:
        (library,) = _named(self.report, "111028")
        slices = [item for item in (library, *_items(library)) if item.ValueType == "CONTAINER"]
        containers = [item for item in (self.report, *_items(self.report)) if item.ValueType == "CONTAINER"]
        assert {item.ContinuityOfContent for item in slices} == {"CONTINUOUS"}
        assert {item.ContinuityOfContent for item in containers if item not in slices} == {"SEPARATE"}

    def test_contributions_are_sorted_by_what_they_weigh(self) -> None:
        (parts,) = _named(self.report, CONTRIBUTIONS.value)
        weights = [abs(item.MeasuredValueSequence[0].FloatingPointValue) for item in parts.ContentSequence]
        assert weights == sorted(weights, reverse=True)
        told = [item.TextValue for item in _named(self.report, REASON.value)]
        assert len(told) == len(weights)
        for text, item in zip(told, parts.ContentSequence, strict=True):
            value = item.MeasuredValueSequence[0].FloatingPointValue
            assert _named(item, FEATURE.value)[0].TextValue in text
            assert f"favours {'advanced (III)' if value > 0 else 'early (I-II)'}, logit {value:+.2g}" in text


def _notices(report: Dataset) -> str:
    return " ".join(item.TextValue for item in _named(report, NOTICE.value))


def _with(context: ReportContext, **changes: Any) -> ReportContext:
    """The same context with a changed result or bundle."""
    result = {k: v for k, v in changes.items() if k in StagingResult.__slots__}
    bundle = {k: v for k, v in changes.items() if k in BundleIdentity.__slots__}
    return replace(
        context, result=replace(context.result, **result), bundle=replace(context.bundle, **bundle),
        **{k: v for k, v in changes.items() if k == "covariates"},
    )  # fmt: skip


def test_both_distances_are_said_under_concepts_of_their_own() -> None:
    report = reread(build_report(made_up_context(generated_sources()), SEGMENT))
    for concept, value in ((DOMAIN_DISTANCE, 2.345), (NEIGHBOUR_DISTANCE, 0.789)):
        (item,) = _named(_groups(report)["1411"], concept.value)
        assert item.MeasuredValueSequence[0].FloatingPointValue == value
        assert item.ConceptNameCodeSequence[0].CodingSchemeDesignator == PRIVATE_SCHEME


@pytest.mark.parametrize("stage", list(Stage))
def test_indeterminate_is_said_in_a_sentence_and_only_then(stage: Stage) -> None:
    report = reread(build_report(_with(made_up_context(generated_sources()), stage=stage), SEGMENT))
    sentence = (
        "Indeterminate: the measurements do not clearly favour one stage group (class-conditional conformal "
        "prediction, alpha 0.2)."
    )
    assert (sentence in _notices(report)) is (stage is Stage.INDETERMINATE)


def test_a_corrected_probability_says_at_which_prevalence_it_holds() -> None:
    report = reread(build_report(_with(made_up_context(generated_sources()), prevalence=0.255), SEGMENT))
    assert "61 % of them advanced stage" in _notices(report)
    assert "corrected to this site's prevalence of 25.5 %" in _notices(report)
    assert "The probability is valid at this prevalence only" not in _notices(report)


def test_covariates_are_stated_with_their_contributions() -> None:
    context = made_up_context(generated_sources())
    shares = {**context.result.contributions, "age": 0.5, "sex": 0.0, "histology": -0.25}
    report = reread(build_report(_with(context, covariates=COVARIATES, contributions=shares), SEGMENT))
    assert (
        "Covariates used: age 63.25 a, histology adenocarcinoma; missing, with the training median in place: sex."
        in _notices(report)
    )
    told = {
        _named(item, COVARIATE.value)[0].TextValue: item.MeasuredValueSequence[0].FloatingPointValue
        for item in _named(report, CONTRIBUTION.value)
        if _named(item, COVARIATE.value)
    }
    assert told == {"age": 0.5, "sex": 0.0, "histology": -0.25}
    assert len(_named(report, FEATURE.value)) == 15 + 15, "15 with a contribution and 15 with a variation"
    assert "Covariates" not in _notices(reread(build_report(context, SEGMENT)))


class TestAnotherEndpoint:
    """A model for another endpoint than the stage never mentions a stage."""

    @pytest.mark.parametrize("stage", list(Stage))
    def test_nowhere_the_word(self, stage: Stage, tmp_path: Path) -> None:
        context = _with(
            made_up_context(generated_sources()), stage=stage, endpoint=SURVIVAL, covariates=COVARIATES,
            prevalence=0.25, name="survival", intended_use="Research on survival.",
        )  # fmt: skip
        for path in write_both(context, tmp_path):
            # All texts of the object, without the product's name, which a coding scheme also contains.
            text = pydicom.dcmread(path).to_json().lower().replace("lungstage", "")
            assert "stag" not in text
        report = pydicom.dcmread(tmp_path / "sr.dcm")
        answer = {Stage.EARLY: "alive", Stage.ADVANCED: "dead"}.get(stage, "indeterminate")
        (label, _) = _named(report, "112039")
        assert label.TextValue == f"GTV-1: predicted two-year survival {answer}, research use only"
        (predicted,) = [i for i in _items(report) if i.ConceptNameCodeSequence[0].CodeValue.startswith("CLASS-")]
        assert (
            predicted.ConceptNameCodeSequence[0].CodeMeaning
            == "Predicted class: two-year survival (radiomics model, research)"
        )
        assert predicted.ConceptCodeSequence[0].CodeMeaning == answer
        (probability,) = [i for i in _items(report) if i.ConceptNameCodeSequence[0].CodeValue.startswith("PROB-")]
        assert probability.ConceptNameCodeSequence[0].CodeMeaning == "Model probability of class dead (research)"
        (answered,) = [i.TextValue for i in _items(report) if i.ConceptNameCodeSequence[0].CodeValue == ANSWER.value]
        assert answered.startswith(f"Predicted two-year survival: {answer}")
        assert "Probability of class dead: 81 %, at this site's prevalence of 25 %." in answered
        towards = {i.TextValue.partition(": favours ")[2].partition(",")[0] for i in _named(report, REASON.value)}
        assert towards == {"alive", "dead"}
        assert "The endpoint is two-year survival: alive or dead." in _notices(report)
        assert "61 % of them of class dead" in _notices(report)
        assert ("do not clearly favour one class" in _notices(report)) is (stage is Stage.INDETERMINATE)

    def test_a_code_keeps_its_meaning_over_all_bundles(self) -> None:
        first = wording(SURVIVAL)
        turned = wording(Endpoint("two-year survival", "dead", "alive"))
        assert {first.predicted, first.probability, *first.classes.values()} & {
            turned.predicted, turned.probability, *turned.classes.values(),
        } == {first.classes[Stage.INDETERMINATE]}  # fmt: skip
        assert wording(SURVIVAL) == first

    @given(st.text(min_size=1, max_size=64))
    def test_codes_fit_their_elements(self, name: str) -> None:
        words = wording(Endpoint(name, "no", name))
        for code in (words.predicted, words.probability, words.contribution, *words.classes.values()):
            assert len(code.value) <= 16
            assert len(code.meaning) <= 64


@pytest.mark.parametrize("stage", list(Stage))
def test_each_stage_has_its_label(stage: Stage) -> None:
    context = made_up_context(generated_sources())
    report = reread(build_report(replace(context, result=replace(context.result, stage=stage)), SEGMENT))
    meaning = _named(report, PREDICTED_STAGE.value)[0].ConceptCodeSequence[0].CodeMeaning
    assert meaning.startswith(stage.value)
    assert meaning in _named(report, "112039")[0].TextValue


def test_a_segmentation_that_came_in_is_listed_once() -> None:
    source = RoiSource(SEGMENT.sop_class_uid, SEGMENT.sop_instance_uid, "1.2.3.7", "1.2.3")
    context = made_up_context(generated_sources(), segmentation=SEGMENT, roi_source=source)
    report = reread(build_report(context, SEGMENT))
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence] == ["1.2.3.4", "1.2.3.7"]


def test_a_failed_feature_has_a_qualifier_and_no_number() -> None:
    report = reread(build_report(made_up_context(generated_sources(), features=WITH_NAN), SEGMENT))
    failed = [item for item in _items(report) if "NumericValueQualifierCodeSequence" in item]
    assert len(failed) == 2
    for item in failed:
        assert len(item.MeasuredValueSequence) == 0
        assert item.NumericValueQualifierCodeSequence[0].CodeValue == "114008"
    assert len([item for item in _groups(report)["1411"].ContentSequence if item.ValueType == "NUM"]) == 23


def test_highdicom_reads_it(tmp_path: Path) -> None:
    context = made_up_context(generated_sources())
    _, path = write_both(context, tmp_path)
    report = hd.sr.srread(path)
    (group,) = report.content.get_volumetric_roi_measurement_groups(
        tracking_uid=derive_uid(context.identity, "tracking")
    )
    values = {(m.name.value, m.derivation and m.derivation.value): m.value for m in group.get_measurements()}
    for name, value in zip(FEATURES, context.features.values, strict=True):
        derivation = CONCEPTS[name].derivation
        assert values[CONCEPTS[name].concept.value, derivation.value if derivation else None] == value
    (planar,) = report.content.get_planar_roi_measurement_groups()
    assert planar.tracking_uid == group.tracking_uid
    segment = group.referenced_segment
    assert segment is not None
    assert segment.referenced_sop_instance_uid == derive_uid(context.identity, "seg")


class TestReproducibility:
    def test_same_bytes(self, tmp_path: Path) -> None:
        for run in ("first", "second"):
            (tmp_path / run).mkdir()
            write_both(made_up_context(generated_sources()), tmp_path / run)
        for name in ("seg.dcm", "sr.dcm"):
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

    def test_identity_moves_every_uid_but_the_device(self) -> None:
        context = made_up_context(generated_sources())
        uids = []
        for identity in ("cd" * 32, "ef" * 32):
            report = reread(build_report(replace(context, identity=identity), SEGMENT))
            uids.append({element.value for element in report.iterall() if element.VR == "UI" and element.VM == 1})
        drawn = {uid for uid in uids[0] if uid.startswith("2.25.")}
        kept = drawn & uids[1]
        scheme = derive_uid(PRIVATE_SCHEME, "coding-scheme")
        assert kept == {derive_uid(context.bundle.digest, "device-0.1.0"), scheme}
        assert not [uid for uid in uids[0] if uid.startswith("1.2.826.0.1.3680043.10.511")]

    @pytest.mark.parametrize("zone", [None, timezone(timedelta(hours=2))])
    def test_dates_come_from_the_caller(self, zone: timezone | None) -> None:
        created = datetime(2021, 12, 31, 23, 59, 58, 5000, tzinfo=zone)
        context = made_up_context(generated_sources(), created=created)
        for dataset in (build_segmentation(context), build_report(context, SEGMENT)):
            dates = {
                element.value[:8]
                for element in reread(dataset).iterall()
                if element.VR in ("DA", "DT")
                and element.value
                and element.keyword not in ("StudyDate", "PatientBirthDate")
            }
            assert dates == {"20211231"}

    def test_uid_form(self) -> None:
        uid = derive_uid("ab", "sr")
        assert uid.is_valid
        assert uid == derive_uid("ab", "sr") != derive_uid("ab", "seg")
        assert int(uid.removeprefix("2.25.")) < 2**128


class TestSources:
    """Headers of all kinds: complete, incomplete and wrong."""

    def test_name_survives_but_is_told_to_no_one(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # highdicom's warning about names with one component quotes the name.
            paths = write_both(made_up_context(generated_sources(PatientName="Müllerßön")), tmp_path)
        said = capfd.readouterr()
        for text in (said.out, said.err, caplog.text, *(str(warning.message) for warning in caught)):
            assert "Müllerßön" not in text
            assert "P-17" not in text
        for path in paths:
            dataset = pydicom.dcmread(path)
            assert str(dataset.PatientName) == "Müllerßön"
            del dataset.PatientName, dataset.PatientID
            assert "ller" not in dataset.to_json()
            assert "P-17" not in dataset.to_json()

    def test_region_name_in_any_script(self) -> None:
        report = reread(build_report(made_up_context(generated_sources(), roi_name="肿瘤 Größe"), SEGMENT))
        assert _named(report, "112039")[0].TextValue.startswith("肿瘤 Größe: ")
        assert str(report.PatientName) == "Müller^Jürgen"

    @pytest.mark.parametrize(
        ("keyword", "vr", "wrong"),
        [
            ("StudyID", "SH", "IBSI_1_STS_002_CT1"),
            ("PatientSex", "CS", "W"),
            ("PatientBirthDate", "DA", "1.2.1950"),
            ("StudyDate", "DA", "99999999"),
            ("StudyDate", "DA", "20260101\\20260102"),
            ("StudyDescription", "PN", "Chest"),
            ("StudyTime", "TM", "noon"),
            ("PatientWeight", "DS", "heavy"),
            ("SliceThickness", "DS", "nan"),
            ("SliceThickness", "DS", "2\\3"),
            (
                "DeidentificationMethodCodeSequence",
                "SQ",
                "\xfe\xff\0\xe0\x0b\0\0\0(\0\x10\0US\3\0odd",
            ),
        ],
    )
    def test_values_that_dicom_forbids_are_left_out(self, keyword: str, vr: str, wrong: str) -> None:
        sources = generated_sources()
        tag = Tag(keyword)
        for source in sources:  # as it is read from disk
            source._dict[tag] = RawDataElement(tag, vr, len(wrong), wrong.encode("latin-1"), 0, False, True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for dataset in (
                build_report(made_up_context(sources), SEGMENT),
                build_segmentation(made_up_context(sources)),
            ):
                assert not reread(dataset).get(keyword)

    def test_poor_headers(self, tmp_path: Path) -> None:
        gone = ("PatientSex", "PatientBirthDate", "StudyID", "AccessionNumber", "StudyDate", "StudyTime", "PatientID",
                "ReferringPhysicianName", "SpecificCharacterSet", "PositionReferenceIndicator", "Manufacturer",
                "SliceThickness")  # fmt: skip
        sources = generated_sources(drop=gone, PatientName="")
        for path in write_both(made_up_context(sources), tmp_path):
            dataset = pydicom.dcmread(path)
            for keyword in ("PatientName", "PatientID", "PatientSex", "StudyID", "StudyDate", "ReferringPhysicianName"):
                assert dataset[keyword].is_empty
        report = hd.sr.srread(tmp_path / "sr.dcm")
        assert not _named(report, "112225")  # no slice thickness is invented

    def test_deidentification_is_handed_on(self) -> None:
        method = Dataset()
        method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
        method.CodeMeaning = "Basic Application Confidentiality Profile"
        sources = generated_sources(
            PatientIdentityRemoved="YES", DeidentificationMethod="By hand", DeidentificationMethodCodeSequence=[method]
        )
        for dataset in (build_segmentation(made_up_context(sources)), build_report(made_up_context(sources), SEGMENT)):
            written = reread(dataset)
            assert written.PatientIdentityRemoved == "YES"
            assert written.DeidentificationMethod == "By hand"
            assert written.DeidentificationMethodCodeSequence[0].CodeValue == "113100"

    def test_long_decimal_strings_are_rounded_not_lost(self) -> None:
        sources = generated_sources()
        for source in sources:
            raw = b"0.9765625146484375123\\0.9765625146484375123"
            tag = source["PixelSpacing"].tag
            source._dict[tag] = RawDataElement(tag, "DS", len(raw), raw, 0, False, True)
        report = reread(build_report(made_up_context(sources), SEGMENT))
        assert float(_named(report, "111026")[0].MeasuredValueSequence[0].NumericValue) == pytest.approx(
            0.9765625146484375123, abs=1e-14
        )

    def test_a_report_names_the_one_that_it_follows(self) -> None:
        context = made_up_context(generated_sources())
        assert "PredecessorDocumentsSequence" not in build_report(context, SEGMENT)
        study = context.sources[0].StudyInstanceUID
        report = reread(build_report(replace(context, predecessor=Predecessor(study, "2.25.8", "2.25.9")), SEGMENT))
        (item,) = report.PredecessorDocumentsSequence
        (series,) = item.ReferencedSeriesSequence
        (reference,) = series.ReferencedSOPSequence
        assert (item.StudyInstanceUID, series.SeriesInstanceUID) == (study, "2.25.8")
        assert reference.ReferencedSOPInstanceUID == "2.25.9"
        assert reference.ReferencedSOPClassUID == report.SOPClassUID

    def test_what_all_slices_share_stands_once(self) -> None:
        sources = generated_sources()
        report = reread(build_report(made_up_context(sources), SEGMENT))
        for code in ("121139", "110910", "111026", "112225"):  # modality, rows, pixel spacing, slice thickness
            assert len(_named(report, code)) == 1
        sources[1].SliceThickness = 2 * sources[1].SliceThickness
        assert not _named(reread(build_report(made_up_context(sources), SEGMENT)), "112225")


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda v: v == 0 or 1e-99 < abs(v) < 1e99))
def test_decimal_string_is_short_and_near(value: float) -> None:
    text = decimal_string(value)
    assert len(text) <= 16
    assert pydicom.valuerep.DSfloat(text, validation_mode=pydicom.config.RAISE) == float(text)
    assert float(text) == pytest.approx(value, rel=1e-9, abs=0)
    if len(repr(value)) <= 16:
        assert struct.pack("d", float(text)) == struct.pack("d", value)


REAL = {
    "lung1": "dicom/lung1-001-slab/CT",
    "ibsi": "ibsi/ct_phantom/dicom/image",
    "sts": "dicom/STS_002/CT/image",
}


@pytest.fixture(scope="module", params=["generated", "oblique", "failed", "survival", *REAL])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A folder with seg.dcm, sr.dcm and a source slice, ct.dcm."""
    kind, folder = request.param, tmp_path_factory.mktemp("written")
    if kind in REAL:
        images = request.getfixturevalue("shared_data") / REAL[kind]
        files = sorted(images.glob("*.dcm"), key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))[4:16]
        sources = tuple(pydicom.dcmread(file, stop_before_pixels=True) for file in files)
        (folder / "ct.dcm").write_bytes(files[0].read_bytes())
    else:
        sources = generated_sources(orientation=OBLIQUE) if kind == "oblique" else generated_sources()
        sources[0].save_as(folder / "ct.dcm", enforce_file_format=True)
    # "failed" has all exceptions, also a source that gives neither kind nor site of the region.
    context = made_up_context(sources, **(BARE if kind == "failed" else {}))
    if kind == "survival":
        context = of_survival(context)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
        _, report = write_both(context, folder)
    assert faults_of(pydicom.dcmread(report)) == ()
    return kind, folder


class TestValidators:
    def test_dciodvfy_finds_nothing_new(self, written: tuple[str, Path]) -> None:
        _, folder = written
        accepted = dciodvfy_errors(folder / "ct.dcm")
        assert dciodvfy_errors(folder / "sr.dcm") <= accepted
        assert dciodvfy_errors(folder / "seg.dcm") <= accepted

    @pytest.mark.slow
    def test_pixelmed_finds_no_error_in_the_planar_group_alone(self, tmp_path: Path) -> None:
        """The other groups are in test_descriptors, a whole report in test_frames."""
        report = reread(build_report(made_up_context(generated_sources(count=2)), SEGMENT))
        (container,) = _named(report, "126010")
        container.ContentSequence = [_groups(report)["1410"]]
        report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
        assert pixelmed_errors(tmp_path / "sr.dcm") == []

    def test_dcmtk_reads_it(self, written: tuple[str, Path]) -> None:
        kind, folder = written
        done = run_tool("dsrdump", str(folder / "sr.dcm"))
        assert done.returncode == 0, done.stderr
        assert f"Model probability of {'class dead' if kind == 'survival' else 'advanced stage'}" in done.stdout
        assert done.stdout.count("Calculation failure") == (2 if kind == "failed" else 0)

    def test_a_plain_viewer_shows_the_result_first_and_each_number_with_its_name(
        self, written: tuple[str, Path]
    ) -> None:
        kind, folder = written
        done = run_tool("dsr2html", str(folder / "sr.dcm"), str(folder / "sr.html"))
        assert done.returncode == 0, done.stderr
        page = (folder / "sr.html").read_text(encoding="utf-8")
        text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2])).split())
        words = ("RESEARCH USE ONLY", "Predicted ", "Observer Type", "Image Library", " mm2")
        places = [text.index(word) for word in words]
        assert places == sorted(places)
        name = f"Model probability of {'class dead' if kind == 'survival' else 'advanced stage'} (research)"
        assert f"{name}: 81.2 %" in text
        for feature in FEATURES:
            assert re.search(rf"{re.escape(CONCEPTS[feature].concept.meaning)}: (-?[\d.]|empty)", text)
        assert "Inferred from" not in text  # a viewer shows such content in a footnote, without a name

    def test_dcmqi_reads_the_values_back(self, written: tuple[str, Path]) -> None:
        kind, folder = written
        done = tid1500reader(folder / "sr.dcm", folder / "out.json")
        assert done.returncode == 0, done.stderr
        volume = json.loads((folder / "out.json").read_text(encoding="utf-8"))["Measurements"][0]
        read = {
            (item["quantity"]["CodeValue"], item.get("derivationModifier", {}).get("CodeValue")): item["value"]
            for item in volume["measurementItems"]
        }
        features = WITH_NAN if kind == "failed" else made_up_context(generated_sources()).features
        for name, value in features.as_dict().items():
            derivation = CONCEPTS[name].derivation
            text = read[CONCEPTS[name].concept.value, derivation.value if derivation else None]
            assert (text == "") if value is None else (float(text) == pytest.approx(value, rel=5e-6))
        assert "research use only" in volume["TrackingIdentifier"]
