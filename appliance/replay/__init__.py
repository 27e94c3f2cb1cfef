"""A report made again from its originals, bit for bit, or what has changed since."""

__all__ = ["originals", "reproduce"]
