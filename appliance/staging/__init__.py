"""One case to one report: what is needed, what is measured, what the model says. No clock, no ledger."""

__all__ = ["batch", "covariates", "one_shot", "outcome", "phantom", "pipeline", "refusal", "viewing"]
