"""Values that every room shares: errors, the extraction spec, what is known of a case."""

__all__ = ["arrival", "case", "documents", "errors", "evidence", "horizon", "plain", "robustness", "source", "spec"]
