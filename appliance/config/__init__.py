"""Settings, and how values are put into logs and sentences."""

__all__ = ["boot", "disks", "explain", "extras", "logs", "offline", "settings", "shipped", "text"]
