"""Long runs of many pieces of work: in several processes or on a cluster, with a journal and a progress display."""

__all__ = ["cluster", "journal", "processes", "progress"]
