"""The documents: the structured report, the segmentation beside it, and how both get into the outbox."""
