"""Who is told of a case that waits, was refused or answered, and how: e-mail and webhook, over a queue that lasts."""

__all__ = ["notifier", "runner", "settings"]
