"""References of a ROI object to the images, or frames of images, that its parts were drawn on."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

Reference = tuple[str, int]
"""SOP Instance UID of an image and the number of one of its frames; 0 means no frame, and an empty UID no image."""


def frame_numbers(image: Dataset) -> tuple[int, ...]:
    """Return the Referenced Frame Numbers of a reference to an image; () if it means all frames, or has none."""
    value = image.get("ReferencedFrameNumber")
    if value is None or isinstance(value, str):
        return ()
    return tuple(int(number) for number in (value if isinstance(value, Iterable) else [value]))


def image_references(images: Iterable[Dataset]) -> tuple[Reference, ...]:
    """Return the images, or frames of them, in a sequence of references, each once."""
    return tuple(dict.fromkeys(reference for image in images if (reference := _reference(image))[0]))


def _reference(image: Dataset) -> Reference:
    numbers = frame_numbers(image)
    uid = str(image.get("ReferencedSOPInstanceUID") or "").strip()
    return uid, max(numbers[0], 0) if len(numbers) == 1 else 0


def source_images(frame: Dataset) -> tuple[Reference, ...]:
    """Return the images that a SEG frame was derived from, according to its functional groups.

    Early versions of pydicom-seg wrote them into the frame's item itself (pydicom-seg#20).
    """
    holders = (*(frame.get("DerivationImageSequence") or ()), frame)
    return image_references(source for item in holders for source in item.get("SourceImageSequence") or ())
