"""Values that every room shares: errors, the extraction spec, what is known of a case."""
