"""Data about a person go from the files into the report only, and the daemon writes only to its folders.

A marker is written into every text of every input, also into private elements and the names of files and folders.
Then everything that the daemon writes is searched for it: log, ledger, audit log, heartbeat, names of files, and the
output of the commands.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import psutil
import pydicom
import pytest
from pydicom.config import IGNORE, settings
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from lungstage.appliance.config import logs
from tests.support.studies import Study, rtstruct_study, seg_study
from tests.system.test_run import ENVIRONMENT, RUN, Appliance, called, jobs_of, running, tolerant_bundle  # noqa: F401

MARK = "Q7ZX"
BORN = "19030711"  # written into every date; times and ages contain parts of it
STUDIED = "1903-07-11"  # the study date, as the ledger and the commands that read it show it
TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
GROUPS = frozenset({0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0032, 0x0038, 0x0040, 0x0088, 0x3006, 0x300E})

# Elements that decide whether a study is staged; separate studies have the marker in them.
STEERING = frozenset(
    {
        "Modality", "ImageType", "BodyPartExamined", "RescaleType", "PhotometricInterpretation", "SpecificCharacterSet",
        "ROIName", "ContourGeometricType", "SegmentationType", "SegmentationFractionalType", "CodeValue", "FrameType",
        "CodingSchemeDesignator", "LossyImageCompression", "DimensionOrganizationType", "LongCodeValue", "URNCodeValue",
        "SegmentsOverlap",
    }
)  # fmt: skip


def marker(tag: int) -> str:
    """Return a text that is valid in every Value Representation and that contains its tag."""
    return f"{MARK}{tag:08X}"


def _planted(tag: int, vr: str) -> object:
    return {"DA": BORN, "TM": "190307.190307", "DT": f"{BORN}190307", "AS": "097Y"}.get(vr, marker(tag))


def plant(dataset: Dataset) -> None:
    """Put markers into every existing and possible text, at every depth, and into private elements."""
    _overwrite(dataset)
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        if tag >> 16 in GROUPS and not retired and tag not in dataset and keyword not in STEERING:
            if vr in TEXTS:
                dataset.add_new(tag, vr, _planted(tag, vr))
            elif vr == "SQ" and tag >> 16 in (0x0008, 0x0010, 0x0040):
                item = Dataset()
                item.PatientName, item.PersonName, item.TextValue = (marker(tag),) * 3
                dataset.add_new(tag, "SQ", Items([item]))
    dataset.update(_private())


def _overwrite(dataset: Dataset) -> None:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _overwrite(item)
        elif element.VR in (*TEXTS, "DA", "TM", "DT", "AS") and element.keyword not in STEERING:
            dataset[element.tag] = DataElement(element.tag, element.VR, _planted(element.tag, element.VR))


def _private() -> Dataset:
    private, item = Dataset(), Dataset()
    private.add_new(0x00090010, "LO", marker(0x00090010))
    for number, vr in enumerate(sorted(TEXTS), start=0x1001):
        private.add_new(0x00090000 + number, vr, marker(0x00090000 + number))
    for number, vr in enumerate(("OB", "UN"), start=0x1030):
        private.add_new(0x00090000 + number, vr, marker(0x00090000 + number).encode())
    item.PatientName = marker(0x00091040)
    private.add_new(0x00091040, "SQ", Items([item]))
    return private


def renamed(study: Study, name: str) -> Study:
    """Give the study other UIDs, also in its references."""
    kept = (
        "SOPClassUID",
        "TransferSyntaxUID",
        "MediaStorageSOPClassUID",
        "ReferencedSOPClassUID",
        "MappingResourceUID",
    )

    seen: set[int] = set()  # regions may share their contours' items

    def rename(dataset: Dataset) -> None:
        if id(dataset) in seen:
            return
        seen.add(id(dataset))
        for element in dataset:
            if element.VR == "SQ":
                for item in element.value:
                    rename(item)
            elif element.VR == "UI" and element.value and element.keyword not in kept:
                # A new element, because objects share elements with the objects that they were made from.
                uid = generate_uid(entropy_srcs=[name, str(element.value)])
                dataset[element.tag] = DataElement(element.tag, "UI", uid)

    for dataset in (*study.slices, *study.rois):
        rename(dataset)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return study


def _roi_names(study: Study, *names: str) -> Study:
    for roi, name in zip(study.rois[0].StructureSetROISequence, names, strict=True):
        roi.ROIName = name
    return study


def _term(keyword: str) -> Callable[[Study], Study]:
    def change(study: Study) -> Study:
        for dataset in study.slices:
            setattr(dataset, keyword, marker(dataset[keyword].tag))
        return study

    return change


def _missing_slice(study: Study) -> Study:
    del study.slices[5]
    return study


def _names_no_series(study: Study) -> Study:
    """A region object without slices, with text in place of the series' UID."""
    study.slices.clear()
    frame = study.rois[0].ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.SeriesInstanceUID = f"{MARK} Doe"
    for image in series.ContourImageSequence:
        image.ReferencedSOPInstanceUID = f"{MARK} Doe"
    return study


