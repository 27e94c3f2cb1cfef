"""Settings, and how values are put into logs and sentences."""

__all__ = ["disks", "explain", "logs", "settings", "shipped", "text"]
