"""The worklist in a browser: a process of its own, which reads the ledger and puts requests before the daemon."""

__all__ = ["accounts", "server", "settings"]
