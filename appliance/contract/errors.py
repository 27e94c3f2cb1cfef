"""Errors and reason codes, sorted by cause.

* :class:`Refused`: the data or the bundle is wrong. The same data is not tried again.
* :class:`Held`: something is missing that can still arrive, or something is in the way. The case continues by itself.
* :class:`Unavailable`: a disk or a destination does not answer at the moment. It is tried again, at growing intervals.
* :class:`Damaged`: the data that lungstage itself stored is damaged. The daemon ends.

Any other exception is an internal error of lungstage, and is never hidden. The reason codes are stable;
``docs/reason-codes.md`` explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ReasonCode(StrEnum):
    """Machine-readable causes of a refusal, a hold or a withheld answer. They are stable across releases."""

    # Nothing to work on, or too much of it
    NO_DICOM = "no_dicom"
    NOT_CT = "not_ct"
    NO_ROI = "no_roi"
    AMBIGUOUS_INPUT = "ambiguous_input"
    # Files
    DICOM_UNREADABLE = "dicom_unreadable"
    PIXEL_DATA_UNREADABLE = "pixel_data_unreadable"
    CONFLICTING_INSTANCES = "conflicting_instances"
    NIFTI_INVALID = "nifti_invalid"
    # Identity
    PATIENT_MISMATCH = "patient_mismatch"
    STUDY_MISMATCH = "study_mismatch"
    # References and completeness
    CT_MISSING = "ct_missing"
    SLICES_MISSING = "slices_missing"
    REFERENCES_UNRESOLVED = "references_unresolved"
    MORE_MAY_COME = "more_may_come"
    # Geometry
    GEOMETRY_MISSING = "geometry_missing"
    FRAME_OF_REFERENCE_MISMATCH = "frame_of_reference_mismatch"
    ORIENTATION_VARIES = "orientation_varies"
    GANTRY_TILT = "gantry_tilt"
    SPACING_NOT_UNIFORM = "spacing_not_uniform"
    DUPLICATE_POSITION = "duplicate_position"
    GRID_VARIES = "grid_varies"
    RESCALE_VARIES = "rescale_varies"
    # Region of interest
    ROI_NOT_FOUND = "roi_not_found"
    ROI_AMBIGUOUS = "roi_ambiguous"
    ROI_DISAGREE = "roi_disagree"
    ROI_REJECTED = "roi_rejected"
    CONTOUR_NOT_CONFIRMED = "contour_not_confirmed"
    PROMPT_UNSUITABLE = "prompt_unsuitable"
    ROI_EMPTY = "roi_empty"
    ROI_TOO_SMALL = "roi_too_small"
    ROI_UNREADABLE = "roi_unreadable"
    ROI_OUTSIDE_SERIES = "roi_outside_series"
    CONTOUR_NOT_CLOSED = "contour_not_closed"
    CONTOUR_OFF_SLICE = "contour_off_slice"
    CONTOURS_SKIP_SLICES = "contours_skip_slices"
    CONTOURS_OVERLAP = "contours_overlap"
    SEG_GRID_MISMATCH = "seg_grid_mismatch"
    SEG_FRACTIONAL = "seg_fractional"
    MASK_MISMATCH = "mask_mismatch"
    PADDING_IN_ROI = "padding_in_roi"
    # Limits within which the model may answer
    OUTSIDE_INTENDED_USE = "outside_intended_use"
    ANSWER_NOT_ROBUST = "answer_not_robust"
    # Settings and specifications
    SPEC_UNSUPPORTED = "spec_unsupported"
    # Feature tables
    TABLE_INVALID = "table_invalid"
    # The daemon
    LIMITS_EXCEEDED = "limits_exceeded"
    SUPERSEDED = "superseded"
    OUTBOX_OCCUPIED = "outbox_occupied"
    INTERNAL_ERROR = "internal_error"
    # Replay of reports
    NOT_A_REPORT = "not_a_report"
    # Bundles
    BUNDLE_UNREADABLE = "bundle_unreadable"
    BUNDLE_UNSIGNED = "bundle_unsigned"
    BUNDLE_SIGNATURE_INVALID = "bundle_signature_invalid"
    BUNDLE_HASH_MISMATCH = "bundle_hash_mismatch"
    BUNDLE_INVALID = "bundle_invalid"
    BUNDLE_SELF_TEST_FAILED = "bundle_self_test_failed"
    WORTH_NOT_SHOWN = "worth_not_shown"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a case was not staged.

    Attributes
    ----------
    code
        Machine-readable cause.
    message
        Plain sentences for a person. They may contain UIDs, counts, and the names of regions that
        :mod:`dicom.names` allows; they never contain a patient's identity.
    """

    code: ReasonCode
    message: str


_LONGEST = 80  # characters of a name in a message; a name can have thousands


class LungstageError(Exception):
    """Base of every error that lungstage raises on purpose."""


class _WithReason(LungstageError):
    """An error with a reason, and the names of the regions it is about; the reason may not show all of these names."""

    def __init__(self, code: ReasonCode, message: str, regions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)
        self.regions = regions

    def __reduce__(self) -> tuple[type, tuple[ReasonCode, str, tuple[str, ...]]]:  # for sending between processes
        return type(self), (self.reason.code, self.reason.message, self.regions)

    def in_full(self) -> Reason:
        """Return the reason with the names of all regions, for the owner of the data."""
        hidden = sorted(name for name in self.regions if f"'{name}'" not in self.reason.message)
        names = ", ".join(f"'{name[:_LONGEST]}{'…' if len(name) > _LONGEST else ''}'" for name in hidden)
        return (
            Reason(self.reason.code, f"{self.reason.message} Names of the regions: {names}.") if hidden else self.reason
        )


class Refused(_WithReason):
    """The data or the bundle is wrong; the same bytes will be refused again."""


class Held(_WithReason):
    """Something needed has not arrived; the case continues by itself when it arrives."""


class Unavailable(LungstageError):
    """A disk or a destination does not answer at the moment; the same job is tried again later."""


class Damaged(Unavailable):
    """Data that lungstage itself stored is damaged; a new attempt can succeed only after a person has restored it."""


class ExhaustedError(LungstageError):
    """A process was ended by its task: the task took too much memory or time, or crashed the process."""


class KilledError(ExhaustedError):
    """A process was ended by SIGKILL, by a person or by a kernel short of memory; so its task may not be the cause."""


class DefectError(Exception):
    """An internal error in another process; :attr:`defect` holds what :func:`config.logs.defect` reports there."""

    def __init__(self, defect: Mapping[str, str]) -> None:
        super().__init__(defect["error"])
        self.defect = dict(defect)


class ExitStatus(IntEnum):
    """Exit status of every command of the three packages."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    REFUSED = 3
    UNAVAILABLE = 4
