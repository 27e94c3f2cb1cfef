"""The inbox: files noticed, read and grouped into studies."""

__all__ = ["inbox", "scanner", "study_index", "watch"]
