"""Selectors compared over many tables: nested folds on each, statistics over all of them."""

__all__ = ["compare", "protocol"]
