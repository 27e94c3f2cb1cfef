"""Values that every room shares: errors, the extraction spec, what is known of a case."""

__all__ = ["case", "documents", "errors", "plain", "source", "spec"]
