"""From a reference volume and its mask to the selected features."""

__all__ = ["compiled", "components", "extract", "grid", "mesh", "moved", "nifti", "parameters", "phantom"]
