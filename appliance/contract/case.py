"""What is known of a case beside its images: clinical covariates, the region that a person chose, the report before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Values = Mapping[str, float | str]
"""The covariates that are known, by name: age in years, sex as M, F or O (other), histology as a word."""


@dataclass(frozen=True, slots=True)
class KnownCovariates:
    """What is known of a case's covariates, as far as the model takes them.

    Attributes
    ----------
    values
        The known ones, in the model's order.
    missing
        The others, which the graph imputes.
    warnings
        Plain sentences for the reader, without a value in them.
    """

    values: Values = field(default_factory=lambda: MappingProxyType({}))
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say what was used, for the report."""
        said = (f"{v:.4g} a" if isinstance(v, float) else v for v in self.values.values())
        used = ", ".join(map(" ".join, zip(self.values, said, strict=True))) or "none"
        missing = f"; missing, with the training median in place: {', '.join(self.missing)}" if self.missing else ""
        return f"Covariates used: {used}{missing}."


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A report that another one follows: of the same series, before its region, slices or model were replaced."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class RegionChoice:
    """The region that a person chose where no rule could.

    Attributes
    ----------
    roi
        SOP Instance UID of the RTSTRUCT or SEG that it is in.
    number
        Its ROI Number or Segment Number there.
    """

    roi: str
    number: int
