"""Many pieces of work that take long together: spread over processes or a cluster, journalled, shown as they go."""

__all__ = ["cluster", "journal", "processes", "progress"]
