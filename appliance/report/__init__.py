"""The documents: the structured report, the segmentation beside it, and how both get into the outbox."""

__all__ = ["context", "headers", "outbox", "readback", "structured_report", "vocabulary"]
