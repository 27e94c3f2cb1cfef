"""A site's acceptance checks before the first use and after changes: ``docs/commissioning.md``."""

__all__ = ["protocol", "sheet", "statistics", "verdict"]
