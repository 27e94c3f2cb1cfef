"""Fixtures that every part of the suite may use."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pydicom.config
import pytest
from pydicom.dataset import Dataset

from lungstage.appliance.config import logs
from lungstage.appliance.report import structured_report
from lungstage.appliance.report.context import ReportContext
from lungstage.appliance.report.preflight import faults_of

ROOT = Path(__file__).resolve().parent.parent


_MANY_DESCRIPTORS = 150


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_looked_through_once() -> Iterator[None]:
    """Keep what a module leaves behind out of later collections, which else take longer from module to module."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _few_descriptors() -> Iterator[None]:
    """Give back what tests have dropped and Python has not: a system has few inotify instances, and 1,024 files."""
    yield
    if len(os.listdir("/proc/self/fd")) > _MANY_DESCRIPTORS:
        gc.collect()


@pytest.fixture(autouse=True)
def _untouched_log() -> Iterator[None]:
    """Give the log back as it was: what one test configures must not silence the next."""
    every = [(log, list(log.handlers), log.level, log.propagate) for log in (logs.logger, logging.getLogger())]
    yield
    for log, handlers, level, propagate in every:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def _rules_hold_for_every_report() -> Iterator[None]:
    """Hold every structured report that a test has made to what the gateway asks of it before it is sent."""
    settle = structured_report.settle

    def settle_and_judge(dataset: Dataset, context: ReportContext) -> None:
        settle(dataset, context)
        if dataset.Modality == "SR":
            assert faults_of(dataset) == ()

    with pytest.MonkeyPatch.context() as patched:  # a test's own patches are undone when they always were
        patched.setattr(structured_report, "settle", settle_and_judge)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real patients, IBSI phantoms and hostile files; not part of the repository."""
    folder = Path(os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data are not here (set LUNGSTAGE_DATA to their folder)")
    return folder


@pytest.fixture(scope="session")
def shipped_bundle() -> Path:
    """The bundle that the repository ships."""
    return ROOT / "models" / "lung1-stage"


@pytest.fixture
def strict_dicom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pydicom refuse to write values that DICOM does not allow."""
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
