"""A study on its way through the daemon in simulated time; the measurement is compared with the truth.

The appliance's code reads, links, plans and makes the voxels, in this process; only the model is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.daemon.loop import Steps
from lungstage.appliance.dicom.cases import Case, assemble
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import Header, headers_from_json, headers_to_json
from lungstage.appliance.dicom.linking import POSITION_ALONE
from lungstage.appliance.model import manifest
from lungstage.appliance.report.headers import copied_header, warnings_of_text
from lungstage.appliance.report.outbox import encode
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.intended_use import prove_voxels
from lungstage.appliance.staging.measure import Stopwatch, measure
from tests.support.fake_steps import FakeAnswer, InProcess, document
from tests.support.simulated import House
from tests.support.transformations import Files, Truth

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Folder in memory for daemons' folders, as they need not survive a power cut; None: the usual folder."""

SETTLE, WAIT = 2.0, 20.0  # simulated seconds until a case is unchanged, and until missing neighbours count as missing
PAUSES = (0.0, 0.1, 1.0, SETTLE + 1, WAIT / 2, WAIT + 5)

_SPEC = ExtractionSpec(
    ("original_shape_MeshVolume",),
    {"binWidth": 25.0, "resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"},
)
_MODEL = Path(__file__).resolve().parents[2] / "models" / "lung1-stage" / "manifest.json"
_NEAR = 0.05  # of a voxel, for rounding
_NEAR_ALONG = 0.2  # positions of thin slices may be rounded to 0.1 mm, also the first position

Result = TypeVar("Result")


class ThirdThing(AssertionError):
    """The result is neither the truth nor a refusal."""


@dataclass(frozen=True)
class Measured:
    """A measured reference volume, with the statements of its report."""

    affine: npt.NDArray[np.float64]
    hu: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_]
    is_clipped: bool
    warnings: tuple[str, ...]
    name: str

    def difference(self, truth: Truth) -> str:
        """Return how this differs from the truth; empty if it does not."""
        if truth.mask is None:
            return "a number, where none is right"
        indices = self._places(truth)
        if isinstance(indices, str):
            return indices
        hu, mask = truth.hu[np.ix_(*indices)], truth.mask[np.ix_(*indices)]
        axes = [int(np.abs(self.affine[:3, column]).argmax()) for column in range(3)]
        mine = [2 - axis for axis in axes]  # for each of its axes, the index of the truth's axis
        hu, mask = hu.transpose(mine), mask.transpose(mine)
        if hu.shape != self.hu.shape or not np.array_equal(hu, self.hu):
            return (
                f"HU differ by up to {np.abs(hu - self.hu.astype(float)).max() if hu.shape == self.hu.shape else '?'}"
            )
        if (mask ^ self.mask).any() or mask.sum() != truth.mask.sum():
            return (
                f"{int((mask ^ self.mask).sum())} voxels of {int(truth.mask.sum())} differ, {int(mask.sum())} are here"
            )
        if self.is_clipped and not any("extrapolated" in warning for warning in self.warnings):
            return "a margin that is not there, and no warning"
        if not self.is_clipped and len(indices[0]) != truth.mask.any((1, 2)).sum() + 2:
            return f"{len(indices[0])} slices"
        return self._of_the_name(truth)

    def _places(self, truth: Truth) -> list[npt.NDArray[np.int64]] | str:
        """Return the index of each plane along the truth's three axes, in the order of measurement."""
        found: dict[int, npt.NDArray[np.int64]] = {}
        for column, count in enumerate(self.hu.shape):
            direction = self.affine[:3, column]
            axis = 2 - int(np.abs(direction).argmax())
            along, step = truth.places[axis], abs(truth.places[axis][1] - truth.places[axis][0])
            at = self.affine[2 - axis, 3] + direction[2 - axis] * np.arange(count)
            found[axis] = np.abs(along[None] - at[:, None]).argmin(axis=1)
            near = step * (_NEAR if axis else _NEAR_ALONG)
            if np.abs(along[found[axis]] - at).max() > near or len(set(found[axis].tolist())) != count:
                return f"voxels lie up to {np.abs(along[found[axis]] - at).max():.3g} mm elsewhere"
        return [found[axis] for axis in range(3)] if len(found) == 3 else "axes that are not those of the patient"

    def _of_the_name(self, truth: Truth) -> str:
        if self.name == (truth.name or ""):
            told = any("Patient's Name" in warning for warning in self.warnings)
            return "" if truth.name is not None or told else "a name is left out in silence"
        return f"the patient is called {self.name!r}"


