"""Validation of a bundle on an external cohort."""

__all__ = ["validate", "wording"]
