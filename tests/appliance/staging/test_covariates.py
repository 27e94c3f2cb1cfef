"""Covariates are read from header and table, never guessed, and only given in the report."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from lungstage.appliance.contract.case import KnownCovariates
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.manifest import CovariateColumn, CovariateEntry
from lungstage.appliance.staging.covariates import Site, from_header, known_covariates, read_table
from tests.support.covariates import AGE, HISTOLOGY, SEX

ENTRIES = tuple(
    CovariateEntry(
        name=covariate.name,
        levels=covariate.levels,
        columns=tuple(
            CovariateColumn(name=name, training_median=0.0, limits=(40.0, 90.0) if name == "age" else (0.0, 1.0))
            for name in covariate.columns
        ),
    )
    for covariate in (AGE, SEX, HISTOLOGY)
)


def header(**elements: str) -> Dataset:
    """A header as it is read from disk, also with values that DICOM forbids."""
    dataset = Dataset()
    vrs = {"PatientAge": "AS", "PatientSex": "CS"}
    for keyword, value in elements.items():
        tag, vr = Tag(keyword), vrs.get(keyword, "DA")
        dataset._dict[tag] = RawDataElement(tag, vr, len(value), value.encode("latin-1"), 0, False, True)
    return dataset


class TestHeader:
    @pytest.mark.parametrize(
        ("text", "years"),
        [
            ("045Y", 45.0), ("063Y ", 63.0), ("45Y", 45.0), ("045y", 45.0), ("018M", 1.5), ("052W", 364 / 365.25),
            ("100D", 100 / 365.25), ("120Y", 120.0),
        ],
    )  # fmt: skip
    def test_age_string(self, text: str, years: float) -> None:
        assert from_header(header(PatientAge=text)) == {"age": pytest.approx(years)}

    @pytest.mark.parametrize(
        "text", ["", "   ", "45", "000Y", "000D", "121Y", "999Y", "Y045", "0045Y", "-45Y", "4.5Y", "045Y\\046Y", "٤٥Y",
                 "\x00\x00Y", "adult"]
    )  # fmt: skip
    def test_what_is_no_age_is_missing(self, text: str) -> None:
        encoded = text.encode("utf-8").decode("latin-1")
        assert from_header(header(PatientAge=encoded)) == {}
        dated = header(PatientAge=encoded, PatientBirthDate="19500102", StudyDate="20130102")
        assert from_header(dated) == {"age": pytest.approx(63.0, abs=0.01)}, "the age follows from the dates"

    def test_the_age_string_outranks_the_dates(self) -> None:
        assert from_header(header(PatientAge="045Y", PatientBirthDate="19000101", StudyDate="20000101")) == {"age": 45}

    @pytest.mark.parametrize(
        ("birth", "study"),
        [
            ("", "20200101"), ("19500102", ""), ("1950", "20200101"), ("19500231", "20200101"),
            ("20200102", "20200101"), ("20200101", "20200101"), ("18000101", "20200101"), ("1950-1-2", "20200101"),
            ("1950W012", "20200101"),
        ],
    )  # fmt: skip
    def test_dates_that_make_no_age(self, birth: str, study: str) -> None:
        assert from_header(header(PatientBirthDate=birth, StudyDate=study)) == {}

    @pytest.mark.parametrize(
        ("text", "sex"), [("M", "M"), ("F ", "F"), ("f", "F"), ("O", "O"), ("", None), ("W", None), ("M\\F", None)]
    )
    def test_sex(self, text: str, sex: str | None) -> None:
        assert from_header(header(PatientSex=text)).get("sex") == sex

    @given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
    def test_no_header_is_too_odd_and_none_is_quoted(self, age: str, birth: str, sex: str) -> None:
        encoded = [text.encode("utf-8").decode("latin-1") for text in (age, birth, sex)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = from_header(header(PatientAge=encoded[0], PatientBirthDate=encoded[1], PatientSex=encoded[2]))
        assert 0 < float(found.get("age", 1.0)) <= 120
        assert found.get("sex", "O") in ("M", "F", "O")


class TestKnown:
    full = header(PatientAge="063Y", PatientSex="M")

    def test_the_table_outranks_the_header_cell_by_cell(self) -> None:
        known = known_covariates(ENTRIES, self.full, {"age": 64.5, "histology": "Large_Cell  carcinoma"})
        assert dict(known.values) == {"age": 64.5, "sex": "M", "histology": "large cell carcinoma"}
        assert (known.missing, known.warnings) == ((), ())
        assert str(known) == "Covariates used: age 64.5 a, sex M, histology large cell carcinoma."

    def test_what_is_missing_is_said(self) -> None:
        known = known_covariates(ENTRIES, header(PatientSex="O"), {})
        assert (dict(known.values), known.missing) == ({}, ("age", "sex", "histology"))
        assert known.warnings == (
            "The patient's age is not known. The median of the training cohort was used instead.",
            "The patient's sex is none of F, M. The median of the training cohort was used instead.",
            "The patient's histology is not known. The median of the training cohort was used instead.",
        )
        assert str(known) == ("Covariates used: none; missing, with the training median in place: age, sex, histology.")

    def test_a_level_that_the_model_does_not_know_is_missing_and_not_quoted(self) -> None:
        known = known_covariates(ENTRIES, self.full, {"histology": "DOE^JANE"})
        assert known.missing == ("histology",)
        assert "none of adenocarcinoma" in known.warnings[0]
        assert "DOE" not in "".join(known.warnings) + str(known)

    @pytest.mark.parametrize(("age", "told"), [("039Y", True), ("040Y", False), ("090Y", False), ("091Y", True)])
    def test_an_age_beyond_training_is_used_with_a_warning(self, age: str, told: bool) -> None:
        known = known_covariates(ENTRIES[:1], header(PatientAge=age), {})
        assert known.values["age"] == float(age[:3])
        assert bool(known.warnings) is told
        assert age[1:3] not in "".join(known.warnings)

    def test_a_model_without_covariates_asks_for_none(self) -> None:
        assert known_covariates((), self.full, {"age": 50.0}) == KnownCovariates()


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "covariates.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestTable:
    def test_read(self, tmp_path: Path) -> None:
        text = (
            "\N{ZERO WIDTH NO-BREAK SPACE}study_instance_uid, sex ,age,histology\r\n"
            "1.2.3,male,63.5,Adenocarcinoma\r\n\r\n1.2.4,,NA, \r\n1.2.5,o,7e1,x\r\n"
        )
        table = read_table(written(tmp_path, text))
        assert {study: dict(values) for study, values in table.items()} == {
            "1.2.3": {"sex": "M", "age": 63.5, "histology": "Adenocarcinoma"},
            "1.2.4": {},
            "1.2.5": {"sex": "O", "age": 70.0, "histology": "x"},
        }

    @pytest.mark.parametrize("columns", ["age", "sex", "histology", "histology,age", ""])
    def test_any_subset_of_the_columns_will_do(self, tmp_path: Path, columns: str) -> None:
        assert read_table(written(tmp_path, f"study_instance_uid,{columns}".rstrip(",") + "\n")) == {}

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "line 1: the columns must be study_instance_uid and any of age, sex, histology"),
            ("age,sex\n63,M\n", "line 1: the columns"),
            ("study_instance_uid,gender\n1.2,M\n", "line 1: the columns"),
            ("study_instance_uid,age,age\n1.2,1,1\n", "line 1: the columns"),
            ("study_instance_uid,stage\n1.2,early\n", "line 1: the columns"),
            ("1.2.3,63,M\n", "line 1: the columns"),
            ("study_instance_uid,age\n1.2,63\n1.3\n", "line 3: it has 1 cells, but the header has 2"),
            ("study_instance_uid,age\n1.2,63\n1.3,sixty\n", "line 3: column age does not contain a number of years"),
            ("study_instance_uid,age\n1.2,0\n", "line 2: column age"),
            ("study_instance_uid,age\n1.2,-5\n", "line 2: column age"),
            ("study_instance_uid,age\n1.2,630\n", "line 2: column age"),
            ("study_instance_uid,age\n1.2,inf\n", "line 2: column age"),
            ("study_instance_uid,age\n1.2,6_3\n", "line 2: column age"),
            ("study_instance_uid,age\n1.2,045Y\n", "line 2: column age"),
            ("study_instance_uid,sex\n1.2,X\n", "line 2: column sex contains another value than M, F or O"),
            ("study_instance_uid,age\n,63\n", "line 2: column study_instance_uid does not contain a UID"),
            ("study_instance_uid,age\nDoe^Jane,63\n", "line 2: column study_instance_uid does not contain a UID"),
            ("study_instance_uid,age\n1.2,63\n1.2,64\n", "line 3: column study_instance_uid repeats a UID"),
            ('study_instance_uid,age\n"1.2,63\n', "not CSV"),
            (b"study_instance_uid,histology\n1.2,\xff\n", "not CSV in UTF-8"),
        ],
    )
    def test_a_wrong_table_is_refused_by_line_and_column_without_a_value(
        self, tmp_path: Path, text: str | bytes, told: str
    ) -> None:
        with pytest.raises(Refused) as caught:
            read_table(written(tmp_path, text))
        assert caught.value.reason.code is ReasonCode.TABLE_INVALID
        assert told in caught.value.reason.message
        for secret in ("Doe", "sixty", "045Y", "gender", "630"):
            assert secret not in caught.value.reason.message

    def test_a_site_without_a_table_knows_nobody(self, tmp_path: Path) -> None:
        assert Site.read(None, None) == Site()
        assert Site.read(0.3, written(tmp_path, "study_instance_uid,age\n1.2,63\n")).covariates["1.2"] == {"age": 63.0}
        with pytest.raises(OSError, match="absent"):
            Site.read(None, tmp_path / "absent.csv")
