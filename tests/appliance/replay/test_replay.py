"""A report is made again bit for bit, or the changes since then are named; and a job's history is shown in full."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from lungstage.appliance.cli import main as cli
from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.dicom.cases import assemble, the_one_case
from lungstage.appliance.model import bundle
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.report import outbox
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.chain import entries
from lungstage.export.bundle import pack
from tests.export.conftest import make_run, without_limits
from tests.support.covariates import AGE, HISTOLOGY, SEX
from tests.support.enhanced import enhanced_rtstruct_study
from tests.support.studies import Study, rtstruct_study, seg_study
from tests.system.test_run import running

NAME, PATIENT_ID, BORN = "DOE^JANE", "MRN-4711", "19570317"
ALONE = ("--format", "sr", "--perturbations", "0")
"""A report without page and robustness takes a quarter of the time."""
SECRETS = ("DOE", "JANE", PATIENT_ID, BORN, "doe-jane")


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.out)
        return answer

    @property
    def kinds(self) -> list[str]:
        return [change["what"] for change in self.answer["changes"]]

    def of(self, what: str) -> dict[str, Any]:
        found: dict[str, Any] = next(change for change in self.answer["changes"] if change["what"] == what)
        return found


Command = Callable[..., Done]


@pytest.fixture
def lungstage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["lungstage", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return Done(int(left.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="module", autouse=True)
def _each_bundle_is_loaded_once() -> Iterator[None]:
    """The self-test takes a third of a short command's time, and has its own tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bundle, "load_bundle", functools.cache(load_bundle))
        yield


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    runs = {"plain": make_run(), "other": make_run(1), "clinical": make_run(covariates=(AGE, SEX, HISTOLOGY))}
    for name, run in runs.items():
        (folder / name).mkdir()
        for file, content in pack(without_limits(run), name)[0].items():
            (folder / name / file).write_bytes(content)
    return {name: folder / name for name in runs}


def identified(study: Study) -> Study:
    for dataset in (*study.slices, *study.rois):
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, PATIENT_ID, BORN
    return study


@dataclass(frozen=True)
class House:
    """The folders of a daemon after it stopped."""

    root: Path

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def report(self) -> Path:
        (report,) = (self.root / "outbox").glob("SR-*.dcm")
        return report

    @property
    def segmentation(self) -> Path:
        (segmentation,) = (self.root / "outbox").glob("SEG-*.dcm")
        return segmentation

    @property
    def page(self) -> Path:
        (page,) = (self.root / "outbox").glob("PDF-*.dcm")
        return page

    def file_of(self, uid: str) -> Path:
        return next(p for p in self.inbox.rglob("*") if p.is_file() and pydicom.dcmread(p).SOPInstanceUID == uid)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> House:
    """A study that the real daemon processed from inbox to outbox."""
    root = tmp_path_factory.mktemp("served")
    with running(root, bundles["plain"]) as appliance:
        identified(rtstruct_study()).write(appliance.inbox / "doe-jane")
        appliance.until(appliance.reports)
        appliance.until(lambda: [job["state"] for job in appliance.jobs()] == ["delivered"])
        appliance.stop()
    return House(root)


@pytest.fixture
def house(served: House, tmp_path: Path) -> House:
    """A copy of `served` that a test may change."""
    shutil.copytree(served.root, tmp_path / "house")
    return House(tmp_path / "house")


@pytest.fixture
def again(lungstage: Command, bundles: dict[str, Path]) -> Callable[..., Done]:
    """Replay with the originals and audit log of a house."""

    def run(house: House, *more: object, bundle: str = "plain", report: Path | None = None) -> Done:
        asked = ("--inputs", house.inbox, "--state", house.state, "--bundle", bundles[bundle], "--json")
        return lungstage("replay", report or house.report, *asked, *more)

    return run


def edit(path: Path, change: Callable[[Dataset], None]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def needed_slice(house: House) -> str:
    instances = next(e.fields["instances"] for e in entries(house.state) if e.event == "job_ready")
    return str([one["uid"] for one in instances if one["kind"] == "CT"][3])


def test_the_daemon_s_report_comes_out_bit_for_bit_from_its_own_state(
    served: House, lungstage: Command, bundles: dict[str, Path]
) -> None:
    done = lungstage("replay", served.report, "--state", served.state, "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"], done.answer["changes"], done.answer["notes"]) == (
        0,
        "reproduced",
        [],
        [],
    )
    told = lungstage("replay", served.report, "--state", served.state, "--bundle", bundles["plain"])
    assert told.out == f"reproduced bit for bit: {done.answer['sr']}\n"


