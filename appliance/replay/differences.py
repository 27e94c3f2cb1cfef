"""The differences between an old report and the same report made again, each by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lungstage.appliance.report.readback import Account

# Elements of a report that this software writes itself. All others are copied from the CT.
_OWN: Final = frozenset(
    {
        "InstanceCreationDate", "InstanceCreationTime", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID",
        "SeriesDate", "SeriesTime", "ContentDate", "ContentTime", "SeriesDescription", "DeviceSerialNumber",
        "SoftwareVersions", "ContentSequence", "CurrentRequestedProcedureEvidenceSequence",
        "ContributingEquipmentSequence",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes
    ----------
    what
        The kind of difference, in one word (docs/audit.md lists them).
    message
        One sentence without any data that could name a patient.
    subject
        The instance, feature or element that differs.
    then, now
        Both values, if they contain no patient data.
    """

    what: str
    message: str
    subject: str | None = None
    then: Any = None
    now: Any = None


def changed(what: str, name: str, then: Any, now: Any, subject: str | None = None) -> Change:
    """Return the change of a value."""
    return Change(what, f"{name[0].upper()}{name[1:]}: was {then}, is now {now}.", subject, then, now)


def of_accounts(then: Account, now: Account) -> Iterator[Change]:
    """Compare the content of two reports. The caller compares software and bundle."""
    if then.library != now.library:
        yield changed("library_version", "highdicom", then.library, now.library)
    if then.parameters != now.parameters and then.bundle_digest == now.bundle_digest:
        yield changed("parameters", "algorithm parameters", _less(then.parameters, now), _less(now.parameters, then))
    if then.slices != now.slices:
        yield changed("slices_used", "slices measured", len(then.slices), len(now.slices))
    if (then.roi, then.roi_label) != (now.roi, now.roi_label):
        yield changed("roi_chosen", "region of interest measured", then.roi, now.roi)
    if (then.before, then.behind) != (now.before, now.behind):
        lengths = (f"{len(one.before)} before and {len(one.behind)} after" for one in (then, now))
        yield changed("slices_used", "slices beside those measured", *lengths)
    if then.warnings != now.warnings:
        yield changed("warnings", "warnings", list(then.warnings), list(now.warnings))
    if then.answer != now.answer:
        yield changed("answer", "answer", then.answer, now.answer)
    if then.probability != now.probability:
        yield changed("probability", "probability in %", then.probability, now.probability)
    if then.predictive_value != now.predictive_value:
        what = "probability in % that the answer is right"
        yield changed("predictive_value", what, then.predictive_value, now.predictive_value)
    yield from _of_values("robustness", then.robustness, now.robustness)
    yield from _of_values("variation", then.variations, now.variations)
    yield from _of_values("descriptor", then.descriptors, now.descriptors)
    yield from _of_values("feature", then.features, now.features)
    yield from _of_values("contribution", then.contributions, now.contributions)


def _less(parameters: tuple[str, ...], other: Account) -> list[str]:
    return [text for text in parameters if text not in other.parameters]


def _of_values(what: str, then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Change]:
    for name in dict.fromkeys((*then, *now)):
        if name not in then or name not in now:
            yield Change(what, f"The {what} {name} is only in the {'old' if name in then else 'new'} report.", name)
        elif then[name] != now[name]:
            yield changed(what, f"{what} {name}", then[name], now[name], name)


def of_headers(then: Dataset, now: Dataset) -> Iterator[Change]:
    """List the elements that two reports copied from different CT headers, without the patient's values."""
    keywords = {element.keyword for dataset in (then, now) for element in dataset} - _OWN
    for keyword in sorted(keywords):
        if then.get(keyword) != now.get(keyword):
            yield Change("ct_header", f"{keyword}, which is copied from the CT header, has another value now.", keyword)
    if then.ContributingEquipmentSequence[0] != now.ContributingEquipmentSequence[0]:
        yield Change("ct_header", "The data of the scanner in the CT header are different now.", "equipment")


def of_elements(then: Dataset, now: Dataset, at: str = "") -> Iterator[Change]:
    """List the path of every element that differs between two reports with the same UID."""
    for tag in sorted({*then.keys(), *now.keys()}):
        here, there = then.get(tag), now.get(tag)
        element = here if here is not None else there
        place = f"{at}{element.keyword or tag}"
        if here is None or there is None:
            yield Change("element", f"{place} is only in the {'old' if there is None else 'new'} report.", place)
        elif here.VR == "SQ":
            for index, (item, other) in enumerate(zip_longest(here.value, there.value)):
                if item is None or other is None:
                    yield Change(
                        "element", f"{place} had {len(here.value)} items, and has {len(there.value)} now.", place
                    )
                    break
                yield from of_elements(item, other, f"{place}[{index}].")
        elif here != there:
            yield Change("element", f"{place} differs.", place)


def of_masks(then: Dataset, now: Dataset) -> Iterator[Change]:
    """Count the voxels in which two segmentations differ."""
    before, after = _frames(then), _frames(now)
    voxels = 0
    for place in {*before, *after}:
        a, b = (frames.get(place, np.zeros((1, 1), dtype=bool)) for frames in (before, after))
        voxels += int(np.count_nonzero(a != b))
    if voxels:
        yield Change("mask", f"The region's mask differs from the old one in {voxels} voxels.", None, None, voxels)


def _frames(segmentation: Dataset) -> dict[tuple[float, ...], npt.NDArray[np.bool_]]:
    """Return each frame by its position."""
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns) > 0
    groups = segmentation.PerFrameFunctionalGroupsSequence
    places = (group.PlanePositionSequence[0].ImagePositionPatient for group in groups)
    return {tuple(map(float, place)): frame for place, frame in zip(places, pixels, strict=True)}
