"""The inbox: files noticed, read and grouped into studies."""

__all__ = ["inbox", "study_index", "watch"]
