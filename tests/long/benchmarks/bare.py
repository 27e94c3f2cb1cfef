"""Code for both sides of a comparison, without any library: the other libraries' interpreters import it, too."""

from __future__ import annotations

import time
from collections.abc import Callable

STATED = tuple(
    f"original_{name}"
    for name in (
        "shape_Sphericity", "shape_Maximum3DDiameter", "firstorder_10Percentile", "firstorder_Entropy",
        "firstorder_Mean", "firstorder_Skewness", "glcm_Contrast", "glcm_Correlation", "glcm_Idm",
        "glcm_JointEntropy", "glcm_Imc1", "glrlm_RunLengthNonUniformity", "glszm_SizeZoneNonUniformity",
        "glszm_SmallAreaEmphasis", "gldm_DependenceEntropy",
    )
)  # fmt: skip
"""The fifteen features of the speed targets; they use every kernel except NGTDM."""


def milliseconds(work: Callable[[], object], seconds: float = 1.0, fewest: int = 3, most: int = 31) -> list[float]:
    """Time calls one by one, until `seconds` have passed or `most` calls are made, but at least `fewest`.

    The times are processor time of all threads. On one idle core this equals the clock time. If other work runs, it
    does not include the waiting, which could otherwise decide between two libraries with similar times.
    """
    times: list[float] = []
    while len(times) < fewest or (len(times) < most and sum(times) < 1000 * seconds):
        start = time.process_time()
        work()
        times.append(1000 * (time.process_time() - start))
    return times
