"""The worklist in a browser: a separate process that reads the ledger and writes requests for the daemon."""

__all__ = ["accounts", "server", "settings"]
