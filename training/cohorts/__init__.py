"""Feature tables and their sources: rows, outcome, covariates, description, and the shipped descriptions."""

__all__ = ["cohort", "crops", "description", "endpoint", "survival", "table"]
