"""From one case to one report: plan, measure, answer, make the documents. No clock and no ledger in here."""

__all__ = [
    "batch",
    "choosing",
    "contouring",
    "covariates",
    "one_shot",
    "outcome",
    "phantom",
    "pipeline",
    "prompting",
    "refusal",
    "sketching",
    "viewing",
]
