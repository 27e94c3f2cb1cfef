"""Regions of interest, read from an RTSTRUCT or SEG. :mod:`dicom.choice` chooses the one to measure."""

from __future__ import annotations

from functools import lru_cache

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.dicom.files import is_of_the_disk, read_unchanged
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.segments import segmentation_regions
from lungstage.appliance.dicom.structure_set import structure_set_regions


# A case is planned again each time one of its slices arrives, while its RTSTRUCT stays the same and may hold a million
# coordinates. The header contains a digest of the content, so a changed file is a new entry.
@lru_cache(maxsize=4)
def load_regions(source: RoiHeader) -> tuple[Region, ...]:
    """Read all regions of an RTSTRUCT or SEG.

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
    except Exception as error:  # hostile bytes: any error of the decoder is an error of the file
        if is_of_the_disk(error):
            raise
        raise Refused(
            ReasonCode.ROI_UNREADABLE,
            f"{source.kind} {source.sop_instance_uid} cannot be read. Export it again from other software.",
        ) from error
