"""Changes that studies get on their way, as functions that can be combined, each with its right result."""

from tests.support.transformations import of_contours, of_ct, of_files, of_segment
from tests.support.transformations.registry import EVERY, Phase, Right, Transformation, transformed
from tests.support.transformations.study import Files, Truth, Unfit

__all__ = ["EVERY", "Files", "Phase", "Right", "Transformation", "Truth", "Unfit", "transformed"]

_REGISTERED = (of_contours, of_ct, of_files, of_segment)  # each module registers its transformations