def test_it_needs_no_audit_log_and_the_settings_may_name_the_rest(
    served: House, lungstage: Command, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = lungstage("replay", served.report, "--inputs", served.inbox, "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"]) == (0, "reproduced")
    monkeypatch.setenv("LUNGSTAGE_BUNDLE", str(bundles["plain"]))
    monkeypatch.setenv("LUNGSTAGE_STATE", str(served.state))
    assert lungstage("replay", served.report).status == 0
    alone = shutil.copy(served.report, tmp_path / "renamed.dcm")
    assert lungstage("replay", alone, "--json").answer["notes"] == [], "the audit log contains the SEG's hash"
    monkeypatch.delenv("LUNGSTAGE_STATE")
    assert lungstage("replay", alone).status == 2, "the originals are not given"
    note = lungstage("replay", alone, "--inputs", served.inbox, "--json").answer["notes"]
    assert note == [f"{served.segmentation.name} is not beside the report, so it was not compared."], "no page is noted"
    monkeypatch.delenv("LUNGSTAGE_BUNDLE")
    assert lungstage("replay", alone, "--inputs", served.inbox).status == 2, "no bundle"


def test_a_page_that_was_edited_is_named(house: House, again: Callable[..., Done]) -> None:
    assert again(house).status == 0

    def spoil(dataset: Dataset) -> None:
        content = bytearray(dataset.EncapsulatedDocument)
        content[len(content) // 2] ^= 1
        dataset.EncapsulatedDocument = bytes(content)

    edit(house.page, spoil)
    done = again(house)
    assert (done.status, done.kinds) == (3, ["page"])
    assert done.of("page")["subject"] == house.page.name


def test_a_page_drawn_with_something_else_says_with_what(house: House, again: Callable[..., Done]) -> None:
    def age(dataset: Dataset) -> None:
        (drawn,) = (
            one for one in dataset.ContributingEquipmentSequence if str(one.ManufacturerModelName).endswith(" page")
        )
        drawn.SoftwareVersions = ["fpdf2 1.0.0", *list(drawn.SoftwareVersions)[1:], "Old.ttf 0123456789abcdef"]

    edit(house.page, age)
    done = again(house)
    assert done.kinds == ["drawing", "drawing"]
    assert [change["then"] for change in done.answer["changes"]] == ["1.0.0", "0123456789abcdef"]


def test_a_page_in_other_formats_and_languages_comes_out_too(
    house: House, bundles: dict[str, Path], lungstage: Command
) -> None:
    """Only the files beside the report show which formats and languages were made."""
    study = ("stage", house.inbox, "--bundle", bundles["plain"], "--out", house.root / "out")
    for language in ("de", "en"):
        assert lungstage(*study, "--format", "pdf,sc,html", "--perturbations", "0", "--language", language).status == 0
    reports = [*(house.root / "out").glob("SR-*.dcm")]
    assert len(reports) == 1
    assert len([*(house.root / "out").iterdir()]) == 2 + 2 * 4
    asked = ("replay", reports[0], "--inputs", house.inbox, "--bundle", bundles["plain"], "--json")
    done = lungstage(*asked)
    assert (done.answer["status"], done.answer["changes"]) == ("reproduced", [])
    assert not any("compared" in note and "HTML" in note for note in done.answer["notes"])
    (page,) = (path for path in (house.root / "out").glob("HTML-*") if "Vorhersage" in path.read_text())
    page.write_text(page.read_text().replace("früh", "FRÜH").replace("fortgeschritten", "FORTGESCHRITTEN"))
    done = lungstage(*asked)
    assert (done.kinds, done.of("page")["subject"]) == (["page"], page.name)


def test_files_that_came_since_do_not_matter(house: House, again: Callable[..., Done]) -> None:
    shutil.copytree(house.inbox, house.inbox / "copy")
    identified(seg_study()).write(house.inbox / "drawn again")
    (house.inbox / "readme.txt").write_text("not DICOM")
    assert again(house).status == 0


def touch_a_pixel(dataset: Dataset) -> None:
    pixels = dataset.pixel_array.copy()
    pixels[20, 22] += 40
    dataset.PixelData = pixels.tobytes()


def test_of_two_files_of_one_instance_the_audit_log_knows_the_right_one(
    house: House, again: Callable[..., Done], lungstage: Command, bundles: dict[str, Path]
) -> None:
    uid = needed_slice(house)
    for name in ("a", "z"):  # before and after the original in the order of paths
        edit(shutil.copytree(house.inbox / "doe-jane", house.inbox / name) / house.file_of(uid).name, touch_a_pixel)
    assert again(house).status == 0
    blind = lungstage("replay", house.report, "--inputs", house.inbox, "--bundle", bundles["plain"], "--json")
    assert blind.of("refused")["subject"] == "conflicting_instances"


@pytest.mark.parametrize(
    ("options", "zone"),
    [
        ((), "Asia/Kathmandu"),
        (("--engine", "reference", *ALONE), "UTC"),
        (("--prevalence", "0.12345678901234567", *ALONE), "Asia/Kathmandu"),
    ],
)
def test_a_one_shot_report_comes_out_bit_for_bit(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command, monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...], zone: str,
) -> None:  # fmt: skip
    study = identified(seg_study()).write(tmp_path / "study")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    stage = ("stage", study, "--bundle", bundles["plain"], "--out", tmp_path / "out", "--json")
    report = lungstage(*stage, *options).answer["sr"]
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    done = lungstage("replay", report, "--inputs", study, "--bundle", bundles["plain"], "--json")
    monkeypatch.undo()
    time.tzset()
    assert (done.status, done.answer["status"], done.answer["notes"]) == (0, "reproduced", [])


