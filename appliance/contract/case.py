"""What is known about a case besides its images: covariates, the region that a person chose, the previous report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Values = Mapping[str, float | str]
"""Known covariates by name: age in years, sex as M, F or O (other), histology as a word."""


@dataclass(frozen=True, slots=True)
class KnownCovariates:
    """The covariates of a case that the model uses.

    Attributes
    ----------
    values
        The known ones, in the model's order.
    missing
        The others; the graph imputes them.
    warnings
        Plain sentences for the reader. They contain no values.
    """

    values: Values = field(default_factory=lambda: MappingProxyType({}))
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Describe for the report which covariates were used."""
        said = (f"{v:.4g} a" if isinstance(v, float) else v for v in self.values.values())
        used = ", ".join(map(" ".join, zip(self.values, said, strict=True))) or "none"
        missing = f"; missing, with the training median in place: {', '.join(self.missing)}" if self.missing else ""
        return f"Covariates used: {used}{missing}."


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The previous report of the same series, from before its region, slices or model were replaced."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class RegionChoice:
    """The region that a person chose because no rule could choose one.

    Attributes
    ----------
    roi
        SOP Instance UID of its RTSTRUCT or SEG.
    number
        Its ROI Number or Segment Number there.
    """

    roi: str
    number: int
