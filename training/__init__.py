"""Offline training: from a feature table to a fitted network with fifteen features and its cross-validated metrics."""

__all__ = [
    "configuration",
    "contour",
    "evaluation",
    "files",
    "model",
    "procedure",
    "run",
    "selection",
]
