"""``lungstage doctor``: each check recognises a sound machine and a broken one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.config import disks
from lungstage.appliance.config.settings import Settings, load_settings
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.daemon.folder_guard import FolderGuard
from lungstage.appliance.daemon.start import sole_daemon
from lungstage.appliance.doctor import daemon, examination, folders, host, machine, software
from lungstage.appliance.doctor.finding import Finding, Verdict
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.database import SCHEMA_VERSION, Database, damaged
from lungstage.appliance.state.heartbeat import Heartbeat
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.workers import confinement

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM
Check = Callable[[Settings], Iterator[Finding]]
NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with inbox, outbox and state; other users may enter it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for inner in ("inbox", "outbox", "state"):
            (folder / inner).mkdir(mode=0o755)
        (folder / "state").chmod(0o700)
        yield folder


@pytest.fixture
def settings(place: Path, shipped_bundle: Path) -> Settings:
    return made(place, bundle=shipped_bundle)


def made(place: Path, **others: Any) -> Settings:
    paths = {"inbox": place / "inbox", "outbox": place / "outbox", "state": place / "state", "bundle": place}
    return load_settings(None, {**paths, **others}, {})


def found(check: Check, settings: Settings) -> list[tuple[Verdict, str]]:
    findings = list(check(settings))
    for finding in findings:
        assert (finding.remedy is None) == (finding.verdict is OK), "only a problem or warning has a remedy"
        assert "\n" not in finding.sentence + str(finding.remedy)
    return [(finding.verdict, finding.sentence) for finding in findings]


def verdicts(check: Check, settings: Settings) -> list[Verdict]:
    return [verdict for verdict, _ in found(check, settings)]


def as_nobody(check: Check, settings: Settings) -> list[Verdict]:
    """Make a check as a user without rights, in a separate process."""
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        told = b"[]"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            told = json.dumps(verdicts(check, settings)).encode()
        finally:
            os.write(writer, told)
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        return [Verdict(verdict) for verdict in json.loads(answers.read())]


# Folders


def test_folders_as_they_should_be(settings: Settings) -> None:
    for check in (folders.inbox, folders.outbox, folders.state):
        assert verdicts(check, settings) == [OK]
    assert not list(settings.outbox.iterdir()), "the test file is removed"


@pytest.mark.parametrize("name", ["inbox", "outbox", "state"])
def test_a_folder_that_is_a_file(settings: Settings, name: str) -> None:
    folder: Path = getattr(settings, name)
    folder.rmdir()
    folder.touch()
    assert verdicts(getattr(folders, name), settings) == [PROBLEM]


@pytest.mark.parametrize(("name", "verdict"), [("inbox", PROBLEM), ("outbox", WARNING), ("state", OK)])
def test_a_folder_that_is_still_to_be_made(settings: Settings, name: str, verdict: Verdict) -> None:
    getattr(settings, name).rmdir()
    assert verdicts(getattr(folders, name), settings) == [verdict]
    assert as_nobody(getattr(folders, name), settings) == [PROBLEM]


def test_permissions_are_those_of_the_user_who_asks(settings: Settings) -> None:
    assert as_nobody(folders.inbox, settings) == [OK]
    assert as_nobody(folders.outbox, settings) == [PROBLEM]
    assert as_nobody(folders.state, settings) == [PROBLEM]
    for name, modes in (("inbox", (0o711, 0o744)), ("outbox", (0o755, 0o766, 0o773)), ("state", (0o755, 0o773))):
        for mode in modes:  # each permission is needed
            getattr(settings, name).chmod(mode)
            assert as_nobody(getattr(folders, name), settings)[0] is PROBLEM, (name, oct(mode))
    settings.outbox.chmod(0o777)
    assert as_nobody(folders.outbox, settings) == [OK]
    assert as_nobody(folders.user, settings) == [OK]
    if os.geteuid() == 0:
        assert verdicts(folders.user, settings) == [WARNING]


@pytest.mark.parametrize("name", ["inbox", "outbox"])
def test_a_folder_whose_share_is_not_mounted(settings: Settings, name: str) -> None:
    folder, check = getattr(settings, name), getattr(folders, name)
    FolderGuard(name, folder, settings.state, strict=True).prove()
    assert verdicts(check, settings) == [OK], "the folder is the one that the daemon saw"
    memory = settings.state / f"{name}-place.json"
    known = json.loads(memory.read_text())
    known["place"] |= {"kind": "nfs4", "source": "pacs:/export", "inside": "/"}
    memory.write_text(json.dumps(known))
    ((verdict, sentence),) = found(check, settings)
    assert (verdict, "was mounted (nfs4)" in sentence) == (PROBLEM, True)


def test_a_closed_folder_in_the_inbox(settings: Settings) -> None:
    (settings.inbox / "study").mkdir(mode=0o700)
    assert as_nobody(folders.inbox, settings) == [WARNING]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("name", ["outbox", "state"])
def test_a_disk_that_takes_nothing(settings: Settings, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disks.os, "fsync", fail)
    ((verdict, sentence),) = found(getattr(folders, name), settings)
    assert verdict is PROBLEM
    assert os.strerror(number) in sentence
    assert not list(getattr(settings, name).iterdir())


@pytest.mark.parametrize("mode", [0o750, 0o710, 0o701, 0o702])
def test_a_state_folder_that_others_may_use(settings: Settings, mode: int) -> None:
    settings.state.chmod(mode)
    assert verdicts(folders.state, settings) == [OK, WARNING]


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("ext4", OK), ("overlay", OK), ("nfs4", PROBLEM), ("cifs", PROBLEM), ("fuse.sshfs", PROBLEM)],
)
def test_a_ledger_belongs_on_a_local_disk(
    settings: Settings, kind: str, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "file_system", lambda _: kind)
    assert verdicts(folders.state, settings) == [verdict]
    assert verdicts(folders.outbox, settings) == [OK], "reports may lie on a share"


def test_space(place: Path, shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(place).free // 1024**2
    assert verdicts(folders.space, made(place, min_free_mb=0)) == [OK, OK]
    assert verdicts(folders.space, made(place, min_free_mb=2 * free)) == [PROBLEM, PROBLEM]


@pytest.mark.parametrize(
    ("kib", "files", "verdict"),
    [
        (500 * 1024, 1000, OK),
        (500 * 1024 - 1, 1000, PROBLEM),
        (500 * 1024, 999, PROBLEM),
        (10**9, 3, PROBLEM),
        (500 * 1024, None, OK),  # file systems that report no number of inodes
    ],
)
def test_space_to_the_last_megabyte_and_file(
    place: Path, kib: int, files: int | None, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(f_bavail=kib, f_frsize=1024, f_files=10**6 if files else 0, f_favail=files or 0)
    monkeypatch.setattr(folders.os, "statvfs", lambda _: disk)
    assert verdicts(folders.space, made(place, min_free_mb=500)) == [verdict, verdict]


# Software


def test_a_bundle_that_proves_itself_and_one_that_does_not(settings: Settings, place: Path) -> None:
    assert verdicts(software.bundle, settings) == [OK]
    copy = shutil.copytree(settings.bundle, place / "bundle")
    with (copy / "model.onnx").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    ((verdict, sentence),) = found(software.bundle, made(place, bundle=copy))
    assert verdict is PROBLEM
    assert "[bundle_hash_mismatch]" in sentence
    ((verdict, sentence),) = found(software.bundle, made(place, bundle=place / "absent"))
    assert verdict is PROBLEM
    assert "[bundle_unreadable]" in sentence
    ((verdict, sentence),) = found(software.bundle, made(place, bundle=settings.bundle, trusted_keys=[place / "key"]))
    assert (verdict, str(place / "key") in sentence) == (PROBLEM, True)


def test_a_table_of_covariates(place: Path) -> None:
    assert verdicts(software.covariates, made(place)) == []
    table = place / "covariates.csv"
    assert verdicts(software.covariates, made(place, covariates=table)) == [PROBLEM]
    table.write_text("study_instance_uid,age\n1.2,63\n")
    assert verdicts(software.covariates, made(place, covariates=table)) == [OK]


def test_decoders(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    available = dict.fromkeys(software._COMPRESSED.values(), True)
    monkeypatch.setattr(software, "get_decoder", lambda uid: SimpleNamespace(is_available=available[uid]))
    assert verdicts(software.decoders, settings) == [OK]
    available[software._COMPRESSED["JPEG-LS"]] = False
    ((verdict, sentence),) = found(software.decoders, settings)
    assert (verdict, "JPEG-LS:" in sentence, "RLE" in sentence) == (WARNING, True, False)


# The machine


@pytest.mark.parametrize(
    ("kind", "watch", "verdict", "told"),
    [
        ("ext4", "auto", OK, True), ("ext4", "poll", OK, False), ("nfs", "auto", OK, False), ("nfs", "poll", OK, False),
        ("cifs", "events", WARNING, False), ("ext4", "events", OK, True), ("", "auto", OK, True),
    ],
)  # fmt: skip
def test_watcher(
    place: Path, kind: str, watch: str, verdict: Verdict, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "file_system", lambda _: kind)
    ((answer, sentence),) = found(host.watcher, made(place, watch=watch))
    assert (answer, "give an event," in sentence, "every 1 s" in sentence) == (verdict, told, True)


def test_confinement(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if confinement._syscall(444, None, 0, 1) < 1:
        pytest.skip("this kernel has no Landlock, or the container forbids it")
    assert verdicts(host.confinement, settings) == [OK]
    gap = "seccomp is not in force: a worker may open sockets and start processes."
    other = tmp_path / "python"
    other.write_text(f"#!/bin/sh\necho '{gap}'")
    other.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(other))
    assert found(host.confinement, settings) == [(WARNING, gap)]
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert found(host.confinement, settings) == [(WARNING, "No process could be confined.")]


def test_the_least_limit_of_memory_counts(tmp_path: Path) -> None:
    inner = tmp_path / "root" / "system.slice" / "lungstage.service"
    inner.mkdir(parents=True)
    groups = tmp_path / "cgroup"
    groups.write_text("4:memory:/v1\n0::/system.slice/lungstage.service\n")
    machine_has = machine.memory_limit(tmp_path / "absent")
    assert machine_has == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (inner / "memory.max").write_text("max\n")
    assert machine.memory_limit(groups, tmp_path / "root") == machine_has
    (inner.parent / "memory.max").write_text("2147483648\n")
    assert machine.memory_limit(groups, tmp_path / "root") == 2 * 1024**3
    (inner / "memory.max").write_text("1073741824\n")
    assert machine.memory_limit(groups, tmp_path / "root") == 1024**3
    groups.write_text("0::/\n")
    (tmp_path / "root" / "memory.max").write_text("536870912\n")  # as a container sees its own limit
    assert machine.memory_limit(groups, tmp_path / "root") == 512 * 1024**2


@pytest.mark.parametrize(
    ("workers", "megabytes", "verdict"), [
        (2, 1024, OK), (2, 1280, OK), (2, 1281, WARNING), (2, 1300, WARNING), (3, 1024, WARNING),
        (6, 640, WARNING), (7, 512, PROBLEM),
    ],
)  # fmt: skip
def test_memory(place: Path, workers: int, megabytes: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda: 4 * 1024**3)
    (finding,) = host.memory(made(place, workers=workers, work_memory_mb=megabytes))
    assert finding.verdict is verdict
    for word, name in (("work_memory_mb to ", "work_memory_mb"), ("workers to ", "workers")):
        if word in str(finding.remedy):  # the proposed value solves the problem
            proposed = int(str(finding.remedy).split(word)[1].split()[0].rstrip(","))
            better = {"workers": workers, "work_memory_mb": megabytes, name: proposed}
            assert verdicts(host.memory, made(place, **better)) == [OK]


@pytest.mark.parametrize(("megabytes", "verdict"), [(256 + 4 * 512, WARNING), (256 + 4 * 512 - 1, PROBLEM)])
def test_memory_that_is_just_enough_for_the_processes(
    place: Path, megabytes: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda: megabytes * 1024**2)
    assert verdicts(host.memory, made(place, workers=3, work_memory_mb=2048)) == [verdict]


@pytest.fixture
def good_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "clock_is_synchronised", lambda: True)
    monkeypatch.setattr(machine, "time_zone_is_known", lambda _: True)
    monkeypatch.setattr(host, "_MEASURED_SECONDS", 0.01)


@pytest.mark.usefixtures("good_clock")
class TestClock:
    def test_a_good_one(self, settings: Settings) -> None:
        assert verdicts(host.clock, settings) == [OK]

    @pytest.mark.parametrize("year", [1970, 2025, 2100, 2107])
    def test_a_year_that_cannot_be(self, settings: Settings, year: int, monkeypatch: pytest.MonkeyPatch) -> None:
        class Then(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime(year, 1, 1, tzinfo=tz)

        monkeypatch.setattr(host, "datetime", Then)
        assert verdicts(host.clock, settings) == [PROBLEM, OK]

    @pytest.mark.parametrize("year", [2026, 2099])
    def test_a_year_that_may_be(self, settings: Settings, year: int, monkeypatch: pytest.MonkeyPatch) -> None:
        then = SimpleNamespace(now=lambda tz: datetime(year, 1, 1, tzinfo=tz))
        monkeypatch.setattr(host, "datetime", then)
        assert verdicts(host.clock, settings) == [OK]

    @pytest.mark.parametrize(
        ("jump", "expected"), [(7, [WARNING, OK]), (-7, [WARNING, OK]), (0.07, [WARNING, OK]), (0.04, [OK])]
    )
    def test_a_time_of_day_that_jumps(
        self, settings: Settings, jump: float, expected: list[Verdict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wall, monotonic = iter([1000.0, 1000.2 + jump]), iter([5.0, 5.2])
        clocks = SimpleNamespace(time=lambda: next(wall), monotonic=lambda: next(monotonic), sleep=lambda _: None)
        monkeypatch.setattr(host, "time", clocks)
        assert verdicts(host.clock, settings) == expected

    @pytest.mark.parametrize(("kept", "verdict"), [(True, OK), (None, OK), (False, WARNING)])
    def test_a_time_service(
        self, settings: Settings, kept: bool | None, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "clock_is_synchronised", lambda: kept)
        assert verdicts(host.clock, settings) == [verdict]

    def test_an_unknown_zone(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "time_zone_is_known", lambda zone: zone != "Europe/Nowhere")
        monkeypatch.setenv("TZ", "Europe/Nowhere")
        assert verdicts(host.clock, settings) == [WARNING, OK]


@pytest.mark.parametrize(
    ("zone", "known"),
    [
        (None, True), ("", True), ("Europe/Berlin", True), (":Europe/Berlin", True), ("CET-1CEST", True),
        ("<+03>-3", True), ("Europe/Atlantis", False), ("Berlin", False), ("../zones", False),
    ],
)  # fmt: skip
def test_time_zones(tmp_path: Path, zone: str | None, known: bool) -> None:
    (tmp_path / "zones" / "Europe").mkdir(parents=True)
    for file in (tmp_path / "zones" / "Europe" / "Berlin", tmp_path / "localtime"):
        file.touch()
    assert machine.time_zone_is_known(zone, tmp_path / "localtime", tmp_path / "zones") is known
    assert machine.time_zone_is_known(None, tmp_path / "absent") is False


def test_the_kernel_says_something_of_its_clock() -> None:
    assert machine.clock_is_synchronised() in (True, False, None)
    if shutil.which("adjtimex"):  # this tool reads the same structure of the kernel
        status = int(os.popen("adjtimex -p").read().split("status:")[1].split()[0])
        assert machine.clock_is_synchronised() is not bool(status & 0x40)


# A running daemon


def test_a_daemon_at_work_and_none(settings: Settings) -> None:
    assert verdicts(daemon.daemon, settings) == [WARNING]
    with sole_daemon(settings.state):
        assert verdicts(daemon.daemon, settings) == [PROBLEM], "it has no heartbeat"
        assert as_nobody(daemon.daemon, settings) == [WARNING]
    assert verdicts(daemon.daemon, settings) == [WARNING]
    with sole_daemon(settings.state):  # the check does not keep a daemon from starting
        pass


@pytest.mark.parametrize(
    ("seconds", "fields", "verdict", "words"),
    [
        (1, {}, OK, "with file events: 12 files"),
        (170, {"watch": "poll"}, OK, "with polling: 12 files"),
        (190, {}, PROBLEM, "190 s old"),
        (1, {"overdue": 2}, PROBLEM, "longer than lease_seconds: 2."),
        (1, {"canary": False}, PROBLEM, "canary"),
        (1, {"outbox_replaced": True}, PROBLEM, "delivers nothing"),
        (1, {"canary": True}, OK, "1 studies being processed"),
    ],
)
def test_a_daemon_is_as_well_as_its_heartbeat(
    settings: Settings, seconds: float, fields: dict[str, Any], verdict: Verdict, words: str
) -> None:
    at = datetime.now(UTC) - timedelta(seconds=seconds)
    beat = Heartbeat(at, 180.0, "1", "b" * 64, watch="events", files=12, in_hand=1, overdue=0, canary=None)
    heartbeat.write(settings.state, replace(beat, **fields))
    assert verdicts(daemon.daemon, settings) == [WARNING], "the daemon ended without deleting its heartbeat"
    with sole_daemon(settings.state):
        ((told, sentence),) = found(daemon.daemon, settings)
    assert told is verdict
    assert words in sentence


def test_ledgers(settings: Settings) -> None:
    path = settings.state / "ledger.sqlite"
    assert verdicts(daemon.ledger, settings) == [OK]
    with Database(path) as database:
        ago = datetime.now(UTC) - timedelta(hours=2)
        jobs = Ledger(database, now=lambda: ago)
        job = jobs.open_job("1", "1.2", None, "1")
        assert verdicts(daemon.ledger, settings) == [WARNING]
        jobs.refuse(job.id, Reason(ReasonCode.ROI_EMPTY, "It is empty."), content="c")
        assert found(daemon.ledger, settings) == [(OK, "Jobs: 1; none waits for too long.")]
        ago = datetime.now(UTC) + timedelta(seconds=50)  # two clocks may differ by this much
        jobs.open_job("2", "1.2", None, "1")
        assert verdicts(daemon.ledger, settings) == [OK]
        ago = datetime.now(UTC) + timedelta(seconds=70)
        jobs.open_job("3", "1.2", None, "1")
        ((verdict, sentence),) = found(daemon.ledger, settings)
        assert (verdict, "in the future" in sentence) == (PROBLEM, True)


@pytest.mark.parametrize(("offset", "verdict"), [(-1, OK), (1, PROBLEM)])
def test_a_ledger_of_another_release_is_told_and_not_migrated(
    settings: Settings, offset: int, verdict: Verdict
) -> None:
    path = settings.state / "ledger.sqlite"
    with Database(path) as database:
        if offset < 0:  # without the column that the last migration added
            database.query("ALTER TABLE reports DROP COLUMN beyond")
        database.query(f"PRAGMA user_version = {SCHEMA_VERSION + offset}")
    assert verdicts(daemon.ledger, settings) == [verdict]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + offset,)


def test_a_damaged_ledger(settings: Settings) -> None:
    path = settings.state / "ledger.sqlite"
    path.write_bytes(b"this is no ledger at all" * 400)
    ((verdict, sentence),) = found(daemon.ledger, settings)
    assert (verdict, sentence) == (PROBLEM, str(damaged(path)))
    path.unlink()
    with Database(path) as database:
        ((page, size),) = database.query(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'files'"
        )
    assert verdicts(daemon.ledger, settings) == [OK]
    with path.open("r+b") as file:  # damage a page that is not read when jobs are listed
        file.seek((page - 1) * size)
        file.write(bytes(size))
    ((verdict, sentence),) = found(daemon.ledger, settings)
    assert (verdict, "damaged" in sentence) == (PROBLEM, True)


def test_a_port_for_metrics(place: Path) -> None:
    assert verdicts(daemon.metrics, made(place)) == []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = made(place, metrics_port=other.getsockname()[1])
        assert verdicts(daemon.metrics, settings) == [PROBLEM]
        with sole_daemon(settings.state):  # the port belongs to the daemon itself
            assert verdicts(daemon.metrics, settings) == []
    assert verdicts(daemon.metrics, settings) == [OK]


# All checks together


def test_settings_that_cannot_be_used_are_the_one_finding(place: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--inbox", str(place), "--outbox", str(place / "in"), "--json"])
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert told["verdict"] == "problem"
    (only,) = told["findings"]
    assert only["check"] == "settings"
    assert "'bundle' is missing" in only["sentence"]
    nested = examination.examine(None, {"inbox": place, "outbox": place / "in", "bundle": place})
    assert ["must not lie in" in one.sentence for one in nested] == [True]


def test_a_check_that_cannot_be_made_does_not_stop_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    (settings.inbox / "x").mkdir()
    given = {name: getattr(settings, name) for name in ("inbox", "outbox", "state", "bundle")}
    with monkeypatch.context() as patched:  # undo the patch before the folders are removed
        patched.setattr(folders.os, "scandir", fail)
        findings = {one.check: one for one in examination.examine(None, given)}
    assert findings["inbox"].verdict is PROBLEM
    assert "Stale file handle" in findings["inbox"].sentence
    assert findings["bundle"].verdict is OK


def test_as_a_command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_MEASURED_SECONDS", 0.01)
    arguments = [f"--{name}={getattr(settings, name)}" for name in ("inbox", "outbox", "state", "bundle")]
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 0, result.stdout
    lines = result.stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    checks = [line.split()[1] for line in lines]
    assert list(dict.fromkeys(checks)) == [
        "settings", "user", "inbox", "outbox", "state", "space", "bundle", "decoders", "fonts", "watcher", "clock",
        "memory", "confinement", "daemon", "ledger",
    ]  # fmt: skip
    again = json.loads(CliRunner().invoke(app, ["doctor", *arguments, "--json"]).stdout)
    assert [one["check"] for one in again["findings"]] == checks
    assert set(again["findings"][0]) == {"check", "verdict", "sentence", "remedy"}
    assert sorted(path.name for path in settings.state.iterdir()) == [], "it leaves nothing behind"
