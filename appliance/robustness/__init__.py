"""Perturbed versions of a region and its image, each measured as the case itself is: volumes in, numbers out."""

__all__ = ["summary", "versions"]