def test_what_the_site_knew_then_stands_in_the_report(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command
) -> None:
    study = identified(seg_study())
    table = tmp_path / "covariates.csv"
    uid = study.slices[0].StudyInstanceUID
    table.write_text(f"study_instance_uid,age,histology\n{uid},63.123456789012345,Large_Cell carcinoma\n")
    study.write(tmp_path / "study")
    stage = ("stage", tmp_path / "study", "--bundle", bundles["clinical"], "--out", tmp_path / "out", "--json", *ALONE)
    report = lungstage(*stage, "--covariates", table, "--prevalence", "0.3").answer["sr"]
    table.unlink()
    ask = ("replay", report, "--inputs", tmp_path / "study", "--bundle", bundles["clinical"], "--json")
    assert lungstage(*ask).answer["status"] == "reproduced"

    def forget(dataset: Dataset) -> None:
        """Remove these parameters, as in reports of releases that did not write them."""
        for group in dataset.ContentSequence:
            for item in group.get("ContentSequence", ()):
                if "ContentSequence" in item:
                    texts = [str(one.get("TextValue", "")) for one in item.ContentSequence]
                    item.ContentSequence = [
                        one for one, text in zip(item.ContentSequence, texts, strict=True)
                        if not text.startswith(("age=", "histology=", "prevalence="))
                    ]  # fmt: skip

    edit(Path(report), forget)
    done = lungstage(*ask)
    assert done.status == 3
    assert [note for note in done.answer["notes"] if "does not contain" in note] == [
        "The report does not contain the site's prevalence exactly. It was made again without it.",
        "The report does not contain the patient's covariates exactly. It was made again without it.",
    ]


def test_a_region_that_was_named_and_slices_that_were_matched_by_position(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command
) -> None:
    study = identified(rtstruct_study(names=("Boost", "Margin"), reference=False))
    study.write(tmp_path / "study")
    stage = ("stage", tmp_path / "study", "--bundle", bundles["plain"], "--out", tmp_path / "out", "--json", *ALONE)
    report = lungstage(*stage, "--roi", "Margin", "--match-by-geometry").answer["sr"]
    done = lungstage("replay", report, "--inputs", tmp_path / "study", "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"]) == (0, "reproduced")


