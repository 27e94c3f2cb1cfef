"""Choosing features: GL-RFE, how it rates them, and the selectors it is compared with."""

__all__ = ["classifiers", "elimination", "importance", "registry", "screening"]
