"""``lungstage run`` as a process, over the real steps and a real patient: what a hospital would see."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.staging import phantom
from lungstage.appliance.state import chain
from lungstage.appliance.workers import confinement
from lungstage.export.bundle import build
from tests.export.conftest import make_run, without_limits
from tests.support.contours import contour_seg, region
from tests.support.enhanced import ORDER, enhanced_rtstruct_study
from tests.support.seconds import PATIENCE
from tests.support.studies import contours_of, rtstruct_study, square_mask

RUN = (sys.executable, "-m", "lungstage.appliance.cli.main")
_OWN_VARIABLES = [k for k in os.environ if k.startswith("LUNGSTAGE_")]
# Without robustness, which has tests of its own and takes a third of the time that a report does.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("LUNGSTAGE_")} | {
    "OMP_NUM_THREADS": "1", "LUNGSTAGE_PERTURBATIONS": "0",
}  # fmt: skip


@pytest.fixture(scope="session")
def tolerant_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, and no limit to the distance from the training cohort that they never had."""
    folder = tmp_path_factory.mktemp("models") / "tolerant"
    build(without_limits(make_run()), folder)
    return folder


@dataclass
class Appliance:
    """A running daemon, with its folders."""

    root: Path
    process: subprocess.Popen[str]

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    def reports(self) -> list[Path]:
        return sorted((self.root / "outbox").glob("SR-*.dcm"))

    def jobs(self) -> list[dict[str, Any]]:
        return jobs_of(self.root / "state")

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> float:
        started = time.monotonic()
        while not condition():
            assert self.process.poll() is None, "the daemon has ended"
            assert time.monotonic() - started < seconds, f"not within {seconds} s: {self.jobs()}"
            time.sleep(0.05)
        return time.monotonic() - started

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return log


