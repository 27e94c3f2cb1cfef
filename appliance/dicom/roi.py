"""Regions of interest: read from RTSTRUCT or SEG. Which of them is measured is :mod:`dicom.choice`'s to say."""

from __future__ import annotations

from functools import lru_cache

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.dicom.files import is_of_the_disk, read_unchanged
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.segments import segmentation_regions
from lungstage.appliance.dicom.structure_set import structure_set_regions


# A case is planned again whenever one of its slices arrives; its RTSTRUCT, which stays the same, may hold a million
# coordinates. The header bears a digest of the content, so a file that changed is another entry.
@lru_cache(maxsize=4)
def load_regions(source: RoiHeader) -> tuple[Region, ...]:
    """Read every region that an RTSTRUCT or SEG holds.

    Raises
    ------
    Refused
        ``roi_unreadable``, ``seg_fractional`` or ``seg_grid_mismatch``.
    """
    try:
        dataset = read_unchanged(source)
        read = structure_set_regions if source.kind == "RTSTRUCT" else segmentation_regions
        return read(dataset, source)
    except (Refused, Unavailable):
        raise
    except Exception as error:  # hostile bytes: whatever the decoder raises, the file is at fault
        if is_of_the_disk(error):
            raise
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            f"{source.kind} {source.sop_instance_uid} cannot be read. Export it again from other software.",
        ) from error
