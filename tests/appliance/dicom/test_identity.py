"""Whether CT and region are of one patient: by the ID, or by name and birth date if there is no ID."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.identity import prove_one_patient
from tests.appliance.dicom.test_bad_input import code_of, measured
from tests.support.studies import Study, list_series, rtstruct_study


def _study(ct: dict[str, str | None], roi: dict[str, str | None]) -> Study:
    """Patient ID, name and birth date of the CT and of the region; None removes one."""
    study = rtstruct_study()
    for dataset in study.slices:
        _say(dataset, ct)
    _say(study.rois[0], roi)
    return study


def _say(dataset: Dataset, patient: dict[str, str | None]) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in zip(("PatientID", "PatientName", "PatientBirthDate"), patient.values(), strict=True):
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _who(patient: str | None, name: str | None, birth: str | None) -> dict[str, str | None]:
    return {"id": patient, "name": name, "birth": birth}


JANE = _who("7", "Doe^Jane", "19500102")

ONE_PATIENT = {
    "another spelling": (JANE, _who("7", "DOE^JANE^^", "19500102")),
    "a corrected name": (JANE, _who("7", "Smith^Jane", "19500102")),
    "a corrected birth date": (JANE, _who("7", "Doe^Jane", "19500201")),
    "one says less": (JANE, _who("7", "", None)),
    "another name, and no birth date": (JANE, _who("7", "Smith^Jane", "")),
    "no ID, but the same name and birth date": (
        _who("", *("Doe^Jane", "19500102")),
        _who(None, "doe^jane", "19500102"),
    ),
    "an ID in one only": (JANE, _who("", "Doe^Jane", "19500102")),
    "no ID and no birth date anywhere": (_who("", "ANON", ""), _who("", "ANON", None)),
    "nothing anywhere": (_who(None, None, None), _who("", "", "")),
    "an ideographic group more": (JANE, _who("", "Doe^Jane=山田^花子", "19500102")),
}

TWO_PATIENTS = {
    "another ID": (JANE, _who("8", "Doe^Jane", "19500102")),
    "another name and birth date under one ID": (JANE, _who("7", "Smith^Ann", "19600304")),
    "no ID, and another name": (_who("", "Doe^Jane", "19500102"), _who("", "Doe^Ann", "19500102")),
    "no ID, and another birth date": (_who("", "Doe^Jane", "19500102"), _who("", "Doe^Jane", "19510102")),
    "no ID, and one has no name": (_who("", "Doe^Jane", "19500102"), _who("", "", "19500102")),
    "an ID in one, and nothing in the other": (JANE, _who("", "", "")),
    "another ideographic group": (_who("", "=山田^花子", "19500102"), _who("", "=田中^花子", "19500102")),
}


@pytest.mark.parametrize("who", ONE_PATIENT.values(), ids=ONE_PATIENT)
def test_one_patient_is_measured(who: tuple[dict, dict], tmp_path: Path) -> None:
    assert measured(_study(*who).write(tmp_path))["reason"] is None


@pytest.mark.parametrize("who", TWO_PATIENTS.values(), ids=TWO_PATIENTS)
def test_two_patients_are_refused(who: tuple[dict, dict], tmp_path: Path) -> None:
    assert code_of(_study(*who), tmp_path) == ("refused", "patient_mismatch")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            _who("8", "Doe^Ann", "19600304"),
            "Patient ID (0010,0020), name and birth date all differ between the CT and the RTSTRUCT",
        ),
        (_who("8", "Doe^Jane", "19500102"), "The Patient ID (0010,0020) differs between the CT and the RTSTRUCT. Find"),
        (_who("8", "Doe^Ann", "19500102"), "between the CT and the RTSTRUCT. The name also differs."),
        (_who("8", "Doe^Jane", "19600304"), "between the CT and the RTSTRUCT. The birth date also differs."),
        (_who("7", "Doe^Ann", "19600304"), "although the Patient ID (0010,0020) is the same"),
        (_who("", "Doe^Ann", "19500102"), "A Patient ID (0010,0020) is missing"),
    ],
)
def test_it_is_said_what_differs_but_not_how(other: dict[str, str | None], told: str, tmp_path: Path) -> None:
    sentence = measured(_study(JANE, other).write(tmp_path))["reason"]["message"]
    assert told in sentence
    assert ("different patients. Do not use them" in sentence) == ("all differ" in told)
    assert not any(value in sentence for value in ("Doe", "Ann", "Jane", "1950", "1960", "19"))


def test_slices_of_two_patients_are_files_of_the_ct(tmp_path: Path) -> None:
    study = _study(JANE, JANE)
    _say(study.slices[3], _who("8", "Doe^Jane", "19500102"))
    folder = study.write(tmp_path)
    with pytest.raises(Refused, match=r"The Patient ID \(0010,0020\) differs between files of the CT"):
        prove_one_patient(header for path in sorted(folder.iterdir()) for header in read_headers(path, key=b"a"))


def test_files_that_nobody_owns_are_linked_by_references_only(tmp_path: Path) -> None:
    nobody = _who(None, None, None)
    study = _study(nobody, nobody)
    for item in study.rois[0].ROIContourSequence[0].ContourSequence:
        del item.ContourImageSequence
    assert measured(study.write(tmp_path / "listed"))["reason"] is None
    list_series(study.rois[0])
    assert code_of(study, tmp_path / "unlisted") == ("refused", "patient_mismatch")


@pytest.mark.parametrize(
    ("vr", "said", "known"),
    [("DA", "20260309", "2026-03-09"), ("DA", "20260230", ""), ("DA", "2026.03.09", ""), ("DA", "", ""),
     ("DA", "20260309\\20260310", ""), ("LO", "Jane Doe", ""), ("LO", "20260309", "2026-03-09")],
)  # fmt: skip
def test_a_study_date_is_a_date_or_nothing_and_refuses_no_file(vr: str, said: str, known: str, tmp_path: Path) -> None:
    study = _study(JANE, JANE)
    for dataset in (*study.slices, *study.rois):
        dataset.add(DataElement("StudyDate", vr, said, already_converted=True))
    folder = study.write(tmp_path)
    headers = [header for path in sorted(folder.iterdir()) for header in read_headers(path, key=b"a")]
    assert len(headers) == len(study.slices) + len(study.rois)
    assert {header.study_date for header in headers} == {known}


def test_hashes_need_the_key_and_tell_nothing_else(tmp_path: Path) -> None:
    folder = _study(JANE, JANE).write(tmp_path)
    one, other, again = (read_headers(folder / "0001", key=key)[0] for key in (b"a", b"b", b"a"))
    told = lambda header: {header.patient_key, *header.name_key, header.birth_key}  # noqa: E731
    assert told(one) == told(again)
    assert not told(one) & told(other)
    assert one == other  # the header does not depend on the key
    assert "Jane" not in repr(one)
