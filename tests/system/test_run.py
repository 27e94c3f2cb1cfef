"""``lungstage run`` as a process, with the real steps and a real patient, as in a hospital."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app, main
from lungstage.appliance.state import chain
from lungstage.appliance.workers import confinement
from lungstage.export.bundle import build
from tests.export.conftest import make_run, without_limits
from tests.support.contours import contour_seg, region
from tests.support.enhanced import ORDER, enhanced_rtstruct_study
from tests.support.seconds import PATIENCE
from tests.support.studies import contours_of, named_study, square_mask

RUN = (sys.executable, "-m", "lungstage.appliance.cli.main")
_OWN_VARIABLES = [k for k in os.environ if k.startswith("LUNGSTAGE_")]
# Without robustness, which has separate tests and takes a third of the time of a report.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("LUNGSTAGE_")} | {
    "OMP_NUM_THREADS": "1", "LUNGSTAGE_PERTURBATIONS": "0",
}  # fmt: skip

BRIEFLY = ("--perturbations", "0", "--format", "sr")
"""The same for ``lungstage stage``, which does not read settings from the environment; also without a page."""


@pytest.fixture(scope="session")
def tolerant_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights without a limit of the distance: there is no training cohort."""
    folder = tmp_path_factory.mktemp("models") / "tolerant"
    build(without_limits(make_run()), folder)
    return folder


@dataclass
class Appliance:
    """A running daemon, with its folders."""

    root: Path
    process: subprocess.Popen[str]
    log: Path | None = None

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    def reports(self) -> list[Path]:
        return sorted((self.root / "outbox").glob("SR-*.dcm"))

    def jobs(self, study: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of ``lungstage jobs --json``, of all studies or of one."""
        return [job for job in jobs_of(self.root / "state") if study in (None, job["study_instance_uid"])]

    def states(self, study: str | None = None) -> list[str]:
        return [job["state"] for job in self.jobs(study)]

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
        return log if self.log is None else self.log.read_text()


def lungstage(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*RUN, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Return the same as :func:`lungstage`, without starting a process."""
    command, out, err = ["lungstage", *map(str, arguments)], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        patch.setitem(sys.modules, "requests", sys.modules.get("requests"))  # the command may forbid this module
        for name in os.environ.keys() | ENVIRONMENT.keys():
            if name.startswith("LUNGSTAGE_"):
                patch.delenv(name, raising=False)
                if name in ENVIRONMENT:
                    patch.setenv(name, ENVIRONMENT[name])
        with pytest.raises(SystemExit) as left:
            main()
    gc.enable()
    return subprocess.CompletedProcess(command, int(left.value.code or 0), out.getvalue(), err.getvalue())


def jobs_of(state: Path) -> list[dict[str, Any]]:
    """Return what ``lungstage jobs --json`` prints, without a process: tests that wait for a job call this often."""
    done = CliRunner().invoke(app, ["jobs", "--state", str(state), "--json"], env=dict.fromkeys(_OWN_VARIABLES))
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@contextlib.contextmanager
def running(root: Path, bundle: Path, *options: object, log: Path | None = None) -> Iterator[Appliance]:
    """Run the daemon until the block ends; its log goes into a file, or into a pipe that the test must read."""
    command = [*RUN, "run", "--create"]
    command += ["--inbox", root / "inbox", "--outbox", root / "outbox", "--state", root / "state"]
    with contextlib.nullcontext(subprocess.PIPE) if log is None else log.open("w") as told:
        process = subprocess.Popen(
            [*map(str, (*command, "--bundle", bundle, *options))],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=told, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "ready\n", log.read_text() if log else process.stderr and process.stderr.read()
        yield Appliance(root, process, log)
    finally:
        process.kill()
        process.communicate()


@dataclass
class Start:
    """The state before the daemon got its first study."""

    health: list[int]
    jobs: list[dict[str, Any]]
    reports: list[Path]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, tolerant_bundle: Path) -> Iterator[tuple[Appliance, Start]]:
    """A daemon that several tests use, each with its own studies; its first canary has passed."""
    root = tmp_path_factory.mktemp("appliance")
    health = [called("health", "--state", root / "state").returncode]
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("FORMATS", "sr"), ("CANARY_SECONDS", "3600"), ("REPORT_AFTER_SECONDS", "3")):
                patch.setitem(ENVIRONMENT, f"LUNGSTAGE_{name}", value)
            one = stack.enter_context(running(root, tolerant_bundle, log=root / "log"))
        one.until(lambda: '"canary": true' in (root / "state" / "heartbeat.json").read_text())
        health.append(called("health", "--state", root / "state").returncode)
        yield one, Start(health, one.jobs(), one.reports())
        one.stop()


