"""Contours made here, on generated studies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lungstage.appliance.dicom.contours import RegionReference
from lungstage.appliance.report.contour import Contour, Origin, build_contour

NOON = datetime(2026, 2, 3, 12, 0, tzinfo=timezone(timedelta(hours=1)))
ORIGIN = Origin("diameter to contour", "1.2", "lungstage", account=(("diameter", "1,2,3 4,5,6 mm"),))


def region(dataset: Dataset, number: int = 1) -> RegionReference:
    """Name a region of an RTSTRUCT or SEG."""
    uids = (dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID)
    return RegionReference(*map(str, uids), number)


def contour_of(
    slices: Sequence[Dataset],
    mask: npt.NDArray[np.bool_],
    by: str | None = "Roe^Jane",
    supersedes: Sequence[RegionReference] = (),
    name: str = "GTV-1",
    created: datetime = NOON,
) -> Contour:
    return Contour(tuple(slices), mask, name, ORIGIN, created, "0.0", by, tuple(supersedes))


def contour_seg(
    slices: Sequence[Dataset],
    mask: npt.NDArray[np.bool_],
    by: str | None = "Roe^Jane",
    supersedes: Sequence[RegionReference] = (),
    name: str = "GTV-1",
) -> Dataset:
    """A contour as in the inbox; if `by` is None, it is a draft."""
    segmentation: Dataset = build_contour(contour_of(slices, mask, by, supersedes, name))
    return segmentation
