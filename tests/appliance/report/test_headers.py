"""All dates and times of a document are of one moment, in one time zone, with its offset."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.report.headers import copied_header, moment_of
from lungstage.appliance.report.page_documents import page_documents, refusal_documents
from lungstage.appliance.report.readback import read_back
from lungstage.appliance.report.refusal_page import RefusalContext
from lungstage.appliance.report.structured_report import ReportContext
from tests.support.pages import page_context
from tests.support.reports import dciodvfy_errors, generated_sources, made_up_context, write_both

pytestmark = pytest.mark.usefixtures("strict_dicom")

CET, CEST = timezone(timedelta(hours=1)), timezone(timedelta(hours=2))
SUMMER = datetime(2024, 7, 1, 0, 30, 15, 250000, CEST)  # a day later than in UTC
PAGES = DocumentOptions(("sr", "pdf", "sc"))
WHOLE_MINUTES = st.integers(-12 * 60, 14 * 60)


def documents(context: ReportContext, folder: Path) -> list[Dataset]:
    """SEG, SR, PDF and both pictures of one answer."""
    about = page_context(context.sources, created=context.created)
    pages = [pydicom.dcmread(io.BytesIO(page.content)) for page in page_documents(about, PAGES)]
    return [*map(pydicom.dcmread, write_both(context, folder)), *pages]


def told(dataset: Dataset, prefix: str) -> datetime:
    """The moment as a reader understands it: date, time, and the offset of the document."""
    text = f"{dataset[f'{prefix}Date'].value}{dataset[f'{prefix}Time'].value}{dataset.TimezoneOffsetFromUTC}"
    return datetime.strptime(text, "%Y%m%d%H%M%S.%f%z")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [({}, "+0200"), ({"TimezoneOffsetFromUTC": "+0100"}, "+0100"), ({"TimezoneOffsetFromUTC": "-0930"}, "-0930"),
     ({"TimezoneOffsetFromUTC": "CET"}, "+0200"), ({"TimezoneOffsetFromUTC": "+1500"}, "+0200")],
)  # fmt: skip
def test_every_document_tells_one_moment_by_the_clock_of_its_images(
    stated: dict[str, str], expected: str, tmp_path: Path
) -> None:
    """The study's date and time are copied from the CT; the others give the same moment in the CT's time zone."""
    sources = generated_sources(**stated)
    for written in documents(made_up_context(sources, created=SUMMER), tmp_path):
        assert written.TimezoneOffsetFromUTC == expected
        assert (written.StudyDate, written.StudyTime) == ("20200102", "030405")
        for prefix in ("Content", "Series", "InstanceCreation"):
            assert told(written, prefix) == SUMMER, prefix
    assert read_back(tmp_path / "sr.dcm").account.created.isoformat() == SUMMER.isoformat()
    for name in ("sr.dcm", "seg.dcm"):
        assert dciodvfy_errors(tmp_path / name) == set()


def test_the_page_of_a_refusal_tells_it_likewise() -> None:
    sources = generated_sources(1, TimezoneOffsetFromUTC="+0100")
    reason = Reason(ReasonCode.ROI_EMPTY, "nothing")
    context = RefusalContext(sources, reason, made_up_context(sources).bundle, "ab" * 32, SUMMER, "0.1.0")
    for document in refusal_documents(context, PAGES):
        written = pydicom.dcmread(io.BytesIO(document.content))
        assert (written.TimezoneOffsetFromUTC, told(written, "Content")) == ("+0100", SUMMER)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), WHOLE_MINUTES, WHOLE_MINUTES)
def test_another_clock_tells_the_same_moment(when: datetime, ours: int, theirs: int) -> None:
    sign, (hours, minutes) = "-" if theirs < 0 else "+", divmod(abs(theirs), 60)
    sources = generated_sources(1, TimezoneOffsetFromUTC=f"{sign}{hours:02}{minutes:02}")
    created = when.replace(tzinfo=timezone(timedelta(minutes=ours)))
    moment = moment_of(made_up_context(sources, created=created))
    assert (moment, moment.utcoffset()) == (created, timedelta(minutes=theirs))


@pytest.mark.parametrize("created", [SUMMER.replace(tzinfo=None), SUMMER.astimezone(timezone(timedelta(seconds=3208)))])
def test_an_offset_that_is_not_known_or_cannot_be_told_is_left_out(created: datetime, tmp_path: Path) -> None:
    for written in documents(made_up_context(generated_sources(), created=created), tmp_path):
        assert "TimezoneOffsetFromUTC" not in written
        assert written.ContentTime == f"{created:%H%M%S.%f}"


def test_the_hour_that_comes_twice_is_told_apart(tmp_path: Path) -> None:
    """When summer time ends, 02:30 occurs twice in the night, with two offsets."""
    first = datetime(2026, 10, 25, 2, 30, 0, 1, CEST)
    for k, created in enumerate((first, (first + timedelta(hours=1)).astimezone(CET))):
        (folder := tmp_path / str(k)).mkdir()
        for written in documents(made_up_context(generated_sources(), created=created), folder):
            assert written.ContentTime == "023000.000001"
            assert told(written, "Content").astimezone(UTC) == created.astimezone(UTC)


def test_a_corrected_offset_makes_another_document() -> None:
    """UIDs follow from the offset as from every copied value."""
    one, other = (generated_sources(1, TimezoneOffsetFromUTC=text)[0] for text in ("+0100", "+0200"))
    assert copied_header(one) != copied_header(other)
