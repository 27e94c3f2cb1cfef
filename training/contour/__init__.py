"""Train and evaluate the network that draws contours, on tumours with an expert's contour."""

__all__ = [
    "answers",
    "cases",
    "network",
    "run",
    "summary",
    "training",
]
