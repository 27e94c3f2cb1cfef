"""Work continues with state folder, outbox and settings of release 0.1.0, which was killed during its work."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest

from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.staging import phantom
from lungstage.appliance.state import chain
from lungstage.appliance.state.database import SCHEMA_VERSION, DatabaseReader
from lungstage.appliance.state.jobs import Jobs
from tests.support.studies import Study, contour, structure_set
from tests.system.test_run import called, running

RELEASE = Path(__file__).parent / "release-0.1.0"
LEFT = {"delivered": "delivered", "held": "held", "refused": "refused", "claimed": "claimed", "staged": "report_ready"}
MISSING = "0009"


@functools.cache
def volume() -> hd.Volume:
    return phantom.make()[0][7:25, 48:144, 48:144]


def write_study(folder: Path) -> None:
    """A part of the phantom with circles on its middle slices, or beside the slices in the study to be refused."""
    slices = phantom.ct_datasets(volume(), folder.name)
    circle = [(47.5 + 28 * np.sin(a), 47.5 + 28 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)]
    shift = 0.7 if folder.name == "refused" else 0.0
    contours = [contour(image, circle, shift=shift) for image in slices[3:-3]]
    Study(slices, [structure_set(slices, {"GTV-1": contours}, slices)]).write(folder)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The site as 0.1.0 left it; `late` is the slice that was not received."""
    shutil.copytree(RELEASE / "outbox", tmp_path / "outbox")
    (tmp_path / "state").mkdir()
    for name in ("audit-000001.jsonl", "heartbeat.json"):
        shutil.copy(RELEASE / name, tmp_path / "state")
    for name in LEFT:
        write_study(tmp_path / "inbox" / name)
    (tmp_path / "inbox" / "held" / MISSING).rename(tmp_path / "late")
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "ledger.sqlite")) as database:
        database.executescript((RELEASE / "ledger.sql").read_text(encoding="utf-8"))
        move = "UPDATE files SET path = CAST(replace(CAST(path AS TEXT), 'SITE', ?) AS BLOB)"
        database.execute(move, (str(tmp_path),))
        database.execute("UPDATE jobs SET sr_path = replace(sr_path, 'SITE', ?)", (str(tmp_path),))
        files = database.execute("SELECT path, size FROM files").fetchall()
        assert len(files) == len(list((tmp_path / "inbox").glob("*/*")))
        for path, size in files:  # make the files count as unchanged, because the time of an inode change cannot be set
            known = os.stat(path)
            assert known.st_size == size
            stamp = known.st_mtime_ns + known.st_ctime_ns
            database.execute("UPDATE files SET mtime_ns = ? WHERE path = ?", (stamp, path))
        database.commit()
    return tmp_path


def states(site: Path) -> list[str]:
    with DatabaseReader(site / "state" / "ledger.sqlite") as database:
        return [job.state.value for job in Jobs(database).find()]


def schema_version(site: Path) -> int:
    with contextlib.closing(sqlite3.connect(site / "state" / "ledger.sqlite")) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def answer(*arguments: object) -> Any:
    done = called(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_commands_look_at_it_and_change_nothing(site: Path) -> None:
    state = site / "state"
    rows = answer("jobs", "--state", state, "--json")
    assert [row["state"] for row in rows] == list(LEFT.values())
    assert len(answer("jobs", "--state", state, "--json", "--only", "report_ready")) == 1
    told = answer("show", 5, "--state", state, "--json")
    assert [entry["event"] for entry in told["entries"]][-2:] == ["job_ready", "job_staged"]
    assert answer("audit", "verify", "--state", state, "--json")["jobs"] == 1
    assert schema_version(site) == 7


def test_its_settings_are_understood() -> None:
    folders = {name: Path("/nowhere", name) for name in ("inbox", "outbox", "bundle", "state")}
    settings = load_settings(RELEASE / "settings.toml", folders, {})
    assert (settings.prevalence, settings.report_after_seconds, settings.workers) == (0.4, 2.0, 2)


@pytest.mark.slow
def test_each_study_goes_on_where_it_was(site: Path, shipped_bundle: Path) -> None:
    before = answer("jobs", "--state", site / "state", "--json")
    with running(site, shipped_bundle, "--config", RELEASE / "settings.toml") as appliance:
        appliance.until(lambda: states(site) == ["delivered", "held", "refused", "delivered", "delivered"], 60)
        (site / "late").rename(site / "inbox" / "held" / MISSING)
        appliance.until(lambda: states(site) == ["delivered", "delivered", "refused", "delivered", "delivered"], 60)
        appliance.stop()
    after = answer("jobs", "--state", site / "state", "--json")
    assert after[0] == before[0], "a delivered report stays"
    assert after[2]["reason"]["code"] == before[2]["reason"]["code"] == ReasonCode.CONTOUR_OFF_SLICE
    assert [row["attempts"] for row in after] == [0] * 5, "no second job, and no study is at fault for a kill"
    documents = sorted(path.name.split("-")[0] for path in (site / "outbox").iterdir())
    # Reports that 0.1.0 delivered have no page; later ones have one.
    assert documents == ["PDF"] * 3 + ["SEG"] * 4 + ["SR"] * 4
    for path in (RELEASE / "outbox").iterdir():
        assert (site / "outbox" / path.name).read_bytes() == path.read_bytes()
    verdict = answer("audit", "verify", "--state", site / "state", "--json")
    assert (verdict["fault"], verdict["jobs"]) == (None, 4)
    events = [entry["event"] for entry in answer("show", 5, "--state", site / "state", "--json")["entries"]]
    since = events[events.index("job_staged") :]
    assert [since[0], since[1], *since[-2:]] == ["job_staged", "job_released", "job_report_ready", "job_delivered"]
    assert "staged" in called("show", 5, "--state", site / "state").stdout
    old = [json.loads(line)["sha256"] for line in (RELEASE / "audit-000001.jsonl").read_text().splitlines()]
    assert [entry.sha256 for entry in chain.entries(site / "state")][: len(old)] == old
    # 0.1.0 has schema 7 and refuses higher ones.
    assert schema_version(site) == SCHEMA_VERSION > 7


def test_a_newer_release_s_ledger_is_refused_by_that_release_s_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript((RELEASE / "ledger.sql").read_text(encoding="utf-8"))
        database.execute("CREATE TABLE migrations (schema_version INTEGER PRIMARY KEY, software TEXT NOT NULL)")
        database.execute("INSERT INTO migrations VALUES (8, '0.2.0'), (?, '9.8.7')", (SCHEMA_VERSION + 1,))
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for command in (("jobs",), ("requeue", "1")):
        done = called(*command, "--state", tmp_path)
        assert done.returncode == 4
        said = " ".join(done.stderr.split())
        assert f"schema version {SCHEMA_VERSION + 1} of release 9.8.7" in said
        assert "Install release 9.8.7 again, or restore the backup" in said
