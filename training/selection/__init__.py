"""Feature selection: GL-RFE, its ratings of features, and the selectors that it is compared with."""

__all__ = ["classifiers", "elimination", "importance", "registry", "screening"]
