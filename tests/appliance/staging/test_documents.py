"""The documents of an answer, and what their UIDs depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pydicom
import pytest

from lungstage.appliance.contract.documents import FORMATS, DocumentOptions, Format
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.dicom.linking import BY_POSITION
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.staging import one_shot
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.export.bundle import build
from tests.export.conftest import make_run, without_limits
from tests.support.enhanced import enhanced_rtstruct_study
from tests.support.pages import pdf_in, text_of
from tests.support.studies import Study, rtstruct_study


def test_inputs_that_read_alike_one_after_the_other_are_told_apart(tmp_path: Path) -> None:
    """Region 11 of structure set …7 and region 1 of structure set …71 give the same digits when joined."""
    build(without_limits(make_run()), tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle", self_test=False)
    reports = set()
    for uid, number in (("1.2.826.0.1.7", 11), ("1.2.826.0.1.71", 1)):
        study = rtstruct_study()
        (structures,) = study.rois
        structures.SOPInstanceUID = structures.file_meta.MediaStorageSOPInstanceUID = uid
        structures.StructureSetROISequence[0].ROINumber = number
        structures.ROIContourSequence[0].ReferencedROINumber = number
        structures.RTROIObservationsSequence[0].ReferencedROINumber = number
        answer = stage_paths([study.write(tmp_path / uid)], bundle, tmp_path / "out" / uid, of("sr"))
        reports.add(Path(answer["sr"]).name)
    assert len(reports) == 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    build(without_limits(make_run()), folder)
    return load_bundle(folder, self_test=False)


def of(*formats: Format, **more: Any) -> Options:
    """Options with these formats, and without robustness, which these tests do not need."""
    return Options(documents=DocumentOptions(formats), robustness=RobustnessOptions(0), **more)


def kinds(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


@pytest.mark.parametrize(
    ("formats", "written"),
    [
        (("sr",), ["SEG", "SR"]), (("sr", "pdf"), ["PDF", "SEG", "SR"]),
        (FORMATS, ["HTML", "PDF", "SC", "SC", "SEG", "SR"]),
    ],
)  # fmt: skip
def test_an_answer_is_given_in_the_formats_that_are_wanted(
    formats: tuple[Format, ...], written: list[str], bundle: Bundle, tmp_path: Path
) -> None:
    answer = stage_paths([rtstruct_study().write(tmp_path / "study")], bundle, tmp_path / "out", of(*formats))
    assert kinds(tmp_path / "out") == written
    assert set(answer["documents"]) == {"seg", *formats}
    assert answer["documents"]["sr"] == answer["sr"]
    assert all(Path(path).is_file() for path in answer["documents"].values())


def test_a_page_changes_neither_answer_nor_report(bundle: Bundle, tmp_path: Path) -> None:
    study = rtstruct_study().write(tmp_path / "study")
    reports = []
    for formats in (("sr",), FORMATS):
        answer = stage_paths([study], bundle, tmp_path / "out" / str(len(formats)), of(*formats))
        reports.append(Path(answer["sr"]).name)
    assert reports[0] == reports[1]


class _Later(datetime):
    """A clock that is two seconds fast."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(seconds=2)


def test_a_page_that_joins_a_report_bears_its_time(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    study = rtstruct_study().write(tmp_path / "study")
    first = stage_paths([study], bundle, tmp_path / "out", of("sr"))
    monkeypatch.setattr(one_shot, "datetime", _Later)
    later = stage_paths([study], bundle, tmp_path / "out", of("sr", "pdf"))
    report, page = pydicom.dcmread(first["sr"]), pydicom.dcmread(later["documents"]["pdf"])
    assert later["sr"] == first["sr"]
    assert (page.ContentDate, page.ContentTime) == (report.ContentDate, report.ContentTime)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    stage_paths([study], bundle, tmp_path / "out", of("sr", "pdf"))
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_that_the_model_does_not_know_such_tumours_is_said_first(bundle: Bundle, tmp_path: Path) -> None:
    """This warning is also the first in report, ledger and terminal, which do not sort warnings."""
    use = bundle.manifest.intended_use.model_copy(update={"domain_distance_warn": 0.0})
    strict = replace(bundle, manifest=bundle.manifest.model_copy(update={"intended_use": use}))
    study = rtstruct_study().write(tmp_path / "study")
    answer = stage_paths([study], strict, tmp_path / "out", of("sr", match_by_geometry=True))
    assert answer["warnings"].index(BY_POSITION) > 0
    assert answer["warnings"][0].startswith("The tumour differs from")


def test_a_refusal_has_a_page_where_one_is_wanted(bundle: Bundle, tmp_path: Path) -> None:
    study = rtstruct_study(names=("Heart",)).write(tmp_path / "study")
    silent = stage_paths([study], bundle, tmp_path / "silent", of("sr", "pdf"))
    told = stage_paths([study], bundle, tmp_path / "told", of("sr", "pdf", refusal_page=True))
    assert (silent["status"], silent["documents"]) == ("refused", None)
    assert not (tmp_path / "silent").exists()
    assert told | {"documents": None, "seconds": None} == silent | {"seconds": None}
    assert kinds(tmp_path / "told") == ["PDF"]
    assert set(told["documents"]) == {"pdf"}
    assert told["reason"]["code"] in text_of(pdf_in(Path(told["documents"]["pdf"]).read_bytes()))


@pytest.mark.parametrize("study", [enhanced_rtstruct_study, lambda: rtstruct_study(on=(5,))])
def test_frames_and_a_tumour_of_one_slice_have_a_page_too(
    study: Callable[[], Study], bundle: Bundle, tmp_path: Path
) -> None:
    """Their headers have no window."""
    answer = stage_paths([study().write(tmp_path / "study")], bundle, tmp_path / "out", of("sr", "pdf"))
    assert answer["status"] == "staged", answer["reason"]
    page = Path(answer["documents"]["pdf"])
    assert "Predicted:" in text_of(pdf_in(page.read_bytes()))
