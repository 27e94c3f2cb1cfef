"""The documents: the structured report, the segmentation and the page beside it, and how they get into the outbox."""

__all__ = [
    "cohort", "context", "fonts", "headers", "outbox", "page_documents", "page_objects", "readback", "refusal_page",
    "result_page", "structured_report", "vocabulary",
]  # fmt: skip
