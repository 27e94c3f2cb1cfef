"""Parts of a model: preprocessing, networks, calibration, distance from the training cohort."""

__all__ = ["calibration", "classifier", "domain", "members", "network", "preprocessing"]
