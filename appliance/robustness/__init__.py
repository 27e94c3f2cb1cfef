"""Make perturbed versions of a region and its image, and measure each like the case itself: volumes in, numbers out."""

__all__ = ["summary", "versions"]
