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


_MANY_DESCRIPTORS = 60  # a user has 128 inotify instances, for all processes of the suite and their daemons


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_looked_through_once() -> Iterator[None]:
    """Exclude the objects of finished modules from later garbage collections, so that these do not get slower."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _few_descriptors() -> Iterator[None]:
    """Close file descriptors that tests no longer use, above all those of inotify."""
    yield
    if len(os.listdir("/proc/self/fd")) > _MANY_DESCRIPTORS:
        gc.collect()


@pytest.fixture(autouse=True)
def _untouched_log() -> Iterator[None]:
    """Restore the log, so that the configuration of one test does not silence the next test."""
    every = [(log, list(log.handlers), log.level, log.propagate) for log in (logs.logger, logging.getLogger())]
    yield
    for log, handlers, level, propagate in every:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def _rules_hold_for_every_report() -> Iterator[None]:
    """Check every structured report that a test makes by the rules that the gateway checks before it sends one."""
    settle = structured_report.settle

    def settle_and_judge(dataset: Dataset, context: ReportContext) -> None:
        settle(dataset, context)
        if dataset.Modality == "SR":
            assert faults_of(dataset) == ()

    with pytest.MonkeyPatch.context() as patched:  # apart from the test's own patches
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
