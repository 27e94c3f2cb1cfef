"""Evaluation of a procedure by nested cross-validation: methods, metrics, curves, stability, verdicts."""

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
