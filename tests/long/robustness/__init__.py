"""Long measurements of robustness, for ``make robustness``."""
