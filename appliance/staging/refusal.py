"""Make the page that explains a refusal."""

from __future__ import annotations

import hashlib
from datetime import datetime

from lungstage.appliance import __version__
from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import Reason
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.files import read_dataset
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.report.outbox import Document
from lungstage.appliance.report.page_documents import refusal_documents
from lungstage.appliance.report.refusal_page import RefusalContext
from lungstage.appliance.staging.documents import bundle_identity


def explain(
    case: Case, reason: Reason, bundle: Bundle, created: datetime, options: DocumentOptions
) -> tuple[Document, ...]:
    """Make the page about a refused case.

    Parameters
    ----------
    case
        The refused case; patient and study are taken from one of its files.
    reason
        Why it was refused.
    bundle
        The bundle that did not answer, or whose answer was withheld.
    created
        Content date and time of the page.
    options
        Formats and language; without PDF and picture there is no page.

    Raises
    ------
    Refused
        The file cannot be read.
    OSError
        The file does not exist.
    """
    path = case.images[0].path if case.images else case.rois[0].path
    dataset = read_dataset(path)
    digest = hashlib.sha256()
    for part in (case.study_instance_uid, case.key, reason.code, reason.message, bundle.digest, __version__):
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    identity = bundle_identity(bundle, ())
    return refusal_documents(
        RefusalContext((dataset,), reason, identity, digest.hexdigest(), created, __version__), options
    )
