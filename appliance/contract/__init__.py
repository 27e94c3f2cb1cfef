"""Values that all rooms share: errors, the extraction spec, and what is known about a case."""

__all__ = ["arrival", "case", "documents", "errors", "evidence", "horizon", "plain", "robustness", "source", "spec"]
