"""Long measurements of robustness: ``make robustness``."""