def _coordinates_in_words(study: Study) -> Study:
    contour = study.rois[0].ROIContourSequence[0].ContourSequence[0]
    contour.add(DataElement("ContourData", "DS", f"1\\2\\{MARK}", already_converted=True))
    return study


def _points_in_words(study: Study) -> Study:
    contour = study.rois[0].ROIContourSequence[0].ContourSequence[0]
    contour.add(DataElement("NumberOfContourPoints", "IS", MARK, already_converted=True))
    return study


def _nothing(study: Study) -> Study:
    return study


# Name: a study, a change to it, and its expected result.
STUDIES: dict[str, tuple[Callable[[], Study], Callable[[Study], Study], str]] = {
    "contours": (lambda: rtstruct_study(names=("GTV-1", f"GTV {MARK}")), _nothing, "delivered"),
    "segment": (seg_study, _nothing, "delivered"),
    "names": (lambda: rtstruct_study(names=("A", "B")), lambda s: _roi_names(s, f"{MARK} Doe", "Heart"),
              "roi_not_found"),
    "ambiguous": (lambda: rtstruct_study(names=("A", "B")), lambda s: _roi_names(s, f"GTV {MARK}", f"GTV {MARK}b"),
                  "roi_ambiguous"),
    "body part": (rtstruct_study, _term("BodyPartExamined"), "outside_intended_use"),
    "image type": (rtstruct_study, _term("ImageType"), "outside_intended_use"),
    "unit": (rtstruct_study, _term("RescaleType"), "rescale_varies"),
    "modality": (rtstruct_study, _term("Modality"), "not_ct"),
    "missing slice": (rtstruct_study, _missing_slice, "slices_missing"),
    "no series": (rtstruct_study, _names_no_series, "ct_missing"),
    "coordinates": (rtstruct_study, _coordinates_in_words, "roi_unreadable"),
    "points": (rtstruct_study, _points_in_words, "roi_unreadable"),
}  # fmt: skip


