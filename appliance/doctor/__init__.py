"""``lungstage doctor``: looks at everything that a daemon needs, and says what is wrong and what helps."""

__all__ = ["examination", "finding"]
