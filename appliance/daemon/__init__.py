"""The daemon: decides what happens when, from a study that arrives to its report in the outbox."""

__all__ = ["demo", "folder_guard", "start"]
