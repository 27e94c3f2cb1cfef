"""The conformance statement describes exactly what the code does, with the tolerances that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage

from lungstage.appliance.dicom.instance import LABEL_MAP_SEGMENTATION_STORAGE
from lungstage.appliance.dicom.multiframe import ENHANCED_CT
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.appliance.staging.phantom import write_study
from tests.appliance.dicom.test_bad_input import code_of, measured
from tests.conftest import ROOT
from tests.long.conformance import notes, tables, tree
from tests.long.conformance.attributes import made_up_values, values
from tests.long.conformance.contexts import Kind, document
from tests.long.conformance.geometry import PROOFS, Proof
from tests.long.conformance.write import PAGE, filled, parts

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_the_command_writes() -> None:
    assert filled(TEXT) == TEXT, "run `make conformance`"
    assert sorted(parts(TEXT)) == sorted(tables.TABLES)


@pytest.mark.parametrize("kind", ["SR", "SEG"])
def test_every_value_that_we_make_is_explained_and_no_note_is_left_over(kind: Kind) -> None:
    said = {"SR": notes.SR, "SEG": notes.SEG}[kind]
    assert made_up_values(kind) - said.keys() == set()
    every = {".".join(path) for name in ("rich", "bare", "single", "enhanced") for path in values(kind, name)}
    assert said.keys() - every == set()


def test_every_content_item_that_varies_is_explained_and_no_note_is_left_over() -> None:
    assert tree.varying() == {key.split(" ", 1)[-1] if key.startswith("IMAGE ") else key for key in notes.TREE}


# --- what is read -------------------------------------------------------------------------------------------------

READERS = [
    *(ROOT / "appliance" / "dicom").glob("*.py"),
    *(ROOT / "appliance" / name for name in ("staging/covariates.py", "report/headers.py")),
]  # fmt: skip
# Elements of the documents, in appliance/report/headers.py.
WRITTEN = {
    "ContributingEquipmentSequence", "ContributionDateTime", "DeviceUID", "DimensionIndexSequence",
    "DimensionOrganizationSequence", "DimensionOrganizationUID", "InstanceCreationDate", "InstanceCreationTime",
}  # fmt: skip


def keywords(path: Path) -> set[str]:
    """Every DICOM keyword that a module names, as an attribute or in a string."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return {word for word in found if word[:1].isupper() and tag_for_keyword(word) is not None}


def test_what_is_read_is_what_the_page_says() -> None:
    section = TEXT.partition("### Attributes\n")[2].partition("\n### ")[0]
    documented = [
        word for row in re.findall(r"^\| (.+?) \|", section, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    ]
    assert len(documented) == len(set(documented))
    assert set(documented) == set().union(*map(keywords, READERS)) - WRITTEN


def test_sop_classes_are_those_of_the_code() -> None:
    section = TEXT.partition("## SOP Classes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| `([\d.]+)` \| (yes|no) \| (yes|no) \|", section, re.MULTILINE)
    read = {uid for _, uid, is_read, _ in rows if is_read == "yes"}
    assert read == {
        CTImageStorage,
        *ENHANCED_CT,
        RTStructureSetStorage,
        SegmentationStorage,
        LABEL_MAP_SEGMENTATION_STORAGE,
    }
    written = {uid for _, uid, _, is_written in rows if is_written == "yes"}
    assert written == {document("SR", "rich").SOPClassUID, document("SEG", "rich").SOPClassUID}


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.what)
def test_tolerances_are_those_that_the_page_names(proof: Proof, tmp_path: Path) -> None:
    assert measured(proof.study(proof.inside).write(tmp_path / "inside"))["reason"] is None
    status = "held" if proof.code == "slices_missing" else "refused"
    assert code_of(proof.study(proof.outside), tmp_path / "outside") == (status, proof.code)


# --- what is written ----------------------------------------------------------------------------------------------


def elements(dataset: Dataset) -> list[pydicom.DataElement]:
    return list(dataset.iterall())


@pytest.mark.parametrize("kind", ["SR", "SEG"])
@pytest.mark.parametrize("name", ["rich", "bare", "single", "enhanced"])
def test_no_private_attribute_and_no_other_transfer_syntax(kind: Kind, name: str) -> None:
    written = document(kind, name)
    assert not any(element.tag.is_private for element in elements(written))
    assert written.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert written.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize("kind", ["SR", "SEG"])
def test_every_uid_that_we_make_is_derived(kind: Kind) -> None:
    """The UID is ``2.25.`` and a UUID of version 5, which depends on the content."""
    made = {".".join(path): found for path, found in values(kind, "rich").items()}
    other = {".".join(path): found for path, found in values(kind, "other circumstances").items()}
    for path in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert re.fullmatch(r"2\.25\.\d+", str(made[path][0]))
        assert f"{int(str(made[path][0])[5:]):032x}"[12] == "5", "the version of the UUID"
        assert made[path] != other[path]


def test_private_codes_are_all_in_the_table() -> None:
    """The table has the value of each call of ``private`` that does not depend on the endpoint."""
    named = set()
    for path in (ROOT / "appliance").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "private" and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    named.add(first.value)
    table = set(tables.private_codes())
    assert named <= table
    assert {value for value in table if not value.startswith(("ADVANCED", "TSIZE-"))} == named
    designators = {
        element.value
        for element in elements(document("SR", "rich"))
        if element.keyword == "CodingSchemeDesignator" and str(element.value).startswith("99")
    }
    assert designators == {"99LUNGSTAGE"}


def test_file_names_and_file_meta_are_as_stated(tmp_path: Path, shipped_bundle: Path) -> None:
    write_study(tmp_path / "study")
    bundle = load_bundle(shipped_bundle, self_test=False)
    answer = stage_paths([tmp_path / "study"], bundle, tmp_path / "out", Options())
    (written,) = (tmp_path / "out").glob("SR-*.dcm")
    report = pydicom.dcmread(written)
    assert written.name == f"{report.Modality}-{report.SOPInstanceUID}.dcm" == Path(answer["sr"]).name
    stated = re.search(r"Implementation Class UID `([\d.]+)`", TEXT)
    assert stated is not None
    assert report.file_meta.ImplementationClassUID == stated[1]
    assert len(report.file_meta.ImplementationVersionName) <= 16