def test_two_roi_objects_that_agreed_must_both_be_there(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command
) -> None:
    contoured = identified(rtstruct_study())
    both = Study(contoured.slices, [*contoured.rois, *identified(seg_study()).rois])
    both.write(tmp_path / "study")
    stage = ("stage", tmp_path / "study", "--bundle", bundles["plain"], "--out", tmp_path / "out", "--json", *ALONE)
    report = lungstage(*stage).answer["sr"]
    done = lungstage("replay", report, "--inputs", tmp_path / "study", "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"]) == (0, "reproduced")


def test_an_older_version_of_the_region_had_its_say_too(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command
) -> None:
    study = identified(rtstruct_study())
    (first,) = study.rois
    later = deepcopy(first)
    later.SOPInstanceUID = later.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    first.StructureSetDate, later.StructureSetDate = "20260101", "20260102"
    first.StructureSetTime = later.StructureSetTime = "120000"
    del first.ROIContourSequence[0].ContourSequence[0]
    Study(study.slices, [first, later]).write(tmp_path / "study")
    stage = ("stage", tmp_path / "study", "--bundle", bundles["plain"], "--out", tmp_path / "out", "--json", *ALONE)
    answer = lungstage(*stage).answer
    assert any("older version" in warning for warning in answer["warnings"])
    done = lungstage("replay", answer["sr"], "--inputs", tmp_path / "study", "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"]) == (0, "reproduced")


def test_a_region_of_another_study_is_named_under_its_own(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command
) -> None:
    study = identified(rtstruct_study())
    study.rois[0].StudyInstanceUID = "1.2.3.77"
    study.write(tmp_path / "study")
    stage = ("stage", tmp_path / "study", "--bundle", bundles["plain"], "--out", tmp_path / "out", "--json", *ALONE)
    answer = lungstage(*stage).answer
    report = pydicom.dcmread(answer["sr"])
    (other,) = report.PertinentOtherEvidenceSequence
    (item,) = other.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert (other.StudyInstanceUID, item.ReferencedSOPInstanceUID) == ("1.2.3.77", study.rois[0].SOPInstanceUID)
    (own,) = report.CurrentRequestedProcedureEvidenceSequence
    assert own.StudyInstanceUID == report.StudyInstanceUID == study.slices[0].StudyInstanceUID
    done = lungstage("replay", answer["sr"], "--inputs", tmp_path / "study", "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"]) == (0, "reproduced")


def test_slices_that_never_came_are_counted_again(tmp_path: Path, bundles: dict[str, Path], lungstage: Command) -> None:
    """Also if they have arrived since then: the report says which slices were not received."""
    study = identified(rtstruct_study())
    Study([study.slices[k] for k in (0, *range(3, 9))], study.rois).write(tmp_path / "part")
    stage = ("stage", tmp_path / "part", "--bundle", bundles["plain"], "--out", tmp_path / "out", "--json", *ALONE)
    answer = lungstage(*stage).answer
    assert any("5 listed slices were not received" in warning for warning in answer["warnings"])
    study.write(tmp_path / "whole")
    for folder in ("part", "whole"):
        done = lungstage("replay", answer["sr"], "--inputs", tmp_path / folder, "--bundle", bundles["plain"], "--json")
        assert (done.status, done.answer["status"]) == (0, "reproduced")


def test_a_report_that_follows_another_names_it_again(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command
) -> None:
    identified(rtstruct_study()).write(tmp_path / "study")
    bundle = load_bundle(bundles["plain"], self_test=False)
    case = the_one_case(assemble(scan([tmp_path / "study"]).headers))
    plan = pipeline.prepare(case, bundle, settled=True)
    followed = Predecessor("1.2.3", "1.2.3.4", "1.2.3.4.5")
    staged = pipeline.stage(plan, bundle, created=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), site=Site(),
                            predecessor=followed)  # fmt: skip
    (tmp_path / "out").mkdir()
    *_, report = outbox.deliver(staged.documents, tmp_path / "out")
    done = lungstage("replay", report, "--inputs", tmp_path / "study", "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"]) == (0, "reproduced")


