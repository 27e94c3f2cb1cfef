"""The DICOM network: a separate process that fills the inbox and sends the documents of the outbox."""

__all__ = ["administration", "server", "settings"]
