"""Comparison of selectors over many tables: nested folds on each table, statistics over all tables."""

__all__ = ["compare", "protocol"]
