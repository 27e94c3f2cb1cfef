"""Descriptors held against readers of LIDC-IDRI: thresholds, percentiles and the margin's model, and how well they do."""

__all__ = ["page", "study"]
