"""Confined processes that meet the files in the daemon's place."""

__all__ = ["bundle_workers", "messages", "process"]
