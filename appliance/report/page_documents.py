"""The result page in every requested format, as documents for the outbox. It is made once and drawn once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lungstage.appliance.contract.documents import DocumentOptions, Format, Language
from lungstage.appliance.report.drawing import picture_of
from lungstage.appliance.report.outbox import Document, encode
from lungstage.appliance.report.page_html import page_html
from lungstage.appliance.report.page_objects import (
    encapsulated_pdf,
    of_refusal,
    of_report,
    page_uid,
    secondary_captures,
)
from lungstage.appliance.report.refusal_page import RefusalContext, refusal_page
from lungstage.appliance.report.result_page import PageContext, ResultPage, result_page


def page_documents(context: PageContext, options: DocumentOptions) -> tuple[Document, ...]:
    """Make the page and write it in each requested format.

    Parameters
    ----------
    context
        Input of the page.
    options
        Formats and language.

    Returns
    -------
    tuple of Document
        Encapsulated PDF, Secondary Captures of page and key slice, HTML: those that are requested, in this order.
    """
    return tuple(_documents(context, result_page(context, options.language), options))


def page_names(report: str, language: Language) -> Mapping[Format, str]:
    """Return the file names of a report's page by format; for several pictures, the first.

    Parameters
    ----------
    report
        SOP Instance UID of the structured report.
    language
        Language of the page.
    """
    return {
        "pdf": f"PDF-{page_uid(report, 'pdf', language)}.dcm",
        "sc": f"SC-{page_uid(report, 'sc', language)}.dcm",
        "html": f"HTML-{page_uid(report, 'html', language)}.html",
    }


def _documents(context: PageContext, page: ResultPage, options: DocumentOptions) -> Iterator[Document]:
    origin, formats = of_report(context.report), options.formats
    if "pdf" in formats or "sc" in formats:
        # Imported here, as below: drawing modules take as long to load as all others, and not every command draws.
        from lungstage.appliance.report.page_pdf import key_slice_pdf, page_pdf

        drawing = page_pdf(page)
        if "pdf" in formats:
            yield encode(encapsulated_pdf(origin, drawing, page.title, page.language))
        if "sc" in formats:
            pictures = [picture_of(drawing.pdf), picture_of(key_slice_pdf(page).pdf)]
            for dataset in secondary_captures(origin, pictures, drawing, page.language):
                yield encode(dataset)
    if "html" in formats:
        uid = page_uid(origin.root, "html", page.language)
        yield Document(f"HTML-{uid}.html", str(uid), "", page_html(page).encode("utf-8"))


def refusal_documents(context: RefusalContext, options: DocumentOptions) -> tuple[Document, ...]:
    """Make the page of a refusal, as PDF or picture: in the formats that an answer would have.

    Parameters
    ----------
    context
        Input of the page.
    options
        Formats and language. There is no HTML: whoever ran the command has already seen the reason.
    """
    from lungstage.appliance.report.page_pdf import refusal_pdf

    page, origin = refusal_page(context, options.language), of_refusal(context)
    drawing = refusal_pdf(page)
    made = []
    if "pdf" in options.formats:
        made.append(encapsulated_pdf(origin, drawing, page.title, page.language))
    if "sc" in options.formats:
        made += secondary_captures(origin, [picture_of(drawing.pdf)], drawing, page.language)
    return tuple(encode(dataset) for dataset in made)
