"""Settings, and how values are put into logs and sentences."""