@dataclass
class RealSteps:
    """The daemon's steps in this process; measurements and failures are recorded."""

    measured: list[Measured] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # codes of files

    def steps(self) -> Steps:
        """Return them in the form that the daemon needs."""
        return Steps(self._read, assemble, self._prepare, InProcess(self._stage), _no_phantom)  # type: ignore[arg-type]

    def _proven(self, do: Callable[[], Result]) -> Result:
        try:
            return do()
        except (Refused, Held) as reason:
            if not str(reason).endswith(".") or reason.reason.code in (ReasonCode.INTERNAL_ERROR,):
                self.defects.append(f"no sentence: {reason}")
            raise
        except Exception as error:  # also Unavailable, because no file changes here
            self.defects.append(f"{error!r}")
            raise

    def _read(self, path: Path) -> tuple[Header, ...]:
        def read() -> tuple[Header, ...]:
            headers = read_headers(path)
            assert headers_from_json(headers_to_json(headers), path) == headers
            return headers

        try:
            return self._proven(read)
        except Refused as refused:
            self.refused.append(refused.reason.code.value)
            raise

    def _prepare(self, case: Case, **given: Any) -> Any:
        return self._proven(lambda: pipeline.prepare(case, _bundle(), **given))

    def _stage(self, plan: pipeline.Plan, *, created: datetime, **_: object) -> FakeAnswer:
        def stage() -> FakeAnswer:
            measurement = measure(plan.regions, _SPEC, Stopwatch())
            source = measurement.voxels.datasets[0]
            warnings = plan.warnings + measurement.warnings + warnings_of_text(source)
            warnings += prove_voxels(measurement, _bundle().manifest.intended_use)
            volume = measurement.voxels.volume
            name = str(copied_header(source).get("PatientName") or "")
            self.measured.append(
                Measured(volume.affine, volume.array, measurement.mask, bool(measurement.slices.ending), warnings, name)
            )
            report = document("SR", f"2.25.{int(plan.fingerprint[:16], 16)}", created)
            outcome = {"status": "staged", "stage": "early", "warnings": list(warnings)}
            return FakeAnswer(json.loads(json.dumps(outcome)), (encode(report),))

        return self._proven(stage)


@lru_cache(maxsize=1)
def _bundle() -> Any:
    """The shipped bundle's limits and its ROI rule, with a single feature to measure."""
    return SimpleNamespace(manifest=manifest.parse(_MODEL.read_bytes()), spec=_SPEC)


def _no_phantom(folder: Path, study: str) -> str:
    raise AssertionError("no canary was asked for")


def blocks(files: Files) -> list[list[str]]:
    """Return the names of the files that a sender sends together: each series, and the region objects."""
    first = [name for k in range(12) if (name := f"ct-{k:03}.dcm") in files]
    parts = (first, [n for n in files if n.startswith("ct-") and n not in first], [n for n in files if n[:2] == "be"])
    others = [name for name in files if not name.startswith(("ct-", "be"))]
    return [part for part in (*parts, others) if part]


def send(
    files: Files, folder: Path, *, order: Sequence[str] | None = None, pauses: Sequence[float] = ()
) -> tuple[RealSteps, list[tuple[str, str]]]:
    """Copy files to the inbox, and wait until nothing more can happen.

    Parameters
    ----------
    files
        Their contents by name.
    folder
        An empty folder for the daemon.
    order
        The order of arrival; the order of `files` if not given.
    pauses
        Seconds after the first file, the second, and so on; after the last pause the other files arrive at once.

    Returns
    -------
    RealSteps, list of (str, str)
        The measurements, and state and reason code of each job.
    """
    steps = RealSteps()
    house = House(folder, steps, case_settle_seconds=SETTLE, missing_neighbour_wait=WAIT, poll_seconds=0.5)
    with contextlib.closing(house.database):
        waits = iter(pauses)
        for name in order or list(files):
            path = house.inbox / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
            if pause := next(waits, 0.0):
                house.run(pause)
        house.run(SETTLE + 3)
        if any(state == "waiting" for state in house.states()):
            house.run(WAIT + SETTLE)
        jobs = house.ledger.jobs.find()
        return steps, [(job.state.value, "" if job.reason is None else job.reason.code.value) for job in jobs]


def verdict(steps: RealSteps, jobs: Sequence[tuple[str, str]], truth: Truth) -> str:
    """Return the result: ``measured``, or the reason code if there is no number.

    Raises
    ------
    ThirdThing
        The result is neither the truth nor a refusal.
    """
    if steps.defects:
        raise ThirdThing(f"a defect: {steps.defects[0]}")
    is_questioned = ("delivered", ReasonCode.AMBIGUOUS_INPUT.value) in jobs or any(
        state == "refused" for state, _ in jobs
    )
    for one in steps.measured:
        if difference := one.difference(truth):
            if is_questioned and POSITION_ALONE in one.warnings:
                continue  # the contradiction arrived too late; the warning says so, and now the ledger does, too
            raise ThirdThing(f"measured, but {difference}; warnings {one.warnings}")
    delivered = [code for state, code in jobs if state == "delivered"]
    if steps.measured and delivered:
        return "measured"
    reasons = sorted(code for state, code in jobs if state in ("held", "refused", "waiting")) or steps.refused
    if not reasons or not reasons[0]:
        raise ThirdThing(f"neither a number nor a reason: {jobs}")
    return reasons[0]
