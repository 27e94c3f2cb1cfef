"""Make a report again from its original files, and list what differs."""

__all__ = ["originals", "reproduce"]
