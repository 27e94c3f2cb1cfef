"""One case to one report: what is needed, what is measured, what the model says. No clock, no ledger."""

__all__ = ["batch", "contouring", "covariates", "one_shot", "outcome", "phantom", "pipeline", "refusal", "viewing"]
