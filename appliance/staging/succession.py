"""Which regions no longer count, because a contour that was made here and confirmed stands in their place.

Only such a contour supersedes anything, and only what it names (:mod:`dicom.contours`). What other software's objects
refer to says nothing about which of them is meant, and a draft says nothing either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.contours import Confirmation
from lungstage.appliance.dicom.header import RoiHeader

Named = tuple[str, int]
"""SOP Instance UID of an object, and the ROI or Segment Number of one of its regions."""

Successors = dict[str, frozenset[Named]]
"""By SOP Instance UID, what each successor names; a contour made here holds one region, so the UID stands for it."""


def is_draft(roi: RoiHeader) -> bool:
    """Whether it is a contour made here that nobody has confirmed."""
    return bool(roi.confirmation) and roi.confirmation != Confirmation.CONFIRMED


def successors(rois: Iterable[RoiHeader]) -> Successors:
    """Find the contours that supersede regions: confirmed, and not rejected by whoever reviewed them."""
    return {
        roi.sop_instance_uid: frozenset(name for name in roi.supersedes if name[0] != roi.sop_instance_uid)
        for roi in rois
        if roi.confirmation == Confirmation.CONFIRMED and roi.approval != "REJECTED" and roi.supersedes
    }


def superseded(found: Successors) -> frozenset[Named]:
    """Return the regions in whose place another stands: whatever a successor names, and what that stands for in turn.

    A predecessor need not be there.

    Raises
    ------
    Refused
        ``ambiguous_input``: two contours stand in the place of one region, and neither in the other's; or contours name
        one another in a circle.
    """
    gone = frozenset(name for names in found.values() for name in names)
    last = sorted(uid for uid in found if uid not in {named for named, _ in gone})
    ancestors = {uid: _ancestors(uid, found) for uid in last}
    if found and not set(found) <= {*last, *(named for names in ancestors.values() for named, _ in names)}:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"Confirmed contours name one another as predecessors, so none is the last: SEG {_listed(sorted(found))}. "
            "Confirm the right one again, and remove these.",
        )
    for k, one in enumerate(last):
        for other in last[k + 1 :]:
            shared = sorted(ancestors[one] & ancestors[other])
            if shared:
                uid, number = shared[0]
                raise Refused(
                    ReasonCode.AMBIGUOUS_INPUT,
                    f"Two confirmed contours stand in the place of one region (number {number} of {uid}), and neither "
                    f"names the other: SEG {one} and SEG {other}. Look at both over the CT; then confirm one that "
                    "names both, or remove the wrong one.",
                )
    return gone


def _ancestors(uid: str, found: Successors) -> frozenset[Named]:
    """Follow predecessors as far as they are successors of others."""
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
