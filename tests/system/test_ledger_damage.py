"""The real daemon and its commands on a damaged ledger: exit 4 and one sentence, at the start and later."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from lungstage.appliance.contract.errors import Damaged
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.database import Database, DatabaseReader, damaged
from tests.appliance.state.test_damage import _fill as fill
from tests.system.test_run import called, lungstage, running, tolerant_bundle

__all__ = ["tolerant_bundle"]

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped bits": lambda content: bytes(byte ^ 0x55 * (n > 4096 and n % 4096 < 40) for n, byte in enumerate(content)),
    "truncated": lambda content: content[: len(content) // 2],
    "header overwritten": lambda content: os.urandom(100) + content[100:],
    "zero length": lambda _: b"",
    "not a database": lambda content: b"this is no ledger at all\n" * (len(content) // 25),
}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "state").mkdir()
    fill(tmp_path / "state" / "ledger.sqlite")
    Audit(tmp_path / "state").write("daemon_started")
    return tmp_path / "state" / "ledger.sqlite"


def sentence(path: Path) -> str:
    return f"lungstage: {damaged(path)}\n"


@pytest.mark.slow
def test_the_daemon_does_not_start_on_a_damaged_ledger(ledger: Path, tolerant_bundle: Path) -> None:
    ledger.write_bytes(DAMAGE["flipped bits"](ledger.read_bytes()))
    root = ledger.parent.parent
    folders = [f"--{name}={root / name}" for name in ("inbox", "outbox", "state")]
    done = lungstage("run", *folders, "--bundle", tolerant_bundle)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == sentence(ledger)


@pytest.mark.parametrize("open_it", [Database, DatabaseReader])
@pytest.mark.parametrize("way", DAMAGE)
def test_neither_daemon_nor_command_opens_it(ledger: Path, way: str, open_it: Callable[[Path], DatabaseReader]) -> None:
    ledger.write_bytes(DAMAGE[way](ledger.read_bytes()))
    with pytest.raises(Damaged, match=re.escape(str(damaged(ledger)))):
        open_it(ledger)


@pytest.mark.parametrize("command", ["health", "jobs", "show 1", "requeue 1", "audit verify"])
def test_every_command_says_it_in_the_same_words(ledger: Path, command: str) -> None:
    ledger.write_bytes(DAMAGE["flipped bits"](ledger.read_bytes()))
    done = called(*command.split(), "--state", ledger.parent)
    assert (done.returncode, done.stdout, done.stderr) == (4, "", sentence(ledger))


@pytest.mark.slow
def test_a_daemon_at_work_that_meets_the_damage_ends(tmp_path: Path, tolerant_bundle: Path) -> None:
    path = tmp_path / "state" / "ledger.sqlite"
    with running(tmp_path, tolerant_bundle) as appliance:
        assert called("health", "--state", tmp_path / "state").returncode == 0
        with contextlib.closing(sqlite3.connect(path)) as other:  # makes the daemon's cached pages outdated
            other.execute("CREATE TABLE other (x)")
            other.commit()
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(os.urandom(path.stat().st_size - 4096))
            assert called("health", "--state", tmp_path / "state").returncode == 4
            _, log = appliance.process.communicate(timeout=60)
    assert appliance.process.returncode == 4
    assert log.endswith(sentence(path))
    assert not (tmp_path / "state" / "heartbeat.json").exists()
