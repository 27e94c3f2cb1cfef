"""Notifications about cases by e-mail and webhook, with a queue that survives restarts."""

__all__ = ["notifier", "runner", "settings"]
