"""The documents: structured report, segmentation and result page, and their delivery into the outbox."""

__all__ = [
    "caveats", "cohort", "context", "contour", "descriptor_words", "evidence", "fonts", "headers", "key_views",
    "outbox", "page_documents", "page_objects", "preflight", "readback", "refusal_page", "result_page",
    "segmentation", "structured_report", "translation", "vocabulary",
]  # fmt: skip
