"""Values that every room shares: errors, the extraction spec, what is known of a case."""

__all__ = ["case", "errors", "plain", "source", "spec"]
