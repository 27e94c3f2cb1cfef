"""Find the regions that are superseded by a confirmed contour made by lungstage.

Only such a contour supersedes regions, and only those that it names (:mod:`dicom.contours`). References in other
software's objects do not supersede anything, and a draft does not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.contours import Confirmation
from lungstage.appliance.dicom.header import RoiHeader

Named = tuple[str, int]
"""SOP Instance UID of an object, and the ROI or Segment Number of one of its regions."""

Successors = dict[str, frozenset[Named]]
"""The regions that each successor names, by its SOP Instance UID. A contour by lungstage contains only one region."""


def is_draft(roi: RoiHeader) -> bool:
    """Whether it is an unconfirmed contour made by lungstage."""
    return bool(roi.confirmation) and roi.confirmation != Confirmation.CONFIRMED


def is_confirmed(roi: RoiHeader) -> bool:
    """Whether it is a contour made by lungstage that a person confirmed, and that no review rejected."""
    return roi.confirmation == Confirmation.CONFIRMED and roi.approval != "REJECTED"


def successors(rois: Iterable[RoiHeader]) -> Successors:
    """Find the contours that supersede regions: confirmed, and not rejected in a review."""
    return {
        roi.sop_instance_uid: frozenset(name for name in roi.supersedes if name[0] != roi.sop_instance_uid)
        for roi in rois
        if is_confirmed(roi) and roi.supersedes
    }


def superseded(found: Successors) -> frozenset[Named]:
    """Return all superseded regions: those that a successor names, directly or through other successors.

    A predecessor may be missing.

    Raises
    ------
    Refused
        ``ambiguous_input``: two contours replace the same region, and neither names the other; or contours name each
        other in a circle.
    """
    gone = frozenset(name for names in found.values() for name in names)
    last = sorted(uid for uid in found if uid not in {named for named, _ in gone})
    ancestors = {uid: _ancestors(uid, found) for uid in last}
    if found and not set(found) <= {*last, *(named for names in ancestors.values() for named, _ in names)}:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            "Confirmed contours name each other as predecessors, so none of them is the latest: SEG "
            f"{_listed(sorted(found))}. Confirm the right one again, and remove these.",
        )
    for k, one in enumerate(last):
        for other in last[k + 1 :]:
            shared = sorted(ancestors[one] & ancestors[other])
            if shared:
                uid, number = shared[0]
                raise Refused(
                    ReasonCode.AMBIGUOUS_INPUT,
                    f"Two confirmed contours replace the same region (number {number} of {uid}), and neither "
                    f"names the other: SEG {one} and SEG {other}. Look at both over the CT. Then confirm one that "
                    "names both, or remove the wrong one.",
                )
    return gone


def _ancestors(uid: str, found: Successors) -> frozenset[Named]:
    """Return all predecessors, direct and indirect."""
    seen: set[Named] = set()
    ahead = list(found[uid])
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += found.get(name[0], ())
    return frozenset(seen)


def _listed(uids: Sequence[str]) -> str:
    return ", ".join(uids)
