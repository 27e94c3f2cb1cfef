"""A backup is made while the daemon works; after a restore nothing is lost and nothing is done twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.state.backup import BackupError, back_up
from lungstage.appliance.state.database import SCHEMA_VERSION, Database
from lungstage.appliance.state.jobs import Jobs
from lungstage.appliance.state.ledger import Ledger
from tests.conftest import ROOT
from tests.support.studies import named_study
from tests.system.test_run import called, lungstage, running, tolerant_bundle

__all__ = ["tolerant_bundle"]


def restore(archive: Path, state: Path) -> None:
    """Restore with tar and checksums, as in docs/maintenance.md."""
    state.mkdir(mode=0o700)
    subprocess.run(["tar", "-xf", archive, "-C", state], check=True)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=state, check=True)


def contents(outbox: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in outbox.iterdir()}


def correct(folder: Path) -> None:
    """Add a later structure set with changed contours in the same series; the older one stays."""
    first = pydicom.dcmread(folder / "0000")
    later = pydicom.dcmread(folder / "0000")
    first.StructureSetDate, first.StructureSetTime = "20260101", "120000"
    later.StructureSetDate, later.StructureSetTime = "20260102", "120000"
    later.SOPInstanceUID = later.file_meta.MediaStorageSOPInstanceUID = f"{first.SOPInstanceUID[:60]}.2"
    for item in later.ROIContourSequence[0].ContourSequence:
        item.ContourData = [float(value) + (2.5 if k % 3 == 0 else 0.0) for k, value in enumerate(item.ContourData)]
    first.save_as(folder / "0000")
    later.save_as(folder / "later")


@dataclass(frozen=True)
class Site:
    """The folders of a daemon that was killed after its work, and a backup from the middle of the work."""

    root: Path
    kept: Path
    jobs: list[dict[str, Any]]
    before: dict[str, str]

    @property
    def archive(self) -> Path:
        return self.kept / "backup.tar"

    @property
    def state(self) -> Path:
        return self.root / "state"


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, tolerant_bundle: Path) -> Site:
    """Three studies, the second with a later structure set, and a file that is not DICOM."""
    root, kept = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("kept")
    with running(root, tolerant_bundle) as first:
        (first.inbox / "junk").write_text("x")
        for name in ("a", "b"):
            named_study(name).write(first.inbox / name)
        first.until(lambda: first.states() == ["delivered"] * 2)
        named_study("c").write(first.inbox / "c")
        done = lungstage("backup", "--state", root / "state", "--to", kept / "backup.tar")
        assert done.returncode == 0, done.stderr
        correct(first.inbox / "b")
        first.until(lambda: first.states() == ["delivered"] * 4)
        jobs = first.jobs()
        first.process.kill()
    before = contents(root / "outbox")
    assert sorted(name.split("-")[0] for name in before) == ["PDF"] * 4 + ["SEG"] * 4 + ["SR"] * 4
    for name in ("state", "outbox"):
        shutil.copytree(root / name, kept / name)
    return Site(root, kept, jobs, before)


@pytest.fixture
def site(worked: Site) -> Site:
    """The site with its outbox and without its state folder."""
    for name in ("state", "outbox"):
        shutil.rmtree(worked.root / name, ignore_errors=True)
    shutil.copytree(worked.kept / "outbox", worked.root / "outbox")
    shutil.rmtree(worked.root / "inbox" / "another", ignore_errors=True)
    return worked


@pytest.mark.slow
def test_restored_it_goes_on_with_nothing_lost_or_doubled(site: Site, tolerant_bundle: Path) -> None:
    restore(site.archive, site.state)
    assert called("audit", "verify", "--state", site.state).returncode == 0
    with Database(site.state / "ledger.sqlite") as database:
        known = [job.state for job in Jobs(database).find()]
    assert 2 <= known.count("delivered") < 4, "the backup was taken in the middle"
    with running(site.root, tolerant_bundle) as second:
        second.until(lambda: second.states() == ["delivered"] * 4)
        jobs = second.jobs()
        second.stop()
    assert called("audit", "verify", "--state", site.state).returncode == 0
    assert contents(site.root / "outbox") == site.before
    assert {Path(job["sr"]).name for job in jobs} == {name for name in site.before if name.startswith("SR-")}


@pytest.mark.slow
def test_without_any_ledger_reports_that_are_there_are_recognised(site: Site, tolerant_bundle: Path) -> None:
    """Also a report that has a predecessor."""
    with running(site.root, tolerant_bundle) as second:
        second.until(lambda: second.states() == ["delivered"] * 3)
        second.stop()
    assert contents(site.root / "outbox") == site.before


@pytest.mark.slow
def test_what_is_known_of_files_may_be_dropped(site: Site, tolerant_bundle: Path) -> None:
    """With the statement of docs/maintenance.md; a requeued job then gives the same bytes."""
    page = (ROOT / "docs" / "maintenance.md").read_text(encoding="utf-8")
    (statement,) = re.findall(r"^sqlite3 STATE/ledger.sqlite '(.*)'$", page, flags=re.MULTILINE)
    shutil.copytree(site.kept / "state", site.state)
    with contextlib.closing(sqlite3.connect(site.state / "ledger.sqlite", isolation_level=None)) as database:
        assert database.execute("SELECT count(*) FROM files").fetchone()[0] > 1
        for part in statement.rstrip(";").split(";"):
            database.execute(part)
        assert database.execute("SELECT count(*) FROM files").fetchone() == (0,)
    asked, *others = site.jobs
    for path in (site.root / "outbox").iterdir():
        if asked["study_instance_uid"] in str(pydicom.dcmread(path).get("StudyInstanceUID")):
            path.unlink()
    assert called("requeue", asked["id"], "--state", site.state).returncode == 0
    named_study("another").write(site.root / "inbox" / "another")
    with running(site.root, tolerant_bundle) as second:
        second.until(lambda: second.states() == ["delivered"] * 5)
        assert second.jobs()[1:4] == others
        second.stop()
    assert site.before.items() < contents(site.root / "outbox").items()
    assert len(contents(site.root / "outbox")) == len(site.before) + 3


# --- the archive --------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    with Database(folder / "ledger.sqlite") as database:
        Ledger(database).open_job("1.5", "1.2.3", "1.5", "1.5.1")
    return folder


def test_archive_is_whole_private_and_checkable(state: Path, tmp_path: Path) -> None:
    for name in ("lock", "heartbeat.json", "audit.lock"):
        (state / name).write_text("x")
    (state / "audit-000001.jsonl").write_text('{"seq":1}\n')
    (state / "audit-000002.jsonl").write_text('{"seq":2}\n')
    kept = back_up(state, tmp_path / "b.tar")
    assert kept.jobs == 1
    with tarfile.open(kept.path) as archive:
        names = archive.getnames()
    assert names == ["ledger.sqlite", "audit-000001.jsonl", "audit-000002.jsonl", "SHA256SUMS"]
    assert [name for name, _ in kept.members] == names[:3]
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    restore(kept.path, tmp_path / "restored")
    assert (tmp_path / "restored" / "audit-000002.jsonl").read_text() == '{"seq":2}\n'
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_not_yet_in_the_main_file_is_in_the_backup(state: Path, tmp_path: Path) -> None:
    """SQLite may have changes only in its write-ahead log."""
    with Database(state / "ledger.sqlite") as database:
        Ledger(database).open_job("2.5", "2.2.3", "2.5", "2.5.1")
        assert (state / "ledger.sqlite-wal").stat().st_size > 0
        assert back_up(state, tmp_path / "b.tar").jobs == 2


def test_half_a_transaction_is_not_in_the_backup(state: Path, tmp_path: Path) -> None:
    with Database(state / "ledger.sqlite") as database, database.transaction():
        Ledger(database).open_job("2.5", "2.2.3", "2.5", "2.5.1")
        assert back_up(state, tmp_path / "b.tar").jobs == 1


def test_a_backup_before_an_upgrade_is_of_the_older_schema(tmp_path: Path) -> None:
    """Neither copy nor original is migrated, because the older release must be able to read the backup."""
    older = tmp_path / "state"
    older.mkdir()
    with sqlite3.connect(older / "ledger.sqlite") as database:
        database.execute("CREATE TABLE jobs (id INTEGER)")
        database.execute("PRAGMA user_version = 1")
    back_up(older, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "restored")
    for folder in (older, tmp_path / "restored"):
        with sqlite3.connect(folder / "ledger.sqlite") as database:
            assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert SCHEMA_VERSION > 1


def test_a_newer_ledger_is_refused_by_an_older_release(state: Path) -> None:
    """As docs/maintenance.md says about going back to an older release."""
    with sqlite3.connect(state / "ledger.sqlite") as database:
        database.execute("INSERT INTO migrations VALUES (?, '9.9.9')", (SCHEMA_VERSION + 1,))
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(Unavailable, match=f"schema version {SCHEMA_VERSION + 1}"):
        Database(state / "ledger.sqlite")


def test_a_backup_takes_nobody_s_place(state: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("older")
    with pytest.raises(BackupError, match="exists already"):
        back_up(state, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "older"
    with pytest.raises(BackupError, match="inside the state folder"):
        back_up(state, state / "b.tar")
    done = called("backup", "--state", state, "--to", tmp_path / "b.tar")
    assert done.returncode == 2


def test_a_ledger_that_is_not_sound_is_told_of(state: Path, tmp_path: Path) -> None:
    with sqlite3.connect(state / "ledger.sqlite") as database:
        rows = [(f"{k}".encode(), "x" * 900) for k in range(400)]
        database.executemany("INSERT INTO files VALUES (?, 1, 1, 'r', ?, NULL, NULL, 1, '')", rows)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray((state / "ledger.sqlite").read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = os.urandom(4096)
    (state / "ledger.sqlite").write_bytes(content)
    with pytest.raises(Unavailable):
        back_up(state, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["state"], "no partial file is left"


def test_where_there_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(Unavailable, match="no ledger"):
        back_up(tmp_path / "state", tmp_path / "b.tar")
    assert called("backup", "--state", tmp_path / "state", "--to", tmp_path / "b.tar").returncode == 4
    assert list((tmp_path / "state").iterdir()) == [], "the command must not make a ledger"


def test_the_command_says_what_it_kept(state: Path, tmp_path: Path) -> None:
    done = called("backup", "--state", state, "--to", tmp_path / "b.tar")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{tmp_path / 'b.tar'}: 1 jobs; ledger.sqlite (")
    assert json.dumps(done.stdout).isascii()
