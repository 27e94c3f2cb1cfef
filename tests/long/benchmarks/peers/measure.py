"""Measure lungstage and the other libraries alternately: the same arrays, the same core, in the same minutes."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from packaging.requirements import Requirement

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.radiomics import grid
from lungstage.appliance.radiomics.extract import extract, place_on_grid
from lungstage.appliance.radiomics.grid import MeasurableRoi
from tests.conftest import ROOT
from tests.long.benchmarks.bare import STATED, milliseconds
from tests.long.benchmarks.peers.environments import FOLDER, interpreters, is_ready, python_of, requirements, why_not
from tests.long.benchmarks.subjects import FAST_GRIDS, GRIDS, Subject, cropped, tumours

ROUNDS, SECONDS = 3, 0.4  # number of turns, and shortest duration of each
OURS = "ours"
CACHE, FIRST_START = "compiled", "first-start.json"
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


class Library:
    """Another library, waiting for requests in its own process, on the same core as this process."""

    def __init__(self, requirement: Requirement) -> None:
        self.name = requirement.name
        # Only pictologics compiles at its first start. Its cache is in its environment, so a new one starts uncompiled.
        environment = os.environ | ONE_THREAD | {"NUMBA_CACHE_DIR": str(FOLDER / self.name / CACHE)}
        self._process = subprocess.Popen(
            [python_of(requirement), "-m", "tests.long.benchmarks.peers.inside", self.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=environment,
        )  # fmt: skip
        self.introduction = self._answer()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Mapping[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        answer: Mapping[str, Any] = json.loads(line) if line else {"error": "it ended without an answer"}
        return answer

    def ask(self, **request: Any) -> Mapping[str, Any]:
        """Send a request, and wait for the answer."""
        with suppress(BrokenPipeError):  # the process ended; the missing answer shows this
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()


@dataclass
class Row:
    """One region on one grid: milliseconds and the stated features by library, or an error."""

    grid: str
    roi: str
    times: dict[str, list[float]] = field(default_factory=dict)
    features: dict[str, Mapping[str, float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, answer: Mapping[str, Any]) -> None:
        """Store a library's answer; after an error its times are deleted."""
        if "error" in answer:
            self.errors[name] = answer["error"]
            self.times.pop(name, None)
        elif "features" in answer:
            self.features[name] = answer["features"]
        else:
            self.times.setdefault(name, []).extend(answer["milliseconds"])

    def median(self, name: str) -> float:
        """Return the median milliseconds of a library."""
        return statistics.median(self.times[name])

    def ratio(self, name: str) -> float:
        """Return its time divided by ours."""
        return self.median(name) / self.median(OURS)

    def difference(self, name: str, feature: str) -> float | None:
        """Return the relative difference of a stated feature from ours; None if the library does not have it."""
        ours, theirs = self.features[OURS][feature], self.features[name].get(feature)
        return None if theirs is None else (theirs - ours) / abs(ours)


@dataclass(frozen=True)
class Comparison:
    """All rows; the libraries' versions; reasons for missing libraries; seconds of a first start."""

    rows: list[Row]
    libraries: Mapping[str, Mapping[str, Any]]
    absent: Mapping[str, str]
    first_start: Mapping[str, float]


def _write(folder: Path, subject: Subject, spec: ExtractionSpec) -> None:
    """Write a case: the box of the ROI with the resampler's margin, and the same on lungstage's grid."""
    margin = spec.margin_slices
    volume, mask = cropped(*subject.reference(spec), margin)
    placed = place_on_grid(*subject.reference(spec), spec)
    values = placed.image[placed.mask]
    width = spec.settings["binWidth"]
    first, last = values.min() // width, values.max() // width
    np.savez(
        folder / "case.npz", image=volume.array, mask=mask.astype(np.uint8), spacing=volume.spacing,
        resampled=spec.resampled_spacing is not None, start=first * width, bins=last - first + 1,
        lowest=placed.image.min(),
    )  # fmt: skip
    for prefix, images in {"": grid.to_images(volume, mask), "gridded-": _images(placed)}.items():
        for what, image in zip(("image", "mask"), images, strict=True):
            sitk.WriteImage(image, str(folder / f"{prefix}{what}.nii"))


def _images(roi: MeasurableRoi) -> tuple[sitk.Image, sitk.Image]:
    affine = np.diag([*roi.spacing, 1.0])[[2, 1, 0, 3]]
    return grid.to_images(hd.Volume(roi.image, affine, coordinate_system="PATIENT"), roi.mask)


def _compare(subject: Subject, grid_name: str, libraries: list[Library]) -> Row:
    spec, row = ExtractionSpec(STATED, GRIDS[grid_name]), Row(grid_name, subject.name)
    volume, mask = subject.reference(spec)
    row.take(OURS, {"features": extract(volume, mask, spec).as_dict()})
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name), subject, spec)
        for library in libraries:
            row.take(library.name, library.ask(folder=name))
        for _ in range(ROUNDS):
            row.take(OURS, {"milliseconds": milliseconds(lambda: extract(volume, mask, spec), SECONDS, 1, 15)})
            for library in libraries:
                if library.name not in row.errors:
                    row.take(library.name, library.ask(seconds=SECONDS))
    return row


def _first_start(requirement: Requirement) -> Mapping[str, float]:
    """Return the seconds from start to first features of the smallest ROI: uncompiled, and a second time.

    Measured once per environment and stored in its folder, because it takes minutes.
    """
    kept = FOLDER / requirement.name / FIRST_START
    if not kept.is_file():
        shutil.rmtree(FOLDER / requirement.name / CACHE, ignore_errors=True)
        seconds = {}
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), next(tumours()), ExtractionSpec(STATED, GRIDS[FAST_GRIDS[0]]))
            for state in ("nothing compiled", "everything compiled"):
                start = time.perf_counter()
                with Library(requirement) as library:
                    if "error" in library.ask(folder=folder):
                        return {}
                seconds[state] = time.perf_counter() - start
        kept.write_text(json.dumps(seconds), encoding="utf-8")
    found: Mapping[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def compare() -> Comparison:
    """Time every library that has an environment on every tumour and grid."""
    pythons = interpreters()
    absent = {one.name: why_not(one, pythons) for one in requirements() if not is_ready(one)}
    present = [one for one in requirements() if one.name not in absent]
    first_start = {one.name: _first_start(one) for one in present if one.name == "pictologics"}
    with ExitStack() as stack:
        libraries = []
        for requirement in present:
            library = stack.enter_context(Library(requirement))
            if "error" in library.introduction:
                absent[library.name] = library.introduction["error"]
            else:
                libraries.append(library)
        rows = [_compare(subject, name, libraries) for name in FAST_GRIDS for subject in tumours()]
        introductions = {library.name: library.introduction for library in libraries}
    return Comparison(rows, introductions, absent, first_start.get("pictologics", {}))
