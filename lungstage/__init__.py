"""lungstage."""
