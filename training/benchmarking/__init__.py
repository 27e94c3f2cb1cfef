"""Benchmark of selectors on synthetic tables with known truth."""

__all__ = ["benchmark"]