def test_frames_of_an_enhanced_ct_are_told_apart(tmp_path: Path, bundles: dict[str, Path], lungstage: Command) -> None:
    study = identified(enhanced_rtstruct_study())
    study.write(tmp_path / "study")
    stage = ("stage", tmp_path / "study", "--bundle", bundles["plain"], "--out", tmp_path / "out", "--json", *ALONE)
    report = lungstage(*stage).answer["sr"]
    ask = ("replay", report, "--inputs", tmp_path / "study", "--bundle", bundles["plain"], "--json")
    assert lungstage(*ask).answer["status"] == "reproduced"
    (whole,) = study.slices
    case = the_one_case(assemble(scan([tmp_path / "study"]).headers))
    needed = pipeline.prepare(case, load_bundle(bundles["plain"], self_test=False), settled=True).instances
    assert sum(one["uid"].startswith(f"{whole.SOPInstanceUID} frame ") for one in needed) == len(needed) - 1
    log = Audit(tmp_path)
    told = {"sr": pydicom.dcmread(report).SOPInstanceUID, "fingerprint": "f" * 64}
    log.write("job_ready", job=1, fingerprint="f" * 64, instances=list(needed))
    log.write("job_report_ready", job=1, **told, documents={Path(report).name: "0" * 64})
    frame = int(needed[5]["uid"].split()[-1])
    pixels = whole.pixel_array.copy()
    pixels[frame - 1, 20, 22] += 40
    whole.PixelData = pixels.tobytes()
    study.write(tmp_path / "study")
    done = lungstage(*ask, "--state", tmp_path)
    assert [change["subject"] for change in done.answer["changes"] if change["what"] == "slice_pixels"] == [
        f"{whole.SOPInstanceUID} frame {frame}"
    ]


