"""Settings, and how values are written into logs and sentences."""

__all__ = ["boot", "disks", "explain", "extras", "logs", "offline", "settings", "shipped", "text"]
