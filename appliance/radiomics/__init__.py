"""From a reference volume and its mask to the selected features."""

__all__ = ["compiled", "extract", "grid", "moved", "nifti", "parameters", "phantom"]
