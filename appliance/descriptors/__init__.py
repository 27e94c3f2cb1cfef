"""Descriptors of a tumour in a radiologist's words, from a volume and a mask: size, texture, outline, surroundings."""

__all__ = ["calibration", "definitions", "describe", "outline", "shape", "size", "values"]
