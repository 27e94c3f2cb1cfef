"""The slices of a series in order of position, and how near to a slice a contour or a frame must lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.geometry import normal_of
from lungstage.appliance.dicom.header import ImageHeader

Floats = npt.NDArray[np.float64]

# A contour lies on a slice if its distance is at most this (mm), and at most a fifth of the slice spacing.
_PLANE_TOLERANCE = 0.1
_PLANE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Stack:
    """The slices of a series that have a position, ascending along one normal, and whether others have none."""

    images: tuple[ImageHeader, ...]
    depths: Floats
    normal: Floats
    others: bool

    @classmethod
    def of(cls, images: Sequence[ImageHeader], drawn_on: frozenset[str] = frozenset()) -> Stack:
        """Stack images of one orientation: the commonest among those in `drawn_on` (SOP Instance UIDs), else of all."""
        slices = [image for image in images if image.is_ct_slice]
        placed = [image for image in slices if image.position and image.orientation and image.pixel_spacing]
        others = len(placed) < len(slices)
        if not placed:
            raise Refused(
                ReasonCode.GEOMETRY_MISSING,
                "The CT slices have no usable position, orientation or pixel spacing (Image Position, 0020,0032; Image "
                "Orientation, 0020,0037; Pixel Spacing, 0028,0030). Send the original CT series from the PACS.",
            )
        # A single image of another orientation must not change the stack's; if it is needed, it is reported missing.
        told = [image for image in placed if image.sop_instance_uid in drawn_on] or placed
        facing = Counter(tuple(np.round(image.orientation, 3)) for image in told)
        common = max(sorted(facing), key=lambda orientation: facing[orientation])
        placed = [image for image in placed if np.allclose(image.orientation, common, atol=2e-3)]
        normal = normal_of(placed[0])
        depths = np.array([float(np.dot(normal, image.position)) for image in placed])
        order = sorted(range(len(placed)), key=lambda k: (depths[k], placed[k].sop_instance_uid, placed[k].frame))
        return cls(tuple(placed[k] for k in order), depths[order], normal, others)

    def nearest(self, depth: float) -> int:
        """Index of the slice nearest to a depth (mm)."""
        return int(np.abs(self.depths - depth).argmin())

    def within(self, reach: float, depth: float) -> list[int]:
        """Return the indices of the slices at most `reach` (mm) from a depth."""
        return [int(k) for k in np.flatnonzero(np.abs(self.depths - depth) <= reach)]

    def step(self) -> float:
        """Return the most common distance between neighbouring positions in mm; 0 for a single slice."""
        gaps = np.round(np.diff(self.depths), 2)
        gaps = gaps[gaps > 0]
        if not gaps.size:
            return 0.0
        values, counts = np.unique(gaps, return_counts=True)
        return float(values[counts.argmax()])

    def tolerance(self) -> float:
        """Largest allowed distance (mm) of a contour or a frame from the plane of its slice."""
        step = self.step()
        return min(_PLANE_TOLERANCE, _PLANE_SHARE * step) if step else _PLANE_TOLERANCE
