"""Descriptors compared with readers of LIDC-IDRI: thresholds, percentiles, the margin's model, and their agreement."""

__all__ = ["page", "study"]
