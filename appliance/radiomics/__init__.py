"""From a reference volume and its mask to the selected features."""

__all__ = ["compiled", "extract", "grid", "mesh", "moved", "nifti", "parameters", "phantom"]
