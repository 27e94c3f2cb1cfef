"""One case to one report: what is needed, what is measured, what the model says. No clock, no ledger."""
