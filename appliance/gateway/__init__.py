"""The DICOM network: a process of its own that fills the inbox and sends what lies in the outbox."""

__all__ = ["administration", "server", "settings"]
