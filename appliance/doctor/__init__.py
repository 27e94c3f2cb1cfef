"""``lungstage doctor``: check everything that the daemon needs, and say what is wrong and what to do."""

__all__ = ["examination", "finding"]
