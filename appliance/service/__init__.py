"""Install lungstage as systemd services."""

__all__ = ["installation"]
