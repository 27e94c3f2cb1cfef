"""What differs between a report of then and the one that comes out now, each difference by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lungstage.appliance.report.readback import Account

# Elements of a report that are this software's own; all others are taken over from the CT.
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
    """One thing that is not as it was.

    Attributes
    ----------
    what
        Of which kind, in a word (docs/audit.md lists them).
    message
        One plain sentence, without anything that names a patient.
    subject
        The instance, feature or element that it is about.
    then, now
        Both values, where they may be told.
    """

    what: str
    message: str
    subject: str | None = None
    then: Any = None
    now: Any = None


def changed(what: str, name: str, then: Any, now: Any, subject: str | None = None) -> Change:
    """Say that a value is another one now."""
    return Change(what, f"{name[0].upper()}{name[1:]}: {then} then, {now} now.", subject, then, now)


def of_accounts(then: Account, now: Account) -> Iterator[Change]:
    """Compare what two reports say; what they were made with is left to who made the second one."""
    if then.library != now.library:
        yield changed("library_version", "highdicom", then.library, now.library)
    if then.parameters != now.parameters and then.bundle_digest == now.bundle_digest:
        yield changed("parameters", "algorithm parameters", _less(then.parameters, now), _less(now.parameters, then))
    if then.slices != now.slices:
        yield changed("slices_used", "slices measured", len(then.slices), len(now.slices))
    if (then.roi, then.roi_label) != (now.roi, now.roi_label):
        yield changed("roi_chosen", "region of interest measured", then.roi, now.roi)
    if (then.before, then.behind) != (now.before, now.behind):
        lengths = (f"{len(one.before)} before and {len(one.behind)} behind" for one in (then, now))
        yield changed("slices_used", "slices beside those measured", *lengths)
    if then.warnings != now.warnings:
        yield changed("warnings", "warnings", list(then.warnings), list(now.warnings))
    if then.answer != now.answer:
        yield changed("answer", "answer", then.answer, now.answer)
    if then.probability != now.probability:
        yield changed("probability", "probability in %", then.probability, now.probability)
    if then.predictive_value != now.predictive_value:
        what = "chance in % that the answer is right"
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
            yield Change(what, f"{name} is a {what} {'no more' if name in then else 'only now'}.", name)
        elif then[name] != now[name]:
            yield changed(what, f"{what} {name}", then[name], now[name], name)


def of_headers(then: Dataset, now: Dataset) -> Iterator[Change]:
    """Name what two reports take over from different headers of the CT; a patient's values are not told."""
    keywords = {element.keyword for dataset in (then, now) for element in dataset} - _OWN
    for keyword in sorted(keywords):
        if then.get(keyword) != now.get(keyword):
            yield Change("ct_header", f"{keyword}, taken over from the CT's header, is another now.", keyword)
    if then.ContributingEquipmentSequence[0] != now.ContributingEquipmentSequence[0]:
        yield Change("ct_header", "What the CT's header says of the scanner is another now.", "equipment")


def of_elements(then: Dataset, now: Dataset, at: str = "") -> Iterator[Change]:
    """Name every element in which two reports of the same UID differ, by its place."""
    for tag in sorted({*then.keys(), *now.keys()}):
        here, there = then.get(tag), now.get(tag)
        element = here if here is not None else there
        place = f"{at}{element.keyword or tag}"
        if here is None or there is None:
            yield Change("element", f"{place} is there {'only then' if there is None else 'only now'}.", place)
        elif here.VR == "SQ":
            for index, (item, other) in enumerate(zip_longest(here.value, there.value)):
                if item is None or other is None:
                    yield Change("element", f"{place} has {len(here.value)} items then, {len(there.value)} now.", place)
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
        yield Change("mask", f"The region's mask differs from that of then in {voxels} voxels.", None, None, voxels)


def _frames(segmentation: Dataset) -> dict[tuple[float, ...], npt.NDArray[np.bool_]]:
    """Each frame by the place where it lies."""
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns) > 0
    groups = segmentation.PerFrameFunctionalGroupsSequence
    places = (group.PlanePositionSequence[0].ImagePositionPatient for group in groups)
    return {tuple(map(float, place)): frame for place, frame in zip(places, pixels, strict=True)}
