"""The result page: its content and order. It always fits on one sheet, and is repeated with the same bytes."""

from __future__ import annotations

import dataclasses
import io
import re
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from lungstage.appliance.contract.case import KnownCovariates, Predecessor
from lungstage.appliance.contract.documents import FORMATS, LANGUAGES, DocumentOptions, Language
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.contract.robustness import Robustness
from lungstage.appliance.contract.spec import (
    ALL_FEATURES,
    DomainAssessment,
    Endpoint,
    FeatureVector,
    Stage,
    StagingResult,
)
from lungstage.appliance.descriptors.describe import describe
from lungstage.appliance.report import fonts, outbox
from lungstage.appliance.report.page_documents import page_documents, page_names, refusal_documents
from lungstage.appliance.report.page_objects import drawn_with
from lungstage.appliance.report.page_pdf import WORDS, key_slice_pdf, page_pdf, refusal_pdf
from lungstage.appliance.report.plain_words import QUALITIES
from lungstage.appliance.report.refusal_page import RefusalContext, refusal_page
from lungstage.appliance.report.result_page import MOST_ROWS, PageContext, ResultPage, result_page
from lungstage.appliance.report.sheet import Sheet, Style
from lungstage.appliance.report.translation import Translator
from tests.appliance.descriptors.shapes import volume_of
from tests.support.pages import font_with, page_context, pdf_in, pixels_of, text_of
from tests.support.reports import (
    FEATURES,
    cohort,
    dciodvfy_errors,
    generated_sources,
    made_up_context,
    run_tool,
)

CREATED = datetime(2026, 3, 29, 1, 59, tzinfo=timezone(timedelta(hours=1)))


def made(language: Language = "en", **changes: Any) -> ResultPage:
    return result_page(page_context(**changes), language)


def result(**changes: Any) -> StagingResult:
    return dataclasses.replace(made_up_context(generated_sources()).result, **changes)


def bundle(**changes: Any) -> Any:
    return dataclasses.replace(made_up_context(generated_sources()).bundle, **changes)


def lumps() -> tuple[Any, Any]:
    """Two cavities on thick slices, one at the edge of the image. They need many warnings."""
    z, y, x = np.indices((24, 64, 64))
    near, far = (np.hypot(np.hypot((z - c) * 4.0, y - 30), x - d) for c, d in ((8, 12), (18, 50)))
    mask = (near < 14) | (far < 8)
    hu = np.where(mask & (near > 11), 30, -860).astype(np.int16)
    return volume_of(hu, (4.0, 1.0, 1.0)), mask


