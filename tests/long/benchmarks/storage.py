"""Measure the bytes that a study needs on the disk: ``make storage``, for docs/maintenance.md.

Uses the generated phantom ten times under different names, and the real patients of ``LUNGSTAGE_DATA``, if available.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pydicom

from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.one_shot import scan
from tests.conftest import ROOT
from tests.long.benchmarks.extraction import table
from tests.system.test_run import Appliance, running

BUNDLE = ROOT / "models" / "lung1-stage"
PATIENTS = {"LUNG1-001": "dicom/lung1-001-slab", "IBSI phantom": "ibsi/ct_phantom/dicom"}


def ledger_bytes(state: Path) -> int:
    """Return the size of the ledger with everything in its main file."""
    with sqlite3.connect(state / "ledger.sqlite") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (state / "ledger.sqlite").stat().st_size


def row(name: str, drop: Callable[[Path, int], None], times: int) -> list[str]:
    """Answer a study once, to fill the ledger's first pages, then `times` times; return the bytes that one adds."""
    with tempfile.TemporaryDirectory() as place, running(Path(place), BUNDLE) as appliance:
        root = Path(place)
        drop(appliance.inbox, 0)
        wait(appliance, 1)
        before = ledger_bytes(root / "state")
        for number in range(1, times + 1):
            drop(appliance.inbox, number)
        wait(appliance, times + 1)
        log = appliance.stop()
        ledger = (ledger_bytes(root / "state") - before) / times
        files = sum(path.is_file() for path in appliance.inbox.rglob("*"))
        told = {"SR": root / "outbox", "SEG": root / "outbox", "audit": root / "state"}
        sums = {kind: sum(path.stat().st_size for path in folder.glob(f"{kind}-*")) for kind, folder in told.items()}
    each = times + 1
    sizes = (sums["SR"] / each, sums["SEG"] / each, ledger, sums["audit"] / each, len(log) / each)
    return [name, f"{files / each:.0f}", *(f"{size / 1000:.1f}" for size in sizes)]


def wait(appliance: Appliance, delivered: int) -> None:
    appliance.until(lambda: [job["state"] for job in appliance.jobs()].count("delivered") == delivered, seconds=300)


def phantoms(inbox: Path, number: int) -> None:
    """Copy the phantom into the inbox, with UIDs derived from a number."""
    phantom.write_study(inbox / str(number), str(number))


def copies(source: Path) -> Callable[[Path, int], None]:
    """Copy a study into the inbox with other UIDs each time, because otherwise it would be the same study."""

    def drop(inbox: Path, number: int) -> None:
        folder = inbox / str(number)
        folder.mkdir()
        for header in scan([source]).headers:
            dataset = pydicom.dcmread(header.path)
            for element in dataset.iterall():
                if element.VR == "UI" and not str(element.value).startswith("1.2.840.10008."):
                    element.value = f"{str(element.value)[:60]}.{number}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(folder / header.path.name)

    return drop


def main() -> None:
    """Print the table."""
    rows = [row("generated phantom, SEG", phantoms, 10)]
    data = Path(os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data"))
    rows += [row(f"{name}, RTSTRUCT", copies(data / place), 5) for name, place in PATIENTS.items() if data.is_dir()]
    print(table(["study", "files", "SR", "SEG", "ledger", "audit log", "log"], rows))


if __name__ == "__main__":
    main()
