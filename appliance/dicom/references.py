"""Which image, or which frame of it, a ROI object says that a part of it was drawn on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

Reference = tuple[str, int]
"""SOP Instance UID of an image and the number of one of its frames; 0 names none, and an empty UID no image."""


def frame_numbers(image: Dataset) -> tuple[int, ...]:
    """Return the Referenced Frame Numbers of a reference to an image; () where it means all frames, or has none."""
    value = image.get("ReferencedFrameNumber")
    if value is None or isinstance(value, str):
        return ()
    return tuple(int(number) for number in (value if isinstance(value, Iterable) else [value]))


def the_one_image(images: Sequence[Dataset]) -> Reference:
    """Return the one image, or the one frame of it, that a sequence of references names; several name none."""
    if len(images) != 1:
        return "", 0
    numbers = frame_numbers(images[0])
    uid = str(images[0].get("ReferencedSOPInstanceUID") or "").strip()
    return uid, max(numbers[0], 0) if len(numbers) == 1 else 0


def source_image(frame: Dataset) -> Reference:
    """Return the one image that a SEG frame's functional groups say it was derived from."""
    derivations = frame.get("DerivationImageSequence") or ()
    return the_one_image([source for item in derivations for source in item.get("SourceImageSequence") or ()])
