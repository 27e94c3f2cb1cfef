"""What is remembered: ledger, records of files, audit log, sign of life."""

__all__ = [
    "audit", "backup", "chain", "claims", "database", "file_table", "heartbeat", "job", "job_history", "jobs",
    "ledger", "requests", "secret",
]  # fmt: skip
