"""What is done to studies on their way, as functions that can be put together, each with what is right to say of it."""

from tests.support.transformations import of_contours, of_ct, of_files, of_segment
from tests.support.transformations.registry import EVERY, Phase, Right, Transformation, transformed
from tests.support.transformations.study import Files, Truth, Unfit

__all__ = ["EVERY", "Files", "Phase", "Right", "Transformation", "Truth", "Unfit", "transformed"]

_REGISTERED = (of_contours, of_ct, of_files, of_segment)  # each registers its own
