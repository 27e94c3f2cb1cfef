"""Feature tables and where they come from: rows, outcome, covariates, description; the known tables' descriptions."""

__all__ = ["cohort", "crops", "description", "endpoint", "survival", "table"]