def lungstage(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*RUN, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def jobs_of(state: Path) -> list[dict[str, Any]]:
    """What ``lungstage jobs --json`` prints, without a process of its own: whoever waits for a job asks many times."""
    done = CliRunner().invoke(app, ["jobs", "--state", str(state), "--json"], env=dict.fromkeys(_OWN_VARIABLES))
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@contextlib.contextmanager
def running(root: Path, bundle: Path, *options: object) -> Iterator[Appliance]:
    command = [*RUN, "run", "--create"]
    command += ["--inbox", root / "inbox", "--outbox", root / "outbox", "--state", root / "state"]
    process = subprocess.Popen(
        [*map(str, (*command, "--bundle", bundle, *options))],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "ready\n", process.stderr and process.stderr.read()
        yield Appliance(root, process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def appliance(tmp_path: Path, tolerant_bundle: Path) -> Iterator[Appliance]:
    with running(tmp_path, tolerant_bundle) as one:
        yield one


@pytest.fixture
def patient(shared_data: Path) -> Path:
    return shared_data / "dicom" / "lung1-001-slab"


def promised_seconds() -> float:
    """From the last needed file to the report: 2 s, on a machine that has a core to spare."""
    return 2.0 * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def slices_of(patient: Path) -> list[Path]:
    return sorted((patient / "CT").iterdir(), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))


def middle_slice_needed(patient: Path) -> Path:
    """A slice in the middle of the contours of the GTV."""
    structures = pydicom.dcmread(patient / "RS.dcm")
    names = {roi.ROINumber: roi.ROIName for roi in structures.StructureSetROISequence}
    contours = next(c for c in structures.ROIContourSequence if names[c.ReferencedROINumber].upper().startswith("GTV"))
    depths = sorted(float(contour.ContourData[2]) for contour in contours.ContourSequence)
    middle = depths[len(depths) // 2]
    return min(slices_of(patient), key=lambda path: abs(float(pydicom.dcmread(path).ImagePositionPatient[2]) - middle))


@pytest.mark.slow
def test_a_study_copied_file_by_file_yields_one_report_in_time_and_its_copy_none(
    appliance: Appliance, patient: Path
) -> None:
    shutil.copy(patient / "RS.dcm", appliance.inbox)
    files = slices_of(patient)
    random.Random(1).shuffle(files)
    for number, path in enumerate(files):
        shutil.copy(path, appliance.inbox)
        if number == 5:
            (appliance.inbox / "junk.txt").write_text("this is not DICOM")
    assert appliance.until(appliance.reports) < promised_seconds()
    for path in (patient / "RS.dcm", *files):
        shutil.copy(path, appliance.inbox / f"copy-{path.name}")
    time.sleep(4)
    (report,) = appliance.reports()
    (job,) = appliance.jobs()
    dataset = pydicom.dcmread(report)
    assert (job["state"], job["sr_sop_instance_uid"]) == ("delivered", dataset.SOPInstanceUID)
    assert dataset.Modality == "SR"
    assert {path.name for path in appliance.inbox.iterdir()} >= {"RS.dcm", "junk.txt"}
    files = lungstage("jobs", "--files", "--state", appliance.root / "state", "--json").stdout
    assert [row["reason"]["code"] for row in json.loads(files)] == ["dicom_unreadable"]
    assert "junk" not in files
    paths = lungstage("jobs", "--files", "--paths", "--state", appliance.root / "state").stdout
    assert paths.startswith(str(appliance.inbox / "junk.txt"))

    log = appliance.stop()
    assert dataset.SOPInstanceUID in log
    # Nothing of the patient, and no file name, is told to the log or to a reader of the ledger.
    source = pydicom.dcmread(patient / "RS.dcm")
    told = log + json.dumps(job)
    for secret in (str(source.PatientName), source.PatientID, "junk.txt", slices_of(patient)[0].name):
        assert len(secret) < 3 or not re.search(rf"\b{re.escape(secret)}\b", told)


@pytest.mark.slow
def test_a_middle_slice_left_out_is_held_until_it_arrives(appliance: Appliance, patient: Path) -> None:
    late = middle_slice_needed(patient)
    for path in (patient / "RS.dcm", *slices_of(patient)):
        if path != late:
            shutil.copy(path, appliance.inbox)
    appliance.until(lambda: [job["state"] for job in appliance.jobs()] == ["held"])
    (job,) = appliance.jobs()
    assert job["reason"]["code"] == "slices_missing"
    assert not appliance.reports()
    shutil.copy(late, appliance.inbox)
    assert appliance.until(appliance.reports) < promised_seconds()
    assert [job["state"] for job in appliance.jobs()] == ["delivered"]


@pytest.mark.slow
def test_killed_and_restarted_it_repeats_the_same_report(tmp_path: Path, tolerant_bundle: Path, patient: Path) -> None:
    (tmp_path / "inbox").mkdir()
    for path in (patient / "RS.dcm", *slices_of(patient)):
        shutil.copy(path, tmp_path / "inbox")
    with running(tmp_path, tolerant_bundle) as first:
        first.until(first.reports)
        first.until(lambda: [job["state"] for job in first.jobs()] == ["delivered"])
        before = {path: path.read_bytes() for path in (tmp_path / "outbox").iterdir()}
        first.process.kill()
    for path in before:
        path.unlink()
    assert lungstage("requeue", 1, "--state", tmp_path / "state").returncode == 0
    with running(tmp_path, tolerant_bundle) as second:
        second.until(second.reports)
        second.stop()
    assert {path: path.read_bytes() for path in (tmp_path / "outbox").iterdir()} == before


def test_a_real_canary_comes_through_and_the_daemon_is_well(
    tmp_path: Path, shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "LUNGSTAGE_CANARY_SECONDS", "3600")
    assert lungstage("health", "--state", tmp_path / "state").returncode == 4
    with running(tmp_path, shipped_bundle) as one:
        one.until(lambda: '"canary": true' in (tmp_path / "state" / "heartbeat.json").read_text())
        assert lungstage("health", "--state", tmp_path / "state").returncode == 0
        assert not one.reports()
        assert one.jobs() == []
        one.stop()


def test_a_second_daemon_on_the_same_state_is_turned_away(appliance: Appliance, tolerant_bundle: Path) -> None:
    root = appliance.root
    done = lungstage(
        "run", "--inbox", root / "inbox", "--outbox", root / "o", "--state", root / "state", "--bundle", tolerant_bundle
    )
    assert done.returncode == 4
    assert done.stderr.startswith("lungstage: Another daemon is running on the state folder ")
    assert done.stdout == ""
    appliance.stop()


def test_a_flipped_byte_in_the_bundle_is_refused_at_start(tmp_path: Path, tolerant_bundle: Path) -> None:
    shutil.copytree(tolerant_bundle, tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    (tmp_path / "i").mkdir()
    done = lungstage("run", "--inbox", tmp_path / "i", "--outbox", tmp_path / "o", "--bundle", tmp_path / "bundle")
    assert done.returncode == 3
    assert "[bundle_hash_mismatch]" in done.stderr
    assert done.stdout == ""


def put_file(source: Path, folder: Path) -> None:
    """Copy a file into a folder in two pieces, as a network does."""
    content = source.read_bytes()
    with (folder / source.name).open("wb") as file:
        for piece in (content[:1000], content[1000:]):
            file.write(piece)
            file.flush()
            time.sleep(0.2)


@pytest.mark.slow
def test_its_processes_are_confined_and_the_log_tells_of_no_gap(appliance: Appliance) -> None:
    def are_confined() -> bool:
        processes = psutil.Process(appliance.process.pid).children(recursive=True)
        statuses = [Path(f"/proc/{process.pid}/status").read_text() for process in processes]
        return bool(statuses) and all("NoNewPrivs:\t1\n" in one and "Seccomp:\t2\n" in one for one in statuses)

    appliance.until(are_confined)  # those, too, that are only now being started
    log = appliance.stop()
    if confinement._syscall(444, None, 0, 1) < 1:
        pytest.skip("this kernel has no Landlock, or the container forbids it")
    assert "not_confined" not in log


@pytest.mark.slow
def test_a_bundle_is_exchanged_while_studies_come(tmp_path: Path, tolerant_bundle: Path) -> None:
    build(without_limits(make_run(1)), tmp_path / "models" / "next")
    new, bundle = tmp_path / "models" / "next", Path(shutil.copytree(tolerant_bundle, tmp_path / "bundle"))
    digests = {hashlib.sha256((each / "manifest.json").read_bytes()).hexdigest(): each for each in (bundle, new)}
    old_digest, new_digest = digests
    with running(tmp_path, bundle) as appliance:
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(iter(appliance.process.stderr.readline, "")))  # type: ignore[union-attr]
        reader.start()

        def told() -> list[str]:
            return [event for line in log for event in re.findall(r"event=(bundle_\w+)", line)]

        def answered_by(study: str) -> str:
            """Send a study, and return the digest that its report bears."""
            before = set(appliance.reports())
            phantom.write_study(appliance.inbox / study, study)
            appliance.until(lambda: set(appliance.reports()) - before)
            (report,) = set(appliance.reports()) - before
            return str(pydicom.dcmread(report).DeviceSerialNumber)

        assert answered_by("first") == old_digest
        daemon = psutil.Process(appliance.process.pid)
        former = daemon.children()
        for name in ("model.onnx", "MODEL_CARD.md", "extraction.yaml", "manifest.json"):
            assert told() == []
            put_file(new / name, bundle)
        assert answered_by("second") in digests  # the old one's as long as the new one is being tried
        appliance.until(lambda: told() == ["bundle_taken"])
        assert answered_by("third") == new_digest
        assert not [process for process in former if process.is_running()]

        (bundle / "model.onnx").write_bytes((tolerant_bundle / "model.onnx").read_bytes())
        assert answered_by("fourth") == new_digest
        appliance.until(lambda: told() == ["bundle_taken", "bundle_refused"])
        assert answered_by("fifth") == new_digest
        shutil.copytree(tolerant_bundle, bundle, dirs_exist_ok=True)
        appliance.until(lambda: told() == ["bundle_taken", "bundle_refused", "bundle_taken"])
        assert answered_by("sixth") == old_digest
        jobs, children = appliance.jobs(), daemon.children()
        appliance.process.send_signal(signal.SIGTERM)
        assert appliance.process.wait(PATIENCE) == 0
        reader.join()
    assert [job["state"] for job in jobs] == ["delivered"] * 6  # and none twice
    audited = [entry.event for entry in chain.entries(tmp_path / "state") if entry.event.startswith("bundle_")]
    assert audited == told()
    assert [job["bundle_digest"] for job in jobs if job["id"] != 2] == [old_digest, *[new_digest] * 3, old_digest]
    events = [line for line in log if "event=bundle_" in line]
    assert f"bundle={new_digest} former={old_digest}" in events[0]
    assert f"code=bundle_hash_mismatch kept={new_digest}" in events[1]
    assert f"bundle={old_digest} former={new_digest}" in events[2]
    assert "Traceback" not in "".join(log)
    assert not [process for process in children if process.is_running()]
    assert not list((tmp_path / "state" / "scratch").glob("*"))


def test_where_a_key_is_trusted_every_command_asks_for_its_signature(tmp_path: Path, tolerant_bundle: Path) -> None:
    from lungstage.export import signing

    bundle = Path(shutil.copytree(tolerant_bundle, tmp_path / "bundle"))
    for name in ("vendor", "other"):
        signing.generate(tmp_path / name, None)
    study = tmp_path / "study"
    phantom.write_study(study)
    staging = ("stage", study, "--bundle", bundle, "--out", tmp_path / "out", "--json")
    serving = ("run", "--create", "--inbox", tmp_path / "i", "--outbox", tmp_path / "o", "--bundle", bundle)
    trusted = ("--trusted-key", tmp_path / "vendor.pub")

    def codes() -> list[str]:
        staged, served, verified = (lungstage(*command, *trusted) for command in (staging, serving, ("verify", bundle)))
        assert [done.returncode for done in (staged, served, verified)] == [3, 3, 3]
        found = [re.findall(r"\[(\w+)\]", done.stderr)[-1] for done in (served, verified)]
        return [json.loads(staged.stdout)["reason"]["code"], *found]

    assert codes() == ["bundle_unsigned"] * 3
    signing.sign(bundle, signing.read_private_key(tmp_path / "other.key", str))
    assert codes() == ["bundle_signature_invalid"] * 3
    assert lungstage(*staging).returncode == 0  # whoever trusts no key asks for none
    signing.sign(bundle, signing.read_private_key(tmp_path / "vendor.key", str))
    assert json.loads(lungstage(*staging, *trusted).stdout)["status"] == "staged"
    assert "signed by the trusted key vendor.pub" in lungstage("verify", bundle, *trusted).stdout
    for key in ("nowhere", "vendor.key", "bundle/model.onnx"):
        for command in (staging, serving, ("verify", bundle)):
            done = lungstage(*command, "--trusted-key", tmp_path / key)
            assert (done.returncode, done.stdout) == (2, "")
            assert str(tmp_path / key) in done.stderr
            assert "Traceback" not in done.stderr


def test_usage_is_told_from_data(tmp_path: Path) -> None:
    assert lungstage("run", "--colour").returncode == 2
    bare = lungstage("run")
    assert (bare.returncode, bare.stdout) == (2, "")
    assert bare.stderr.startswith("lungstage: Give --inbox, --outbox and --bundle, or a settings file with --config. ")
    missing = lungstage("run", "--inbox", tmp_path / "i")
    assert missing.returncode == 2
    assert "'outbox' is missing" in missing.stderr
    assert lungstage("requeue", "x").returncode == 2
    assert lungstage("jobs", "--state", tmp_path).returncode == 4
    assert lungstage("jobs").returncode == 2
    assert lungstage("--version").returncode == 0


@pytest.mark.parametrize("command", ["run", "jobs", "requeue", "show", "replay", "audit"])
def test_every_command_has_help(command: str) -> None:
    done = lungstage(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 200


def test_the_help_of_run_has_groups() -> None:
    shown = lungstage("run", "--help").stdout
    assert [title for title in ("Options", "Folders and settings", "Advanced") if f"─ {title} ─" not in shown] == []


def test_jobs_is_readable_for_people_too(tmp_path: Path) -> None:
    from lungstage.appliance.contract.errors import Reason, ReasonCode
    from lungstage.appliance.state.database import Database
    from lungstage.appliance.state.ledger import Ledger

    with Database(tmp_path / "ledger.sqlite") as database:
        ledger = Ledger(database)
        job = ledger.open_job("1.5", "1.2.3", "1.5", "1.5.1")
        ledger.refuse(job.id, Reason(ReasonCode.ROI_NOT_FOUND, "ROIs: [bold]GTV[/bold]-1\x1b[2J."), content="c")
    done = lungstage("jobs", "--state", tmp_path)
    assert done.returncode == 0
    shown = re.sub(r"[\s│]", "", done.stdout)
    assert "[bold]GTV[/bold]-1" in shown
    assert "\x1b[2J" not in shown
    again = lungstage("requeue", job.id, "--state", tmp_path)
    assert again.returncode == 0
    assert lungstage("requeue", job.id, "--state", tmp_path).returncode == 2


@pytest.mark.slow
def test_an_enhanced_ct_yields_one_report_on_its_frames(appliance: Appliance) -> None:
    """One file holds every slice; the structure set comes first, and has to wait for it."""
    study = enhanced_rtstruct_study()
    whole, roi = study.slices[0], study.rois[0]
    roi.save_as(appliance.inbox / "roi", enforce_file_format=True)
    appliance.until(lambda: [job["state"] for job in appliance.jobs()] == ["held"])
    assert appliance.jobs()[0]["reason"]["code"] == "ct_missing"
    whole.save_as(appliance.inbox / "enhanced", enforce_file_format=True)
    appliance.until(appliance.reports)
    appliance.until(lambda: [job["state"] for job in appliance.jobs()] == ["delivered"])
    shutil.copy(appliance.inbox / "enhanced", appliance.inbox / "copy")
    time.sleep(2)
    (report,) = appliance.reports()
    assert str(whole.SOPInstanceUID) in str(pydicom.dcmread(report).CurrentRequestedProcedureEvidenceSequence)
    assert len(list((appliance.root / "outbox").glob("SEG-*.dcm"))) == 1
    appliance.stop()


def test_the_same_frames_under_other_numbers_make_another_report(tmp_path: Path, tolerant_bundle: Path) -> None:
    reports = set()
    for name, order in (("a", ORDER), ("b", ORDER[::-1]), ("a again", ORDER)):
        study = enhanced_rtstruct_study(order=order)
        study.slices[0].SOPInstanceUID = study.slices[0].file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        for contour in contours_of(study.rois[0]):
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
        folder = study.write(tmp_path / name)
        done = lungstage("stage", folder, "--bundle", tolerant_bundle, "--out", tmp_path / "out", "--json")
        reports.add(json.loads(done.stdout)["sr"])
    assert len(reports) == 2


@pytest.mark.slow
def test_a_contour_made_here_is_answered_for_once_a_person_confirmed_it(appliance: Appliance) -> None:
    """The draft is refused; its confirmation is answered for, and says so first; a correction makes a new report."""
    study = rtstruct_study()

    def put(name: str, dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.save_as(appliance.inbox / f".{name}", enforce_file_format=True)
        (appliance.inbox / f".{name}").rename(appliance.inbox / name)
        return dataset

    for k, slice_ in enumerate(study.slices):
        put(f"ct-{k}", slice_)
    draft = put("draft", contour_seg(study.slices, square_mask(), None))
    appliance.until(lambda: [job["state"] for job in appliance.jobs()] == ["refused"])
    assert appliance.jobs()[0]["reason"]["code"] == "contour_not_confirmed"
    assert not appliance.reports()
    confirmed = put("confirmed", contour_seg(study.slices, square_mask(), "Mustermann^Erika", [region(draft)]))
    appliance.until(lambda: len(appliance.reports()) == 1)
    appliance.until(lambda: appliance.jobs()[-1]["state"] == "delivered")
    (first,) = appliance.reports()
    told = pydicom.dcmread(first)
    assert str(confirmed.SOPInstanceUID) in str(told)
    assert b"drawn semi-automatically and confirmed by a person" in first.read_bytes()
    corrected = square_mask()
    corrected[5, 13, 15:20] = False
    put("corrected", contour_seg(study.slices, corrected, "Doe^John", [region(confirmed)]))
    appliance.until(lambda: len(appliance.reports()) == 2)
    appliance.until(lambda: appliance.jobs()[-1]["state"] == "delivered")
    (second,) = {*appliance.reports()} - {first}
    assert str(told.SOPInstanceUID) in str(pydicom.dcmread(second).PredecessorDocumentsSequence[0])
    shown = json.dumps(appliance.jobs())
    log = appliance.stop()
    kept = b"".join(path.read_bytes() for path in (appliance.root / "state").rglob("*") if path.is_file())
    for name in ("Mustermann", "Erika", "Doe^John"):
        assert name not in shown + log
        assert name.encode() not in kept