def write_everything(inbox: Path) -> None:
    """Write studies with every result, each in a folder with a person's name, and files that are not DICOM."""
    for name, (make, change, _) in STUDIES.items():
        study = renamed(deepcopy(make()), name)
        roi_names = [[roi.ROIName for roi in r.get("StructureSetROISequence", ())] for r in study.rois]
        for dataset in (*study.slices, *study.rois):
            plant(dataset)
        for roi, names in zip(study.rois, roi_names, strict=True):
            for item, roi_name in zip(roi.get("StructureSetROISequence", ()), names, strict=True):
                item.ROIName = roi_name
        folder = inbox / f"{MARK}^Doe {name}"
        folder.mkdir(parents=True)
        for number, dataset in enumerate((*change(study).rois, *study.slices)):
            dataset.save_as(folder / f"{MARK}-{number}.dcm", enforce_file_format=True)
    whole = next((inbox / f"{MARK}^Doe contours").iterdir()).read_bytes()
    (inbox / f"{MARK}-torn.dcm").write_bytes(whole[: len(whole) // 2])
    (inbox / f"{MARK}.txt").write_text(f"{MARK} is not DICOM")
    no_uid = pydicom.dcmread(inbox / f"{MARK}^Doe contours" / f"{MARK}-1.dcm")
    no_uid.StudyInstanceUID = f"{MARK}.1.2"
    no_uid.save_as(inbox / f"{MARK}-uid.dcm", enforce_file_format=True)


@dataclass
class Left:
    """What a daemon wrote, by the place where it was found."""

    texts: dict[str, str]
    reports: list[Path]
    ends: dict[str, str]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = IGNORE
    try:
        write_everything(folder / "inbox")
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before
    return folder / "inbox"


@pytest.fixture(scope="module")
def left(written: Path, tmp_path_factory: pytest.TempPathFactory, tolerant_bundle: Path) -> Left:  # noqa: F811
    root = tmp_path_factory.mktemp("privacy")
    shutil.copytree(written, root / "inbox")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "LUNGSTAGE_LOG_FORMAT", "json")
        patch.setitem(ENVIRONMENT, "LUNGSTAGE_LOG_LEVEL", "DEBUG")
        return _left(root, tolerant_bundle)


def _left(root: Path, bundle: Path) -> Left:
    state = root / "state"
    with running(root, bundle) as one:
        one.until(lambda: len(one.jobs()) == len(STUDIES) and _all_at_rest(one), 120)
        texts = {"heartbeat": (state / "heartbeat.json").read_text()}
        jobs = one.jobs()
        commands = [("jobs",), ("jobs", "--json"), ("jobs", "--files"), ("jobs", "--files", "--json"), ("health",)]
        commands += [("show", str(job["id"])) for job in jobs] + [("show", str(jobs[0]["id"]), "--json")]
        commands += [("jobs", "--csv"), ("show", str(jobs[0]["id"]), "--full")]
        patient = marker(tag_for_keyword("PatientID") or 0)
        commands += [("jobs", "--patient", patient, "--json"), ("jobs", "--patient", patient[:-1], "--json")]
        for command in commands:
            done = called(*command, "--state", state)
            texts[" ".join(command).replace(patient, "ID").replace(patient[:-1], "I")] = done.stdout + done.stderr
        texts["log"] = one.stop()
    texts |= _tables(state / "ledger.sqlite")
    for folder in (state, root / "outbox"):
        for path in folder.rglob("*"):
            texts[f"name of {path.name}"] = str(path.relative_to(root))
            if path.is_file() and folder == state and not path.name.startswith("ledger.sqlite"):
                texts[f"content of {path.name}"] = path.read_bytes().decode("latin-1")
    ends = {job["study_instance_uid"]: job["reason"]["code"] if job["reason"] else job["state"] for job in jobs}
    return Left(texts, sorted((root / "outbox").glob("SR-*.dcm")), ends)


def _all_at_rest(one: Appliance) -> bool:
    return all(job["state"] in ("delivered", "refused", "held") for job in one.jobs())


def _tables(path: Path) -> dict[str, str]:
    """Return every table of the ledger as text, without the paths of files, which stay in the state folder."""
    connection = sqlite3.connect(path)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables = {}
    for name in names:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        told = [column for column in columns if (name, column) not in {("files", "path"), ("files", "header")}]
        tables[f"table {name}"] = repr(connection.execute(f"SELECT {', '.join(told)} FROM {name}").fetchall())
    headers = [row[0] for row in connection.execute("SELECT header FROM files WHERE header IS NOT NULL")]
    tables["headers"] = "\n".join(headers)
    connection.close()
    return tables


def test_a_study_is_found_by_its_date_and_patient_and_neither_is_told_to_the_log(left: Left) -> None:
    rows, found, others = (
        json.loads(left.texts[f"jobs{which} --json"]) for which in ("", " --patient ID", " --patient I")
    )
    assert {row["study_date"] for row in rows} == {STUDIED}
    assert (found, others) == (rows, [])
    told = [text for where, text in left.texts.items() if where == "log" or where.startswith("content of audit")]
    assert len(told) >= 2
    assert not any(STUDIED in text for text in told)


def test_the_studies_came_to_their_ends(left: Left) -> None:
    """Otherwise the other tests would check nothing."""
    expected = sorted(end for _, _, end in STUDIES.values())
    assert sorted(left.ends.values()) == expected
    assert len(left.reports) == 2
    for path in left.reports:
        report = pydicom.dcmread(path)
        assert report.PatientName == marker(0x00100010), "the report names the patient, for the people who treat them"
        assert report.PatientID == marker(0x00100020)


def test_nothing_planted_is_found(left: Left) -> None:
    assert len(left.texts) > 30
    assert [json.loads(line) for line in left.texts["log"].splitlines()]
    assert left.texts["log"].count("roi_unreadable") >= 2
    context = re.compile(f".{{0,60}}{MARK}.{{0,60}}", re.IGNORECASE)
    found = {where: context.findall(text)[:3] for where, text in left.texts.items() if where != "headers"}
    assert {where: hits for where, hits in found.items() if hits} == {}
    # The file table contains the deciding elements (docs/operating.md: keep the state folder private), no identity.
    headers = left.texts["headers"]
    deciding = {marker(t) for t in (0x00080060, 0x00080008, 0x00180015)}
    assert set(re.findall(f"{MARK}[0-9A-F]{{8}}", headers, re.IGNORECASE)) <= deciding
    assert f"{MARK} Doe" not in headers


def test_no_date_of_birth_is_found(left: Left) -> None:
    """No other date of a file is found either."""
    for where, text in left.texts.items():
        assert BORN not in text or where == "headers", where  # dates show which of two regions is newer
        assert STUDIED not in text or where.partition(" ")[0] in ("headers", "table", "jobs", "show"), where


def test_a_log_in_text_has_the_fields_of_one_in_json_and_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Also for an exception and another library's log; so it is enough to check a daemon's log in one format."""
    lines = []
    for style in ("text", "json"):
        logs.configure(style, "DEBUG")  # type: ignore[arg-type]
        try:
            raise ValueError(MARK)
        except ValueError as error:
            logs.logger.exception("defect", extra=logs.defect(error) | {"job": 3, "series": None})
        logging.getLogger("pydicom").error("value %s", MARK)
        warnings.warn(MARK, stacklevel=1)
        (line,) = capsys.readouterr().err.splitlines()
        assert MARK not in line
        lines.append(line)
    assert re.findall(r"(?:^| )(\w+)=", lines[0]) == [*json.loads(lines[1])]


def test_names_of_regions_of_the_trade_are_told(left: Left) -> None:
    reasons = [row["reason"]["message"] for row in json.loads(left.texts["jobs --json"]) if row["reason"]]
    assert any("'Heart', 1 region (name hidden for privacy)" in message for message in reasons)
    assert any("2 regions (names hidden for privacy)" in message for message in reasons)


# --- system calls --------------------------------------------------------------------------------------------------

TOUCHING = (
    "%network,open,openat,openat2,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,"
    "symlink,symlinkat,mknod,mknodat,truncate,chmod,fchmodat,chown,fchownat,lchown,utimensat,setxattr"
)
_OF_FILES = (
    "open",
    "creat",
    "rename",
    "unlink",
    "mk",
    "rm",
    "link",
    "sym",
    "trunc",
    "ch",
    "fch",
    "lch",
    "utime",
    "setx",
)
_CALL = re.compile(r"^\d+\s+(\w+)\((.*)$")
_PATHS = re.compile(r'(?:(AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"')
_WRITING = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND")
# Files of the Linux kernel that a process writes to change its own attributes.
_OF_THE_KERNEL = re.compile(r"/dev/null|/proc/(self|\d+)/(oom_score_adj|comm|task/\d+/comm)")


def _touched(trace: str, folder: Path) -> tuple[list[str], set[Path]]:
    """Return the lines of network calls, and every path that was opened for writing, made, renamed or removed."""
    network, paths = [], set()
    for line in trace.splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        call, arguments = match.groups()
        if not call.startswith(_OF_FILES):
            network.append(line)
        elif not call.startswith("open") or any(flag in arguments for flag in _WRITING):
            for _, base, name in _PATHS.findall(arguments):
                paths.add(Path(os.path.normpath(Path(base or folder, name))))
    return network, paths


def test_the_daemon_opens_no_socket_and_writes_to_its_folders_alone(tmp_path: Path, tolerant_bundle: Path) -> None:  # noqa: F811
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    for name in ("contours", "segment", "names"):
        make, change, _ = STUDIES[name]
        change(renamed(deepcopy(make()), name)).write(tmp_path / "inbox" / name)
    before = _tree(tmp_path / "inbox")
    trace, state = tmp_path / "trace", tmp_path / "state"
    command = ["strace", "-f", "-y", "-qq", "-s", "4096", "-o", str(trace), "-e", f"trace={TOUCHING}", *RUN, "run"]
    command += ["--inbox", str(tmp_path / "inbox"), "--outbox", str(tmp_path / "outbox"), "--state", str(state)]
    # Python would write compiled modules beside the code; deployments of the appliance switch this off, too.
    environment = ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1", "LUNGSTAGE_CANARY_SECONDS": "3600"}
    process = subprocess.Popen([*command, "--bundle", str(tolerant_bundle)], env=environment, cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        until = time.monotonic() + 120
        while len(list((tmp_path / "outbox").glob("SR-*.dcm"))) < 2 or '"canary": true' not in _read(state):
            assert time.monotonic() < until
            time.sleep(0.2)
        while "refused" not in (job["state"] for job in jobs_of(state)):
            assert time.monotonic() < until
            time.sleep(0.2)
        (daemon,) = psutil.Process(process.pid).children()
        daemon.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        for child in _children(process.pid):  # otherwise they would run on after strace
            child.kill()
        process.kill()
        process.communicate()
    assert "roi_not_found" in log
    network, touched = _touched(trace.read_text(errors="replace"), tmp_path)
    assert network == []
    allowed = (tmp_path / "outbox", state)
    outside = {path for path in touched if not any(path.is_relative_to(folder) for folder in allowed)}
    assert {str(path) for path in outside if not _OF_THE_KERNEL.fullmatch(str(path))} - {
        str(tmp_path / "inbox")
    } == set()
    assert any(path.name.startswith(".SR-") for path in touched), "the trace must contain the written files"
    assert any(path.name == "ledger.sqlite" for path in touched)
    assert _tree(tmp_path / "inbox") == before


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _read(state: Path) -> str:
    try:
        return (state / "heartbeat.json").read_text()
    except FileNotFoundError:
        return ""


def _tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_mode, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_the_trace_is_read_rightly(tmp_path: Path) -> None:
    """The forbidden calls of a program are found."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    program = (
        "import os, socket\n"
        "socket.socket(socket.AF_INET).close()\n"
        "open('here', 'w').close(); os.rename('here', 'there'); os.unlink('there'); os.mkdir('folder')\n"
        "os.mkdir('inner', dir_fd=os.open('folder', os.O_RDONLY))\n"
    )
    command = ["strace", "-f", "-y", "-qq", "-o", tmp_path / "trace", "-e", f"trace={TOUCHING}"]
    environment = ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*command, sys.executable, "-c", program], cwd=tmp_path, check=True, env=environment)
    network, touched = _touched((tmp_path / "trace").read_text(), tmp_path)
    assert len(network) == 1
    assert {path.relative_to(tmp_path) for path in touched if path.is_relative_to(tmp_path)} == {
        Path("here"), Path("there"), Path("folder"), Path("folder/inner"),
    }  # fmt: skip