class TestWhatHasChanged:
    def test_a_pixel(
        self, house: House, again: Callable[..., Done], lungstage: Command, bundles: dict[str, Path]
    ) -> None:
        uid = needed_slice(house)

        edit(house.file_of(uid), touch_a_pixel)
        done = again(house)
        assert (done.status, done.answer["status"]) == (3, "changed")
        assert (done.of("slice_pixels")["subject"], "slice_header" in done.kinds) == (uid, False)
        feature = done.of("feature")
        assert feature["then"] != feature["now"]
        assert str(feature["then"]) in feature["message"]
        blind = lungstage("replay", house.report, "--inputs", house.inbox, "--bundle", bundles["plain"], "--json")
        assert "input" in blind.kinds, "the slice cannot be named without the audit log"
        assert any("in no audit log" in note for note in blind.answer["notes"])

    def test_a_position(self, house: House, again: Callable[..., Done]) -> None:
        uid = needed_slice(house)
        edit(house.file_of(uid), lambda dataset: setattr(dataset, "RescaleIntercept", -1000))
        assert again(house).of("slice_header")["subject"] == uid

    def test_a_slice_that_is_gone(self, house: House, again: Callable[..., Done]) -> None:
        uid = needed_slice(house)
        house.file_of(uid).unlink()
        done = again(house)
        assert (done.status, done.kinds) == (3, ["slice_missing"])
        assert done.of("slice_missing")["subject"] == uid

    def test_a_contour(
        self, house: House, again: Callable[..., Done], lungstage: Command, bundles: dict[str, Path]
    ) -> None:
        source = next(p for p in house.inbox.rglob("*") if p.is_file() and pydicom.dcmread(p).Modality == "RTSTRUCT")

        def move(dataset: Dataset) -> None:
            contour = dataset.ROIContourSequence[0].ContourSequence[2]
            data = [float(v) for v in contour.ContourData]
            data[0::3] = [v + 2.5 for v in data[0::3]]
            contour.ContourData = data

        edit(source, move)
        done = again(house)
        assert done.status == 3
        assert done.of("roi_content")["subject"] == pydicom.dcmread(source).SOPInstanceUID
        assert done.of("mask")["now"] == 60, "two columns of 15 rows on either side"
        blind = lungstage("replay", house.report, "--inputs", house.inbox, "--bundle", bundles["plain"], "--json")
        assert blind.of("mask")["now"] == 60
        assert "input" not in blind.kinds, "the changed mask already explains the difference"

    def test_a_roi_object_that_is_gone(self, house: House, again: Callable[..., Done]) -> None:
        next(p for p in house.inbox.rglob("*") if p.is_file() and pydicom.dcmread(p).Modality == "RTSTRUCT").unlink()
        assert again(house).kinds == ["roi_missing"]

    def test_the_bundle(self, served: House, again: Callable[..., Done], bundles: dict[str, Path]) -> None:
        done = again(served, bundle="other")
        assert done.status == 3
        changed = done.of("bundle")
        assert changed["then"] == pydicom.dcmread(served.report).DeviceSerialNumber
        assert changed["now"] != changed["then"]
        assert "plain" in changed["message"]
        assert "other" in changed["message"]
        assert "input" not in done.kinds

    def test_the_software(self, served: House, again: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("lungstage.appliance.replay.reproduce", "lungstage.appliance.staging.documents"):
            monkeypatch.setattr(f"{module}.__version__", "9.9.9")
        done = again(served)
        assert done.status == 3
        assert (done.of("software_version")["then"], done.of("software_version")["now"]) == (
            replay_version(served),
            "9.9.9",
        )
        assert "input" not in done.kinds

    def test_the_patient_s_header_by_keyword_alone(self, house: House, again: Callable[..., Done]) -> None:
        for path in (p for p in house.inbox.rglob("*") if p.is_file()):
            edit(path, lambda dataset: setattr(dataset, "PatientName", "ROE^RICHARD"))
        done = again(house)
        assert done.of("ct_header")["subject"] == "PatientName"
        assert not any(word in done.out for word in (*SECRETS, "ROE", "RICHARD"))

    def test_an_edited_report(self, house: House, again: Callable[..., Done]) -> None:
        """Each of six edits is named with its place, and nothing else."""

        def forge(dataset: Dataset) -> None:
            parts = {item.ConceptNameCodeSequence[0].CodeValue: item for item in dataset.ContentSequence}
            group = parts["126010"].ContentSequence[0]
            probability, feature = [item for item in group.ContentSequence if item.ValueType == "NUM"][:2]
            probability.MeasuredValueSequence[0].FloatingPointValue = 12.5
            feature.MeasuredValueSequence[0].FloatingPointValue = 13.5
            parts["RESULT"].ContentSequence[0].TextValue = "For diagnosis."
            dataset.PatientName = "ROE^RICHARD"
            dataset.InstanceCreationDate = "19991231"
            code = next(i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "STAGEGROUP")
            code.ConceptCodeSequence[0].CodeMeaning = "advanced (III)" + " "

        edit(house.report, forge)
        done = again(house)
        assert done.status == 3
        assert "report_file" in done.kinds
        for what, then in (("probability", 12.5), ("feature", 13.5)):
            assert done.of(what)["then"] == then
            assert done.of(what)["now"] != then
        assert done.of("answer")["then"].startswith("advanced")
        places = [change["subject"] for change in done.answer["changes"] if change["what"] == "element"]
        assert sorted(place.split(".")[-1] for place in places) == [
            "CodeMeaning", "FloatingPointValue", "FloatingPointValue",
            "InstanceCreationDate", "PatientName", "TextValue",
        ]  # fmt: skip
        assert not any(word in done.out for word in (*SECRETS, "ROE", "RICHARD"))

    def test_an_edited_segmentation(self, house: House, again: Callable[..., Done]) -> None:
        edit(house.segmentation, lambda dataset: setattr(dataset, "PixelData", bytes(len(dataset.PixelData))))
        done = again(house)
        assert (done.status, done.kinds) == (3, ["segmentation", "mask"])
        house.segmentation.write_bytes(b"junk")
        assert again(house).kinds == ["segmentation", "segmentation"]

    def test_another_encoding(self, house: House, again: Callable[..., Done]) -> None:
        dataset = pydicom.dcmread(house.report)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(house.report, implicit_vr=True, little_endian=True)
        assert again(house).kinds == ["report_file", "encoding"]

    def test_a_case_that_would_be_refused_today(self, house: House, again: Callable[..., Done]) -> None:
        for path in (p for p in house.inbox.rglob("*") if p.is_file() and pydicom.dcmread(p).Modality == "CT"):
            edit(path, lambda dataset: setattr(dataset, "BodyPartExamined", "LEG"))
        assert again(house).of("refused")["subject"] == "outside_intended_use"


def replay_version(house: House) -> str:
    return str(pydicom.dcmread(house.report).SoftwareVersions)


@pytest.mark.parametrize("content", [b"", b"not DICOM", None])
def test_what_is_no_report_of_ours_is_refused(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is None:
        seg_study().slices[0].save_as(path, enforce_file_format=True)
    else:
        path.write_bytes(content)
    done = lungstage("replay", path, "--inputs", tmp_path, "--bundle", bundles["plain"], "--json")
    assert (done.status, done.answer["status"], done.answer["reason"]["code"]) == (3, "refused", "not_a_report")
    assert set(done.answer) == {"status", "reason", "sr", "changes", "notes"}


def test_a_report_that_is_not_there_is_unavailable(
    tmp_path: Path, bundles: dict[str, Path], lungstage: Command
) -> None:
    assert lungstage("replay", tmp_path / "SR.dcm", "--inputs", tmp_path, "--bundle", bundles["plain"]).status == 4


# The audit log and a job's history, as the commands show them


def test_no_name_gets_into_the_audit_log_or_out_of_the_commands(served: House, lungstage: Command) -> None:
    told = "".join(path.read_text() for path in served.state.glob("audit-*.jsonl"))
    # Reasons are left out: a case that was half copied waited, and its reason may name a region by a known word.
    lasting = [{key: value for key, value in json.loads(line).items() if key != "reason"} for line in told.splitlines()]
    assert "GTV-1" not in json.dumps(lasting), "a region's name is free text"
    dumped = lungstage("audit", "dump", "--state", served.state).out
    assert [json.loads(line) for line in dumped.splitlines()] == [json.loads(line) for line in told.splitlines()]
    for command in (("show", "1", "--json"), ("audit", "verify"), ("audit", "dump")):
        done = lungstage(*command, "--state", served.state)
        assert done.status == 0
        told += done.out + done.err
    assert len(told) > 10_000
    assert [secret for secret in SECRETS if secret in told] == []


def test_show_tells_the_whole_story(served: House, lungstage: Command) -> None:
    story = lungstage("show", "1", "--state", served.state, "--json").answer
    events = [entry["event"] for entry in story["entries"]]
    assert (events[0], events[-3:]) == ("job_opened", ["job_ready", "job_report_ready", "job_delivered"])
    assert story["job"]["sr"] == str(served.report)
    assert {one["kind"] for one in story["instances"]} == {"CT", "RTSTRUCT"}
    assert sorted(story["documents"]) == [served.page.name, served.segmentation.name, served.report.name]
    people = lungstage("show", "1", "--state", served.state).out
    joined = "".join(part.strip(" │") for part in people.splitlines())
    for word in ("delivered", "used: ", "research use only"):
        assert word in people
    assert story["job"]["outcome"]["stage"] in joined
    assert lungstage("show", "7", "--state", served.state).status == 2
    assert lungstage("show", "1", "--state", served.root / "elsewhere").status == 4


def test_show_does_not_let_a_reason_steer_the_terminal(tmp_path: Path, lungstage: Command) -> None:
    from lungstage.appliance.contract.errors import Reason, ReasonCode
    from lungstage.appliance.state.database import Database
    from lungstage.appliance.state.ledger import Ledger

    with Database(tmp_path / "ledger.sqlite") as database:
        ledger = Ledger(database)
        job = ledger.open_job("1.5", "1.2.3", "1.5", "1.5.1")
        ledger.refuse(job.id, Reason(ReasonCode.ROI_NOT_FOUND, "ROIs: [bold]GTV[/bold]-1\x1b[2J."), content="c")
    out = lungstage("show", job.id, "--state", tmp_path).out
    assert "\x1b[2J" not in out
    assert "[bold]" in out


def test_verify_says_where_a_chain_does_not_fit(house: House, lungstage: Command) -> None:
    whole = lungstage("audit", "verify", "--state", house.state)
    assert whole.status == 0
    assert whole.out.startswith("complete and unchanged: ")
    (path,) = house.state.glob("audit-*.jsonl")
    head = lungstage("audit", "verify", "--state", house.state, "--json").answer["sha256"]
    assert head in whole.out
    assert lungstage("audit", "verify", "--state", house.state, "--expect", "0" * 64).status == 3
    path.write_bytes(path.read_bytes().replace(b'"stage":"', b'"stage":"x', 1))
    done = lungstage("audit", "verify", "--state", house.state, "--json")
    assert done.status == 3
    assert done.answer["fault"]["file"] == path.name
    assert lungstage("audit", "verify", "--state", house.inbox).status == 4
    assert lungstage("audit", "verify").status == 2
