"""What a radiologist would say of a tumour, computed from a volume and a mask: size, texture, outline, surroundings."""

__all__ = ["calibration", "definitions", "describe", "outline", "shape", "size", "values"]
