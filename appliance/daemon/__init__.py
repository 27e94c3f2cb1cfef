"""The daemon: decides when each step runs, from the arrival of a study to its report in the outbox."""

__all__ = ["demo", "folder_guard", "start"]
