"""What is remembered: ledger, records of files, audit log, sign of life."""