@pytest.fixture
def appliance(started: tuple[Appliance, Start]) -> Appliance:
    return started[0]


@pytest.fixture
def patient(shared_data: Path) -> Path:
    return shared_data / "dicom" / "lung1-001-slab"


def promised_seconds() -> float:
    """Return the time from the last needed file to the report: 2 s on a machine with a free core."""
    return 2.0 * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def slices_of(patient: Path) -> list[Path]:
    return sorted((patient / "CT").iterdir(), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))


@pytest.mark.slow
def test_a_study_copied_file_by_file_yields_one_report_in_time_and_its_copy_none(
    appliance: Appliance, patient: Path
) -> None:
    source, before = pydicom.dcmread(patient / "RS.dcm"), set(appliance.reports())
    inbox = appliance.inbox / "patient"
    inbox.mkdir()
    shutil.copy(patient / "RS.dcm", inbox)
    files = slices_of(patient)
    random.Random(1).shuffle(files)
    for number, path in enumerate(files):
        shutil.copy(path, inbox)
        if number == 5:
            (inbox / "junk.txt").write_text("this is not DICOM")
    assert appliance.until(lambda: set(appliance.reports()) - before) < promised_seconds()
    for path in (patient / "RS.dcm", *files):
        shutil.copy(path, inbox / f"copy-{path.name}")
    time.sleep(3)
    (report,) = set(appliance.reports()) - before
    (job,) = appliance.jobs(source.StudyInstanceUID)
    dataset = pydicom.dcmread(report)
    assert (job["state"], job["sr_sop_instance_uid"]) == ("delivered", dataset.SOPInstanceUID)
    assert dataset.Modality == "SR"
    assert {path.name for path in inbox.iterdir()} >= {"RS.dcm", "junk.txt"}
    unreadable = called("jobs", "--files", "--state", appliance.root / "state", "--json").stdout
    assert [row["reason"]["code"] for row in json.loads(unreadable)] == ["dicom_unreadable"]
    assert "junk" not in unreadable
    paths = called("jobs", "--files", "--paths", "--state", appliance.root / "state").stdout
    assert paths.startswith(str(inbox / "junk.txt"))

    assert appliance.log is not None
    log = appliance.log.read_text()
    assert dataset.SOPInstanceUID in log
    # The log and the ledger contain no data of the patient and no file name.
    told = log + json.dumps(job)
    for secret in (str(source.PatientName), source.PatientID, "junk.txt", slices_of(patient)[0].name):
        assert len(secret) < 3 or not re.search(rf"\b{re.escape(secret)}\b", told)


@pytest.mark.slow
def test_a_middle_slice_left_out_is_held_until_it_arrives(appliance: Appliance) -> None:
    study, before = named_study("late"), set(appliance.reports())
    uid, late = study.slices[0].StudyInstanceUID, study.slices.pop(5)
    folder = study.write(appliance.inbox / "late")
    appliance.until(lambda: appliance.states(uid) == ["held"])
    (job,) = appliance.jobs(uid)
    assert job["reason"]["code"] == "slices_missing"
    assert set(appliance.reports()) == before
    late.save_as(folder / "late", enforce_file_format=True)
    assert appliance.until(lambda: set(appliance.reports()) - before) < promised_seconds()
    appliance.until(lambda: appliance.states(uid) == ["delivered"])


def test_a_real_canary_comes_through_and_the_daemon_is_well(started: tuple[Appliance, Start]) -> None:
    _, start = started
    assert start.health == [4, 0]
    assert (start.jobs, start.reports) == ([], [])


