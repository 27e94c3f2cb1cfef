"""What the daemon and the processes that work for it hand each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungstage.appliance.contract.spec import Engine
from lungstage.appliance.model.bundle_files import BundleFiles
from lungstage.appliance.report.outbox import Document

SCRATCH_PREFIX = "rehearsal-"
"""Beginning of the names of folders that hold a phantom study for a moment."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a process is set up with.

    Attributes
    ----------
    files
        The bundle's files, each read once.
    engine
        What computes the features.
    scratch
        Folder for the phantom study of the rehearsal.
    """

    files: BundleFiles
    engine: Engine
    scratch: Path


@dataclass(frozen=True, slots=True)
class SealedPlan:
    """A plan in the form in which the daemon keeps it until it is staged: unopened and small.

    Attributes
    ----------
    fingerprint
        Of :class:`staging.pipeline.Plan`.
    content
        The plan, pickled and compressed: masks are almost all zeros.
    instances
        What it needs, for the audit log: of :class:`staging.pipeline.Plan`.
    """

    fingerprint: str
    content: bytes
    instances: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a plan that was staged.

    Attributes
    ----------
    outcome
        Under the keys of the command contract.
    documents
        In order of delivery, the SR last.
    """

    outcome: Mapping[str, Any]
    documents: tuple[Document, ...]
