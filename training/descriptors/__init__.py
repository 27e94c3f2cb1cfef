"""Descriptors held against readers of LIDC-IDRI: thresholds, percentiles, the margin's model, and how well they do."""

__all__ = ["page", "study"]