@pytest.mark.slow
def test_a_second_daemon_on_the_same_state_is_turned_away(appliance: Appliance, tolerant_bundle: Path) -> None:
    root = appliance.root
    done = lungstage(
        "run", "--inbox", root / "inbox", "--outbox", root / "o", "--state", root / "state", "--bundle", tolerant_bundle
    )
    assert done.returncode == 4
    assert done.stderr.startswith("lungstage: Another daemon is running on the state folder ")
    assert done.stdout == ""
    assert appliance.process.poll() is None


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
    """Copy a file into a folder in two pieces, as over a network."""
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

    appliance.until(are_confined)  # also processes that have just been started
    assert appliance.log is not None
    if confinement._syscall(444, None, 0, 1) < 1:
        pytest.skip("this kernel has no Landlock, or the container forbids it")
    assert "not_confined" not in appliance.log.read_text()


@pytest.mark.slow
def test_a_bundle_is_exchanged_while_studies_come(
    tmp_path: Path, tolerant_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-copied new bundle is refused; the complete one is used."""
    monkeypatch.setitem(ENVIRONMENT, "LUNGSTAGE_FORMATS", "sr")
    build(without_limits(make_run(1)), tmp_path / "models" / "next")
    new, bundle = tmp_path / "models" / "next", Path(shutil.copytree(tolerant_bundle, tmp_path / "bundle"))
    digests = {hashlib.sha256((each / "manifest.json").read_bytes()).hexdigest(): each for each in (bundle, new)}
    old_digest, new_digest = digests
    with running(tmp_path, bundle, log=tmp_path / "log") as appliance:

        def told() -> list[str]:
            return re.findall(r"event=(bundle_\w+)", (tmp_path / "log").read_text())

        def answered_by(study: str) -> str:
            """Send a study, and return the bundle digest in its report."""
            before = set(appliance.reports())
            named_study(study).write(appliance.inbox / study)
            appliance.until(lambda: set(appliance.reports()) - before)
            (report,) = set(appliance.reports()) - before
            return str(pydicom.dcmread(report).DeviceSerialNumber)

        assert answered_by("first") == old_digest
        daemon = psutil.Process(appliance.process.pid)
        former = daemon.children()
        put_file(new / "model.onnx", bundle)
        assert told() == []
        assert answered_by("second") == old_digest
        appliance.until(lambda: told() == ["bundle_refused"])
        assert answered_by("third") == old_digest
        for name in ("MODEL_CARD.md", "extraction.yaml", "manifest.json"):
            assert told() == ["bundle_refused"]
            put_file(new / name, bundle)
        assert answered_by("fourth") in digests  # the old bundle answers until the new one is verified
        appliance.until(lambda: told() == ["bundle_refused", "bundle_taken"])
        assert answered_by("fifth") == new_digest
        assert not [process for process in former if process.is_running()]
        appliance.until(lambda: appliance.states() == ["delivered"] * 5)  # no study has two jobs
        jobs, children = appliance.jobs(), daemon.children()
        log = appliance.stop()
    audited = [entry.event for entry in chain.entries(tmp_path / "state") if entry.event.startswith("bundle_")]
    assert audited == ["bundle_refused", "bundle_taken"]
    assert [job["bundle_digest"] for job in jobs if job["id"] != 4] == [*[old_digest] * 3, new_digest]
    refused, taken = (line for line in log.splitlines() if "event=bundle_" in line)
    assert f"code=bundle_hash_mismatch kept={old_digest}" in refused
    assert f"bundle={new_digest} former={old_digest}" in taken
    assert "Traceback" not in log
    assert not [process for process in children if process.is_running()]
    assert not list((tmp_path / "state" / "scratch").glob("*"))


def test_where_a_key_is_trusted_every_command_asks_for_its_signature(tmp_path: Path, tolerant_bundle: Path) -> None:
    from lungstage.export import signing

    bundle = Path(shutil.copytree(tolerant_bundle, tmp_path / "bundle"))
    for name in ("vendor", "other"):
        signing.generate(tmp_path / name, None)
    study = named_study("study").write(tmp_path / "study")
    staging = ("stage", study, "--bundle", bundle, "--out", tmp_path / "out", "--json", *BRIEFLY)
    serving = ("run", "--create", "--inbox", tmp_path / "i", "--outbox", tmp_path / "o", "--bundle", bundle)
    trusted = ("--trusted-key", tmp_path / "vendor.pub")

    def codes(*others: subprocess.CompletedProcess[str]) -> list[str]:
        staged, verified = (called(*command, *trusted) for command in (staging, ("verify", bundle)))
        assert [done.returncode for done in (staged, verified, *others)] == [3] * (2 + len(others))
        found = [re.findall(r"\[(\w+)\]", done.stderr)[-1] for done in (verified, *others)]
        return [json.loads(staged.stdout)["reason"]["code"], *found]

    assert codes(lungstage(*serving, *trusted)) == ["bundle_unsigned"] * 3
    signing.sign(bundle, signing.read_private_key(tmp_path / "other.key", str))
    assert codes() == ["bundle_signature_invalid"] * 2
    assert called(*staging).returncode == 0  # without a trusted key no signature is needed
    signing.sign(bundle, signing.read_private_key(tmp_path / "vendor.key", str))
    assert json.loads(called(*staging, *trusted).stdout)["status"] == "staged"
    assert "signed by the trusted key vendor.pub" in called("verify", bundle, *trusted).stdout
    for key in ("nowhere", "vendor.key", "bundle/model.onnx"):
        commands = [partial(called, *staging), partial(called, "verify", bundle)]
        if key == "vendor.key":
            commands.append(partial(lungstage, *serving))
        for command in commands:
            done = command("--trusted-key", tmp_path / key)
            assert (done.returncode, done.stdout) == (2, "")
            assert str(tmp_path / key) in done.stderr
            assert "Traceback" not in done.stderr


def test_usage_is_told_from_data(tmp_path: Path) -> None:
    assert lungstage("run", "--colour").returncode == 2
    bare = called("run")
    assert (bare.returncode, bare.stdout) == (2, "")
    assert bare.stderr.startswith("lungstage: Give --inbox, --outbox and --bundle, or a settings file with --config. ")
    missing = called("run", "--inbox", tmp_path / "i")
    assert missing.returncode == 2
    assert "'outbox' is missing" in missing.stderr
    assert called("requeue", "x").returncode == 2
    assert called("jobs", "--state", tmp_path).returncode == 4
    assert called("jobs").returncode == 2
    assert lungstage("--version").returncode == 0


@pytest.mark.parametrize("command", ["run", "jobs", "requeue", "show", "replay", "audit"])
def test_every_command_has_help(command: str) -> None:
    done = called(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 200


def test_the_help_of_run_has_groups() -> None:
    shown = called("run", "--help").stdout
    assert [title for title in ("Options", "Folders and settings", "Advanced") if f"─ {title} ─" not in shown] == []


def test_jobs_is_readable_for_people_too(tmp_path: Path) -> None:
    from lungstage.appliance.contract.errors import Reason, ReasonCode
    from lungstage.appliance.state.database import Database
    from lungstage.appliance.state.ledger import Ledger

    with Database(tmp_path / "ledger.sqlite") as database:
        ledger = Ledger(database)
        job = ledger.open_job("1.5", "1.2.3", "1.5", "1.5.1")
        ledger.refuse(job.id, Reason(ReasonCode.ROI_NOT_FOUND, "ROIs: [bold]GTV[/bold]-1\x1b[2J."), content="c")
    done = called("jobs", "--state", tmp_path)
    assert done.returncode == 0
    shown = re.sub(r"[\s│]", "", done.stdout)
    assert "[bold]GTV[/bold]-1" in shown
    assert "\x1b[2J" not in shown
    again = called("requeue", job.id, "--state", tmp_path)
    assert again.returncode == 0
    assert called("requeue", job.id, "--state", tmp_path).returncode == 2


@pytest.mark.slow
def test_an_enhanced_ct_yields_one_report_on_its_frames(appliance: Appliance) -> None:
    """One file contains all slices; the structure set arrives first and waits for it."""
    study, before = enhanced_rtstruct_study(single=named_study("enhanced")), set(appliance.reports())
    whole, roi = study.slices[0], study.rois[0]
    uid, inbox = whole.StudyInstanceUID, appliance.inbox / "enhanced"
    inbox.mkdir()
    segments = set((appliance.root / "outbox").glob("SEG-*.dcm"))
    roi.save_as(inbox / "roi", enforce_file_format=True)
    appliance.until(lambda: appliance.states(uid) == ["held"])
    assert appliance.jobs(uid)[0]["reason"]["code"] == "ct_missing"
    whole.save_as(inbox / "enhanced", enforce_file_format=True)
    appliance.until(lambda: appliance.states(uid) == ["delivered"])
    shutil.copy(inbox / "enhanced", inbox / "copy")
    time.sleep(2)
    (report,) = set(appliance.reports()) - before
    assert str(whole.SOPInstanceUID) in str(pydicom.dcmread(report).CurrentRequestedProcedureEvidenceSequence)
    assert len(set((appliance.root / "outbox").glob("SEG-*.dcm")) - segments) == 1


def test_the_same_frames_under_other_numbers_make_another_report(tmp_path: Path, tolerant_bundle: Path) -> None:
    reports = set()
    for name, order in (("a", ORDER), ("b", ORDER[::-1]), ("a again", ORDER)):
        study = enhanced_rtstruct_study(order=order)
        study.slices[0].SOPInstanceUID = study.slices[0].file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        for contour in contours_of(study.rois[0]):
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
        folder = study.write(tmp_path / name)
        done = called("stage", folder, "--bundle", tolerant_bundle, "--out", tmp_path / "out", "--json", *BRIEFLY)
        reports.add(json.loads(done.stdout)["sr"])
    assert len(reports) == 2


@pytest.mark.slow
def test_a_contour_made_here_is_answered_for_once_a_person_confirmed_it(appliance: Appliance) -> None:
    """The draft is refused; the confirmed contour gives a report; a correction gives a new report."""
    study, before = named_study("drawn"), set(appliance.reports())
    uid, inbox = study.slices[0].StudyInstanceUID, appliance.inbox / "drawn"
    inbox.mkdir()

    def reports() -> set[Path]:
        return set(appliance.reports()) - before

    def put(name: str, dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.save_as(inbox / f".{name}", enforce_file_format=True)
        (inbox / f".{name}").rename(inbox / name)
        return dataset

    for k, slice_ in enumerate(study.slices):
        put(f"ct-{k}", slice_)
    draft = put("draft", contour_seg(study.slices, square_mask(), None))
    appliance.until(lambda: appliance.states(uid) == ["refused"])
    assert appliance.jobs(uid)[0]["reason"]["code"] == "contour_not_confirmed"
    assert not reports()
    confirmed = put("confirmed", contour_seg(study.slices, square_mask(), "Mustermann^Erika", [region(draft)]))
    appliance.until(lambda: len(reports()) == 1)
    appliance.until(lambda: appliance.states(uid)[-1] == "delivered")
    (first,) = reports()
    told = pydicom.dcmread(first)
    assert str(confirmed.SOPInstanceUID) in str(told)
    assert b"drawn semi-automatically and confirmed by a person" in first.read_bytes()
    corrected = square_mask()
    corrected[5, 13, 15:20] = False
    put("corrected", contour_seg(study.slices, corrected, "Doe^John", [region(confirmed)]))
    appliance.until(lambda: len(reports()) == 2)
    appliance.until(lambda: appliance.states(uid)[-1] == "delivered")
    (second,) = reports() - {first}
    assert str(told.SOPInstanceUID) in str(pydicom.dcmread(second).PredecessorDocumentsSequence[0])
    assert appliance.log is not None
    shown, log = json.dumps(appliance.jobs(uid)), appliance.log.read_text()
    kept = b"".join(path.read_bytes() for path in (appliance.root / "state").rglob("*") if path.is_file())
    for name in ("Mustermann", "Erika", "Doe^John"):
        assert name not in shown + log
        assert name.encode() not in kept
