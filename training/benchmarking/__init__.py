"""Selectors on made-up tables whose truth is known."""

__all__ = ["benchmark"]
