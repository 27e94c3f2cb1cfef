"""The inbox: finds files, reads them and groups them into studies."""

__all__ = ["inbox", "scanner", "study_index", "watch"]
