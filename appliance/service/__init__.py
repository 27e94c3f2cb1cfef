"""The daemon as a systemd service of this installation."""

__all__ = ["installation"]
