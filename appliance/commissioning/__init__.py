"""What a hospital does before it lets the appliance answer, and again at intervals: ``docs/commissioning.md``."""

__all__ = ["protocol", "sheet", "statistics", "verdict"]
