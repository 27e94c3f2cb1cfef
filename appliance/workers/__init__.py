"""Confined processes that read the files for the daemon."""

__all__ = ["bundle_workers", "messages", "process"]