def lines_of(pdf: bytes, text: str) -> list[float]:
    """The height above the sheet's lower edge, in points, of each place where a text begins."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        page = document[0].get_textpage()
        found, searcher = [], page.search(text)
        while (at := searcher.get_next()) is not None:
            found.append(page.get_charbox(at[0])[1])
        return found
    finally:
        document.close()


class TestWhatItSays:
    def test_research_first_then_the_answer_then_how_sure_then_why_not(self) -> None:
        text = text_of(page_pdf(made()).pdf)
        order = [
            "RESEARCH USE ONLY", "Predicted: advanced (stage III)", "lies outside the range",
            "Probability of advanced stage: 81 %", "Reasons for caution", "What was measured",
            "What the answer is based on", "Not to be used for",
        ]  # fmt: skip
        places = [text.find(words) for words in order]
        assert -1 not in places
        assert places == sorted(places)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_research_use_only_stands_there_in_english_too(self, language: Language) -> None:
        assert text_of(page_pdf(made(language)).pdf).upper().count("RESEARCH USE ONLY") == 1

    def test_the_prevalence_is_the_site_s_where_it_said_one(self) -> None:
        assert "if 61\u00a0% of patients are such cases (as in the training cohort)" in made().probability
        at_site = made(result=result(prevalence=0.3, probability_advanced=0.45))
        assert at_site.probability.startswith("Probability of advanced stage: 45\u00a0%, if 30\u00a0%")
        assert "setting of this site" in at_site.probability
        assert "about 45 in 100" in at_site.certainty

    def test_an_answer_that_is_none_is_called_so_and_says_why(self) -> None:
        page = made(result=result(stage=Stage.INDETERMINATE, probability_advanced=0.6))
        assert page.headline == "Predicted: indeterminate"
        assert page.certainty.startswith("The measurements do not clearly favour one answer")

    def test_another_endpoint_never_says_stage(self) -> None:
        survival = bundle(name="survival", endpoint=Endpoint("two-year survival", "alive", "dead"), stages_absent=())
        for language in LANGUAGES:
            page = made(language, bundle=survival, warnings=())
            said = text_of(page_pdf(page).pdf).lower()
            assert "dead" in said
            assert not re.search(r"\bstage|\bstadi|\bstade", said)

    def test_a_tumour_unlike_the_cohort_s_is_told_before_any_number(self) -> None:
        unlike = ("The tumour differs from almost all tumours in the training cohort. The answer is doubtful.",)
        page = made(warnings=unlike)
        assert page.doubt.startswith("Outside what the model was trained")
        assert made(warnings=(), result=result(domain=DomainAssessment(1.0, 0.1, ()))).doubt == ""

    def test_contributions_are_sorted_and_each_has_plain_words(self) -> None:
        page = made()
        sizes = [abs(row.contribution) for row in page.rows]
        assert sizes == sorted(sizes, reverse=True)
        assert {row.name.split(" ")[0] for row in page.rows} == {name.rpartition("_")[2] for name in FEATURES}
        assert all(re.search(r"than (most|half|almost all|any in training)$", row.words) for row in page.rows)

    @pytest.mark.parametrize(
        ("value", "words", "share"),
        [
            (-1.5, "less round than any in training", -1.0), (-0.8, "less round than almost all", 0.03),
            (-0.5, "less round than most", 0.15), (-0.1, "less round than half", 0.42),
            (0.1, "rounder than half", 0.58), (0.5, "rounder than most", 0.85), (1.0, "rounder than almost all", 1.0),
            (1.1, "rounder than any in training", 2.0),
        ],
    )  # fmt: skip
    def test_where_a_value_lies_is_said_and_drawn_alike(self, value: float, words: str, share: float) -> None:
        name = "original_shape_Sphericity"
        features = FeatureVector((name,), np.array([value]))
        around = cohort(quantiles={name: cohort().quantiles[FEATURES[0]]})
        (row,) = made(features=features, result=result(contributions={name: 0.1}), cohort=around).rows
        assert (row.words, bool(row.range)) == (words, not 0 <= share <= 1)
        assert row.share == pytest.approx(share, abs=0.005)

    def test_a_feature_that_failed_is_not_made_up(self) -> None:
        values = np.full(len(FEATURES), np.nan)
        page = made(features=FeatureVector(FEATURES, values))
        assert {(row.words, row.value, row.share) for row in page.rows} == {("not computable", "–", None)}

    def test_a_name_that_two_inputs_share_is_told_with_its_class(self) -> None:
        names = ("original_glszm_GrayLevelNonUniformity", "original_glrlm_GrayLevelNonUniformity", FEATURES[0])
        context = made_up_context(generated_sources())
        domain = dataclasses.replace(context.result.domain, outside=names[::2])
        page = made(
            features=FeatureVector(names, np.ones(3)),
            result=result(domain=domain, contributions=dict.fromkeys(names, 0.1)),
        )
        assert "GrayLevelNonUniformity (glszm), MajorAxisLength." in page.caveats[0].text

    def test_every_feature_there_is_has_words(self) -> None:
        assert set(QUALITIES) == set(ALL_FEATURES)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_no_plain_words_are_cut_short(self, language: Language) -> None:
        """The plain words say in which direction a value differs; if space is short, the technical name is cut."""
        say, sheet = Translator(language), Sheet("plain words", language, CREATED)
        qualities = sorted({code for quality in QUALITIES.values() for code in (quality.high, quality.low)})
        told = [say("degree.any", quality=say(f"quality.{code}")) for code in qualities]
        for line, words in enumerate(told):
            sheet.text(10, 10 + 4 * line, words, Style(8.5), within=WORDS)
        assert len(told) * 4 < 280, "all words must be on the sheet"
        drawn = " ".join(text_of(sheet.drawing().pdf).split())
        assert [words for words in told if words not in drawn] == []

    def test_a_model_of_all_features_and_covariates_still_fits(self) -> None:
        names = (*ALL_FEATURES, "age", "sex", "histology")
        contributions = {name: 1.0 / (1 + k) for k, name in enumerate(names)}
        page = made(
            "de",
            features=FeatureVector(ALL_FEATURES, np.linspace(-2, 2, len(ALL_FEATURES))),
            result=result(contributions=contributions | {"age": -9.0, "histology": 5.0}),
            covariates=KnownCovariates({"age": 63.0, "sex": "F"}, ("histology",)),
            cohort=cohort(quantiles=dict.fromkeys(ALL_FEATURES, cohort().quantiles[FEATURES[0]])),
        )
        assert len(page.rows) == MOST_ROWS
        assert page.rows[0].value == "63,0"
        assert page.rows[1].value == "nicht bekannt"
        assert "94 weitere Größen" in page.rows_note
        text_of(page_pdf(page).pdf)

    def test_when_is_told_with_the_offset_from_utc(self) -> None:
        facts = dict(made(created=CREATED).facts)
        assert facts["Created"] == "2026-03-29 01:59 UTC+01:00 by lungstage 0.1.0"
        assert facts["Model"] == "lung1-stage 1.0.0 (abababababab)"

    def test_many_warnings_are_folded_and_the_gravest_stay(self) -> None:
        grave = "Almost no tumour in the training cohort resembles this one. The answer is doubtful."
        warnings = (*(f"Something unheard of, number {n}." for n in range(30)), grave)
        text = text_of(page_pdf(made(warnings=warnings)).pdf)
        assert grave in text
        assert re.search(r"and \d\d more, in the structured report", text)


NAMES = {
    "ISO_IR 100": ("Buc^Jérôme", "Buc, Jérôme"),
    "ISO_IR 101": ("Wałęsa^Lech", "Wałęsa, Lech"),
    "ISO_IR 144": ("Люкceмбypг^Роза", "Люкceмбypг, Роза"),
    "ISO_IR 126": ("Διονυσιος", None),
    "ISO_IR 127": ("قباني^لنزار", None),
    "ISO_IR 138": ("שרון^דבורה", None),
    "ISO_IR 166": ("นามสกุล^ชื่อต้น", None),
    "ISO_IR 192": ("Wang^XiaoDong=王^小东", "Wang, XiaoDong"),
    "GB18030": ("Wang^XiaoDong=王^小东", "Wang, XiaoDong"),
    "ISO_IR 13": ("ﾔﾏﾀﾞ^ﾀﾛｳ=ﾔﾏﾀﾞ^ﾀﾛｳ", None),
    "\\ISO 2022 IR 87": ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou"),
    "\\ISO 2022 IR 149": ("Hong^Gildong=洪^吉洞=홍^길동", "Hong, Gildong"),
}


class TestNames:
    @pytest.mark.parametrize("charset", NAMES)
    def test_a_name_is_written_where_its_letters_are_known_and_else_left_out_with_a_warning(
        self, charset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fonts, "SYSTEM_FOLDERS", (tmp_path,))
        fonts._system_faces.cache_clear()
        fonts._of_system.cache_clear()
        name, shown = NAMES[charset]
        specific = charset.split("\\") if "\\" in charset else charset
        sources = generated_sources(SpecificCharacterSet=specific, PatientName=name)
        page = result_page(page_context(sources), "en")
        if charset == "ISO_IR 126":  # the page's own font has some Greek letters
            shown = "Διονυσιος" if fonts.runs("Διονυσιος") else None
        assert page.heading.patient[0] == (shown or "(name cannot be displayed)")
        left_out = shown is None or "=" in name
        assert any("A name is missing" in one.text for one in page.caveats) == left_out
        assert (shown or "(name cannot be displayed)").replace("\u00a0", " ") in text_of(page_pdf(page).pdf)

    def test_a_font_of_the_system_draws_it_and_the_document_says_which(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        font = font_with("山田太郎やまだたろう", tmp_path / "kanji.ttf")
        monkeypatch.setattr(fonts, "SYSTEM_FOLDERS", (tmp_path,))
        fonts._system_faces.cache_clear()
        fonts._of_system.cache_clear()
        sources = generated_sources(SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎")
        context = page_context(sources)
        page = result_page(context, "en")
        assert page.heading.patient[0] == "Yamada, Tarou · 山田, 太郎"
        drawing = page_pdf(page)
        assert any(text.startswith(font.name) for text in drawing.made_with)
        plain = page_pdf(result_page(page_context(generated_sources(PatientName="Yamada^Tarou")), "en"))
        strip = slice(40, 52)  # the line of the patient, in points from the top
        assert (pixels_of(drawing.pdf)[strip] < 90).sum() > (pixels_of(plain.pdf)[strip] < 90).sum() + 100

    @settings(max_examples=12, deadline=None)
    @given(st.text(min_size=1, max_size=4096))
    def test_no_name_of_a_region_breaks_the_page_or_its_objects(self, name: str) -> None:
        context = page_context(roi_name=name, others=((2, name[::-1]),), warnings=(name,))
        assert text_of(pdf_in(page_documents(context, DocumentOptions(("sr", "pdf")))[0].content))

    def test_html_says_it_as_text(self) -> None:
        evil = '</b><script>alert("1")</script>&amp;'
        context = page_context(generated_sources(PatientID="<i>&"), roi_name=evil, warnings=(evil,))
        (document,) = page_documents(context, DocumentOptions(("sr", "html")))
        text = document.content.decode("utf-8")
        assert "<script" not in text
        seen: list[str] = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes: seen.append(tag)  # type: ignore[assignment]
        parser.feed(text)
        assert {"html", "table", "svg", "image"} <= set(seen)
        assert not {"script", "link", "iframe", "img", "object", "i"} & set(seen)
        assert not re.search(r'(src|href)="(?!data:image/png;base64,)', text)


class TestKeySlice:
    """The picture of the slice contains what its viewer must know."""

    @pytest.mark.parametrize("language", LANGUAGES)
    @pytest.mark.parametrize(
        "warnings",
        [(), ("The tumour differs from almost all tumours in the training cohort. The answer is doubtful.",)],
    )
    def test_answer_doubt_and_certainty_stand_above_it(self, language: Language, warnings: tuple[str, ...]) -> None:
        page = made(language, warnings=warnings)
        text = text_of(key_slice_pdf(page).pdf)
        for said in (page.heading.notice.upper(), page.headline, page.doubt, page.probability, page.worth_in_short):
            assert said
            assert " ".join(said.split()) in text
        assert bool(page.doubt), "one measurement is always outside the range"
        assert page.doubt not in text_of(key_slice_pdf(dataclasses.replace(page, doubt="")).pdf)


class TestBytes:
    @pytest.mark.parametrize("formats", [("sr", "pdf"), ("sr", "sc"), ("sr", "html")])
    def test_the_same_page_gives_the_same_bytes(self, formats: Any) -> None:
        options = DocumentOptions(formats, "fr")
        first, second = (page_documents(page_context(created=CREATED), options) for _ in range(2))
        assert [one.content for one in first] == [one.content for one in second]

    def test_no_clock_and_no_chance_gets_into_a_pdf(self) -> None:
        pdf = page_pdf(made(created=CREATED)).pdf
        assert b"D:20260329015900+01'00'" in pdf
        assert str(datetime.now(UTC).year).encode() + b"11" not in pdf

    def test_it_is_made_at_another_time_and_known_for_the_same(self, tmp_path: Path) -> None:
        options = DocumentOptions(FORMATS)
        for minute in (0, 1):
            documents = page_documents(page_context(created=CREATED + timedelta(minutes=minute)), options)
            outbox.deliver(documents, tmp_path)
        assert len(list(tmp_path.iterdir())) == len(documents) == 4
        other = page_documents(page_context(created=CREATED, warnings=("Another.",)), options)
        assert {one.name for one in other} == {one.name for one in documents}, "the invented identity is the same"

    def test_a_page_of_another_patient_under_the_same_name_is_a_conflict(self, tmp_path: Path) -> None:
        options = DocumentOptions(("sr", "pdf"))
        outbox.deliver(page_documents(page_context(), options), tmp_path)
        with pytest.raises(outbox.OutboxConflictError):
            outbox.deliver(page_documents(page_context(generated_sources(PatientID="P-18")), options), tmp_path)

    @pytest.mark.parametrize("language", LANGUAGES)
    @pytest.mark.parametrize("is_long", [False, True])
    def test_descriptors_fit_a_long_page_and_a_short_one(self, is_long: bool, language: Language) -> None:
        """The last row is above the line where the foot begins."""
        long = {
            "result": result(robustness=Robustness(30, 30, (0.4, 0.9), 0.8)),
            "warnings": tuple(f"Something unheard of that takes {'a long time to tell ' * 3}, {n}." for n in range(30)),
        }
        page = made(language, descriptors=describe(*lumps()), **(long if is_long else {}))
        pdf = page_pdf(page).pdf
        text = text_of(pdf)
        assert page.words["heading.descriptors"] in text
        for one in page.descriptors:
            assert one.badge in text
            assert one.items[0].replace("\u00a0", " ") in text
        foot = lines_of(pdf, page.words["heading.not_for"])[0]
        assert all(top > foot + 2 for row in page.rows for top in lines_of(pdf, row.name))

    def test_a_page_is_small_and_draws_on_one_sheet_in_grey(self) -> None:
        pdf = page_pdf(made()).pdf
        assert len(pdf) < 400_000
        page = pixels_of(pdf)
        assert page.shape == (842, 596)
        assert (page[0:20] < 40).mean() > 0.8, "the notice is white on black"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[PageContext, dict[str, pydicom.Dataset], Path]:
    folder = tmp_path_factory.mktemp("page")
    sources = generated_sources()
    sources[0].save_as(folder / "ct.dcm", enforce_file_format=True)
    context = page_context(sources, predecessor=Predecessor("1.2.3", "1.2.3.8", "1.2.3.8.1"))
    documents = page_documents(context, DocumentOptions(FORMATS))
    outbox.deliver(documents, folder)
    assert [one.kind for one in documents] == ["pdf", "sc", "sc", "html"]
    read = {f"{one.kind}{k}": pydicom.dcmread(io.BytesIO(one.content)) for k, one in enumerate(documents[:3])}
    return context, read, folder


class TestObjects:
    def test_they_stand_in_the_patient_s_study_each_kind_in_a_series_of_its_own(self, written: Any) -> None:
        context, read, _ = written
        for dataset in read.values():
            assert dataset.StudyInstanceUID == context.report.sources[0].StudyInstanceUID
            assert (dataset.PatientID, dataset.PatientName) == ("P-17", "Müller^Jürgen")
            assert dataset.BurnedInAnnotation == "YES"
            assert "research use only" in dataset.SeriesDescription
        series = [str(dataset.SeriesInstanceUID) for dataset in read.values()]
        assert series[1] == series[2] != series[0]
        assert len({str(dataset.SOPInstanceUID) for dataset in read.values()}) == 3

    def test_the_pdf_names_its_evidence_and_what_it_follows(self, written: Any) -> None:
        context, read, _ = written
        pdf = read["pdf0"]
        named = {str(item.ReferencedSOPInstanceUID) for item in pdf.SourceInstanceSequence}
        assert {str(source.SOPInstanceUID) for source in context.report.sources} <= named
        assert context.report.roi_source.sop_instance_uid in named
        before = pdf.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert before.ReferencedSOPInstanceUID == "1.2.3.8.1"
        assert (pdf.SOPClassUID, pdf.MIMETypeOfEncapsulatedDocument) == (EncapsulatedPDFStorage, "application/pdf")
        assert pdf.EncapsulatedDocument.startswith(b"%PDF-")

    def test_the_pictures_are_rgb_and_show_the_page_and_the_key_slice(self, written: Any) -> None:
        _, read, _ = written
        page, key = read["sc1"], read["sc2"]
        for dataset in (page, key):
            assert dataset.SOPClassUID == SecondaryCaptureImageStorage
            assert (dataset.PhotometricInterpretation, dataset.pixel_array.shape[2]) == ("RGB", 3)
            assert {str(item.ReferencedSOPClassUID) for item in dataset.SourceImageSequence} == {CTImageStorage}
        assert (page.Rows, page.Columns) == (1754, 1241)
        red, green, blue = (key.pixel_array[..., k].astype(int) for k in range(3))
        assert ((red > 200) & (green > 150) & (blue < 100)).sum() > 200, "the outline is in colour"

    def test_dciodvfy_finds_nothing_new(self, written: Any) -> None:
        _, _, folder = written
        for path in [*folder.glob("PDF-*"), *folder.glob("SC-*")]:
            assert dciodvfy_errors(path) <= dciodvfy_errors(folder / "ct.dcm")

    def test_other_software_takes_the_pdf_out(self, written: Any, tmp_path: Path) -> None:
        _, _, folder = written
        (path,) = folder.glob("PDF-*")
        assert run_tool("dcm2pdf", str(path), str(tmp_path / "page.pdf")).returncode == 0
        assert "Predicted: advanced" in text_of((tmp_path / "page.pdf").read_bytes())

    def test_it_lies_where_the_report_s_uid_says(self, written: Any) -> None:
        context, _, folder = written
        from lungstage.appliance.report.context import derive_uid

        names = page_names(derive_uid(context.report.identity, "sr"), "en")
        assert all((folder / name).is_file() for name in names.values())
        assert not set(names.values()) & set(page_names(derive_uid(context.report.identity, "sr"), "de").values())

    def test_it_says_what_it_was_drawn_with(self, written: Any) -> None:
        _, _, folder = written
        (path,) = folder.glob("PDF-*")
        assert set(drawn_with(path)) == {"fpdf2", "PT_Sans-Web-Regular.ttf", "PT_Sans-Web-Bold.ttf"}
        assert drawn_with(io.BytesIO(b"nothing")) == {}


class TestRefusal:
    def context(self, message: str = "There is no region of interest.") -> RefusalContext:
        return RefusalContext(
            generated_sources()[:1], Reason(ReasonCode.NO_ROI, message), bundle(), "ef" * 32, CREATED, "0.1.0"
        )

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_it_says_that_there_is_no_answer_and_why(self, language: Language) -> None:
        text = text_of(refusal_pdf(refusal_page(self.context(), language)).pdf)
        assert "There is no region of interest." in text
        assert "no_roi" in text
        assert "RESEARCH USE ONLY" in text
        assert "Müller, Jürgen" in text
        assert "%" not in text

    def test_a_long_reason_stays_on_the_page(self) -> None:
        text_of(refusal_pdf(refusal_page(self.context("word " * 2000), "en")).pdf)

    def test_its_objects_are_whole(self, tmp_path: Path) -> None:
        sources = generated_sources()
        sources[0].save_as(tmp_path / "ct.dcm", enforce_file_format=True)
        documents = refusal_documents(self.context(), DocumentOptions(FORMATS))
        assert [one.kind for one in documents] == ["pdf", "sc"]
        for path in outbox.deliver(documents, tmp_path):
            assert dciodvfy_errors(path) <= dciodvfy_errors(tmp_path / "ct.dcm")
