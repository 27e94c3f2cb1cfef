"""Documents for an outbox: a real report with its SEG and page, of a generated patient."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.report.outbox import Document, deliver, encode
from lungstage.appliance.report.page_documents import page_documents
from lungstage.appliance.report.structured_report import SegmentReference, build_report, build_segmentation
from tests.support.pages import page_context


@cache
def documents() -> tuple[Document, ...]:
    """SEG, page and SR, in the order in which they are delivered."""
    context = page_context()
    segmentation = build_segmentation(context.report)
    reference = SegmentReference(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1)
    report = build_report(context.report, reference)
    return (encode(segmentation), *page_documents(context, DocumentOptions()), encode(report))


def fill(outbox: Path, *kinds: str) -> dict[str, Document]:
    """Put documents into an outbox; they are given by kind."""
    chosen = [one for one in documents() if not kinds or one.kind in kinds]
    deliver(chosen, outbox)
    return {one.kind: one for one in documents()}
