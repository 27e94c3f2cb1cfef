"""Elements that distinguish acquisitions or reconstructions in the same series.

Some scanners and archives store two of them under one Series Instance UID: the same positions, but other voxels.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress

from pydicom.dataset import Dataset

from lungstage.appliance.dicom.header import ImageHeader
from lungstage.appliance.dicom.values import text

TELLING = (
    ("ConvolutionKernel", "Convolution Kernel (0018,1210)"),
    ("ImageType", "Image Type (0008,0008)"),
    ("KVP", "KVP (0018,0060)"),
    ("ReconstructionDiameter", "Reconstruction Diameter (0018,1100)"),
    ("TemporalPositionIdentifier", "Temporal Position Identifier (0020,0100)"),
    ("AcquisitionNumber", "Acquisition Number (0020,0012)"),
)
"""Keywords of these elements, and their names in a message."""

_OF_THE_WHOLE = len(TELLING) - 1  # a step-and-shoot scan gives each slice its own Acquisition Number


def acquisition_of(dataset: Dataset) -> tuple[str, ...]:
    """Hash the elements of :data:`TELLING`; empty if absent. Their values are a vendor's free text."""
    return tuple(_hash(dataset, keyword) for keyword, _ in TELLING)


def _hash(dataset: Dataset, keyword: str) -> str:
    try:
        value = text(dataset, keyword)
    except ValueError:  # a wrong Value Representation is no reason to refuse the file
        return ""
    with suppress(ValueError):
        value = str(float(value))  # 120 and 120.0 are one tube voltage
    return _digest(value) if value else ""


@functools.lru_cache(maxsize=1024)  # the slices of a series have the same values
def _digest(value: str) -> str:
    return hashlib.blake2b(value.encode(errors="replace"), digest_size=4).hexdigest()


def of_one_acquisition(
    images: Sequence[ImageHeader], drawn_on: frozenset[str], listed: frozenset[str]
) -> tuple[ImageHeader, ...]:
    """Leave out images of another acquisition than the images that a region was drawn on.

    Parameters
    ----------
    images
        Images of one series.
    drawn_on
        SOP Instance UIDs of the images that the region refers to; empty if there are none.
    listed
        SOP Instance UIDs of the images that its object lists.

    Returns
    -------
    tuple of ImageHeader
        Left out are images that differ from all images of the region in the elements that a reconstruction has in
        common. If the object lists images, unlisted images that differ in any of the elements are left out too.
    """
    known = {image.acquisition for image in images if image.sop_instance_uid in (drawn_on or listed)}
    if not known or len({image.acquisition for image in images}) == 1:
        return tuple(images)

    def belongs(image: ImageHeader) -> bool:
        if image.sop_instance_uid in drawn_on:
            return True
        compared = None if listed and image.sop_instance_uid not in listed else _OF_THE_WHOLE
        return any(_says_no_other(image.acquisition[:compared], other[:compared]) for other in known)

    return tuple(filter(belongs, images))


def _says_no_other(one: Sequence[str], known: Sequence[str]) -> bool:
    """Whether the values of an image agree with those of a known one; missing values are ignored."""
    return all(not said or said == of_known for said, of_known in zip(one, known, strict=True))


def telling_apart(images: Iterable[ImageHeader]) -> str:
    """Name the elements of :data:`TELLING` in which images differ, for a message; empty if they do not differ."""
    columns = zip(*(image.acquisition for image in images), strict=True)
    return " and ".join(name for (_, name), values in zip(TELLING, columns, strict=False) if len(set(values)) > 1)
