"""Reports from an older ledger name their predecessors. For the daemon, see tests/…/test_backup.py."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lungstage.appliance import __version__
from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.daemon.former_reports import FormerReports
from lungstage.appliance.report import outbox
from lungstage.appliance.report.structured_report import SegmentReference, build_report
from tests.support.reports import generated_sources, made_up_context

SOURCES = generated_sources()
INSTANCES = [{"uid": "1.2.3.6.1"}, *({"uid": str(source.SOPInstanceUID)} for source in SOURCES)]
SEGMENT = SegmentReference("1.2.840.10008.5.1.4.1.1.66.4", "1.2.3.7.1", 1)
BUNDLE = "ab" * 32
FIRST, SECOND = (Predecessor(str(SOURCES[0].StudyInstanceUID), f"2.25.{n}", f"2.25.{n}1") for n in (8, 9))
SOON = datetime.now(UTC) + timedelta(days=1)


def put(folder: Path, predecessor: Predecessor | None, minute: int, software: str = __version__) -> Path:
    created = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    context = made_up_context(
        SOURCES, predecessor=predecessor, created=created, identity=f"{minute}" * 8, software_version=software
    )
    (path,) = outbox.deliver([outbox.encode(build_report(context, SEGMENT))], folder)
    return path


def read(folder: Path, before: datetime = SOON) -> FormerReports:
    former = FormerReports()
    former.read(folder, before)
    return former


def test_the_newest_report_of_the_same_region_slices_and_model_says_what_it_follows(tmp_path: Path) -> None:
    put(tmp_path, SECOND, 2)
    put(tmp_path, FIRST, 1)
    put(tmp_path, None, 0)
    former = read(tmp_path)
    assert former.predecessor(INSTANCES, BUNDLE) == SECOND
    assert former.predecessor([*INSTANCES, {"uid": "1.2.3.6.0"}], BUNDLE) == SECOND  # with an older region object
    assert former.predecessor(INSTANCES, "cd" * 32) is None
    assert former.predecessor(INSTANCES[1:], BUNDLE) is None, "another region"
    assert former.predecessor(INSTANCES[:-1], BUNDLE) is None, "other slices"


@pytest.mark.parametrize("why", ["younger than the ledger", "another release's", "a link", "a pipe", "cut short"])
def test_what_says_nothing_of_this_ledger_s_past_is_passed_over(tmp_path: Path, why: str) -> None:
    (tmp_path / "outbox").mkdir()
    path = put(tmp_path / "outbox", FIRST, 1, "0.0.1" if why == "another release's" else __version__)
    content = path.read_bytes()
    assert (read(path.parent).predecessor(INSTANCES, BUNDLE) is None) == (why == "another release's")
    if why == "a link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif why == "a pipe":
        path.unlink()
        os.mkfifo(path)
    elif why == "cut short":
        path.write_bytes(content[: len(content) // 2])
    before = datetime.fromtimestamp(0, UTC) if why == "younger than the ledger" else SOON
    assert read(path.parent, before).predecessor(INSTANCES, BUNDLE) is None
