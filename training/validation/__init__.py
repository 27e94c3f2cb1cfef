"""A finished bundle on a cohort that it has not seen."""

__all__ = ["validate", "wording"]
