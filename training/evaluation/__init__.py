"""How well a procedure does, with every fit inside the fold: methods, figures, curves, stability, verdicts."""

__all__ = [
    "curves",
    "evaluate",
    "feature_count",
    "folds",
    "leakage",
    "methods",
    "metrics",
    "reliability",
    "stability",
    "survival",
    "verdicts",
]
