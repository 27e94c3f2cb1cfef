"""From CT and regions of interest to a feature table, and to a table of the features' repeatability."""

__all__ = ["feature_table", "journal", "measure", "robustness", "subjects"]
