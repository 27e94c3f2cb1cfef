"""Folders of the real daemon that are missing, that it may not use, or that were replaced by others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.daemon.start import serve
from lungstage.appliance.intake.watch import Wake
from tests.support.seconds import PATIENCE
from tests.support.studies import rtstruct_study
from tests.system.test_run import ENVIRONMENT, RUN, called, jobs_of, lungstage, tolerant_bundle

__all__ = ["tolerant_bundle"]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, with an inbox, and with a state folder that they may not enter."""
    with tempfile.TemporaryDirectory(prefix="lungstage-folders-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "inbox").mkdir()
        (folder / "state").mkdir(mode=0o700)
        yield folder


def options(root: Path, *names: str) -> list[str]:
    return [f"--{name}={root / name}" for name in names or ("inbox", "outbox", "state")]


def as_nobody(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a user without any rights."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root may become somebody else, by setpriv")
    command = [*NOBODY, *RUN, *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    if done.returncode not in (0, 2, 3, 4) or "No module named" in done.stderr:
        pytest.skip(f"another user cannot run this installation: {done.stderr[-200:]}")
    return done


def test_a_mistyped_inbox_is_refused_and_nothing_is_made(place: Path, shipped_bundle: Path) -> None:
    mistyped = [f"--inbox={place / 'imbox'}", f"--outbox={place / 'outbox'}", "--bundle", shipped_bundle]
    done = lungstage("run", *mistyped)  # without --create, which the other tests use
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        f"lungstage: There is no inbox {place / 'imbox'}."
        " Correct the path, mount its disk or share, or start with --create to make the folder.\n"
    )
    assert sorted(path.name for path in place.iterdir()) == ["inbox", "state"]


def refused(bundle: Path, **folders: Path) -> str:
    """Return the message of a daemon that ends at its start; a daemon that does not end itself is stopped at once."""
    wake = Wake()
    wake.stop()
    with pytest.raises(Unavailable) as said:
        serve(load_settings(None, {"bundle": bundle, **folders}, {}), wake, lambda: None)
    return str(said.value)


def test_an_inbox_that_is_a_file_is_refused(place: Path, shipped_bundle: Path) -> None:
    (place / "file").touch()
    said = refused(shipped_bundle, inbox=place / "file", outbox=place / "outbox")
    assert "cannot be read: Not a directory." in said


def test_an_outbox_that_takes_nothing_is_said_before_ready(place: Path, shipped_bundle: Path) -> None:
    outbox = place / "inbox.txt" / "outbox"
    outbox.parent.touch()
    said = refused(shipped_bundle, inbox=place / "inbox", outbox=outbox)
    assert f"No report can be written to the outbox {outbox}: Not a directory. Give the" in said
    (place / "outbox").mkdir()
    done = as_nobody("run", *options(place), "--bundle", shipped_bundle)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"No report can be written to the outbox {place / 'outbox'}: Permission denied. Give the" in done.stderr
    (place / "inbox").chmod(0o700)
    done = as_nobody("run", *options(place), "--bundle", shipped_bundle)
    assert f"The inbox {place / 'inbox'} cannot be read: Permission denied. Give the" in done.stderr


@pytest.mark.parametrize(
    ("command", "closed"),
    [
        ("health", "state"), ("jobs", "state"), ("jobs", "state/deeper"), ("requeue 1", "state/deeper"),
        ("show 1", "state"), ("audit verify", "state/deeper"), ("backup --to /tmp/never", "state"),
    ],
)  # fmt: skip
def test_a_state_folder_that_is_closed_is_said_in_a_sentence(place: Path, command: str, closed: str) -> None:
    done = as_nobody(*command.split(), "--state", place / closed)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert done.stderr == (
        f"lungstage: This user may not read the state folder {place / closed}."
        " Run the command as the daemon's user, for example with sudo -u lungstage.\n"
    )


def test_the_doctor_diagnoses_folders_that_are_closed(place: Path, shipped_bundle: Path) -> None:
    (place / "inbox").chmod(0o700)
    (place / "outbox").mkdir(mode=0o700)

    def told(root: Path) -> dict[str, tuple[str, str]]:
        done = as_nobody("doctor", *options(root), "--bundle", shipped_bundle, "--json")
        assert (done.returncode, done.stderr) == (3, "")
        return {one["check"]: (one["verdict"], one["sentence"]) for one in json.loads(done.stdout)["findings"]}

    found = told(place)
    for name, words in (("inbox", "read and search"), ("outbox", "read and write"), ("state", "read and write")):
        assert found[name] == ("problem", f"This user may not {words} in {place / name}.")
    (place / "closed").mkdir(mode=0o700)
    found = told(place / "closed")
    for name in ("inbox", "outbox"):
        assert found[name] == ("problem", f"This could not be checked: Permission denied at {place / 'closed' / name}.")


# While it runs


class Running:
    """A daemon, in a separate mount namespace if `before` is given, and its log."""

    def __init__(self, root: Path, bundle: Path, before: str = "") -> None:
        self.root = root
        command = [*RUN, "run", *options(root), f"--bundle={bundle}"]
        if before:
            command = [
                "unshare",
                "--mount",
                "--propagation=private",
                "sh",
                "-ec",
                f'{before}\nexec "$@"',
                "-",
                *command,
            ]
        self.process = subprocess.Popen(
            command, env=ENVIRONMENT | {"LUNGSTAGE_RETRY_MAX_SECONDS": "1", "LUNGSTAGE_FORMATS": "sr"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.log: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(iter(self.process.stderr.readline, ""))

    def inside(self, script: str) -> str:
        """Run a script in the daemon's mount namespace."""
        command = ["nsenter", f"--target={self.process.pid}", "--mount", "sh", "-ec", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def states(self) -> list[str]:
        return [job["state"] for job in jobs_of(self.root / "state")]

    def told(self, event: str) -> bool:
        return any(f"event={event} " in line for line in self.log)

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def doctor(self, check: str) -> list[str]:
        done = called("doctor", *options(self.root), "--bundle", self.root, "--json")
        return [one["verdict"] for one in json.loads(done.stdout)["findings"] if one["check"] == check]


@contextmanager
def daemon(root: Path, bundle: Path, before: str = "") -> Iterator[Running]:
    one = Running(root, bundle, before)
    try:
        yield one
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(PATIENCE) == 0
    finally:
        one.process.kill()
        one.process.wait()
        one._reader.join()


def waits(one: Running) -> bool:
    """Whether the report is made but not delivered."""
    return one.told("unavailable") and one.states() not in ([], ["delivered"])


@pytest.mark.slow
def test_an_outbox_that_was_put_in_place_of_another_gets_nothing(place: Path, tolerant_bundle: Path) -> None:
    outbox = place / "outbox"
    with daemon(place, tolerant_bundle) as one:
        outbox.rename(place / "elsewhere")
        outbox.mkdir()
        rtstruct_study().write(place / "inbox")
        one.until(lambda: one.told("outbox_replaced") and waits(one))
        assert list(outbox.iterdir()) == []
        one.until(lambda: one.doctor("daemon") == ["problem"])
        outbox.rmdir()
        (place / "elsewhere").rename(outbox)
        one.until(lambda: one.states() == ["delivered"])
        assert len(list(outbox.glob("SR-*.dcm"))) == 1
        assert one.told("outbox_back")


@pytest.mark.slow
def test_reports_never_go_into_the_mount_point_of_a_disk_that_is_not_mounted(
    place: Path, tolerant_bundle: Path
) -> None:
    mount, outbox = f"mount -t tmpfs none {place / 'outbox'}", place / "outbox"
    outbox.mkdir()
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may mount nothing")
    with daemon(place, tolerant_bundle, mount) as one:
        one.inside(f"umount {outbox}")
        rtstruct_study().write(place / "inbox")
        one.until(lambda: one.told("outbox_replaced") and waits(one))
        assert list(outbox.iterdir()) == []
    with daemon(place, tolerant_bundle, "true") as one:  # the daemon starts before the disk is mounted
        one.until(lambda: one.told("outbox_replaced") and waits(one))
        assert list(outbox.iterdir()) == []
        assert one.doctor("outbox") == ["problem"]
        one.inside(mount)
        one.until(lambda: one.states() == ["delivered"])
        assert one.inside(f"ls {outbox}").count("SR-") == 1
    assert list(outbox.iterdir()) == []
