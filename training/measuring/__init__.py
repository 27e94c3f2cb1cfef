"""From CT and regions of interest to a feature table, on processes of this machine or a cluster."""

__all__ = ["feature_table", "journal", "measure", "subjects"]
