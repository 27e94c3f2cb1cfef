"""The data in the state folder: ledger, records of files, audit log, heartbeat."""

__all__ = [
    "audit", "backup", "chain", "claims", "database", "file_table", "heartbeat", "job", "job_history", "jobs",
    "ledger", "requests", "secret",
]  # fmt: skip
