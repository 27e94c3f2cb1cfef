"""Tiny generated studies of every kind that a hospital sends, each with its expected result."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.staging.phantom import ct_datasets, segmentation
from tests.support.studies import Polygon, Study, contour, structure_set

SIDE, SLICES, ROI = 16, 6, range(1, 5)  # one slice of margin at either end for the resampler
CENTRE, REACH = SIDE // 2, SIDE // 4


@dataclass(frozen=True)
class Sample:
    """One study on disk, and its expected result.

    Attributes
    ----------
    folder
        Folder of its files: ``0000`` is the ROI, the slices follow in order.
    study_instance_uid, series_instance_uid
        UIDs of the CT.
    end
        Code of the expected refusal; None if a report is expected.
    """

    folder: Path
    study_instance_uid: str
    series_instance_uid: str
    end: ReasonCode | None

    @property
    def files(self) -> list[Path]:
        """Its files, the ROI first."""
        return sorted(self.folder.iterdir())


def _square(shift: float = 0.0) -> Polygon:
    low, high = CENTRE - REACH - 0.5 + shift, CENTRE + REACH - 0.5 + shift
    return ((low, low), (low, high), (high, high), (high, low))


def _outlined(name: str, shifts: Sequence[float], on: Sequence[int]) -> Callable[[list[Dataset]], Dataset]:
    def roi(slices: list[Dataset]) -> Dataset:
        contours = [contour(slices[k], _square(shift)) for k in on for shift in shifts]
        return structure_set(slices, {name: contours}, slices)

    return roi


def _segmented(slices: list[Dataset]) -> Dataset:
    mask = np.zeros((SLICES, SIDE, SIDE), dtype=bool)
    mask[ROI.start : ROI.stop, CENTRE - REACH : CENTRE + REACH, CENTRE - REACH : CENTRE + REACH] = True
    return segmentation(slices, mask)


GOOD = (_outlined("GTV-1", [0.0], ROI), _segmented)
BAD = {
    ReasonCode.CONTOURS_OVERLAP: _outlined("GTV-1", [0.0, 2.0], ROI),
    ReasonCode.CONTOURS_SKIP_SLICES: _outlined("GTV-1", [0.0], (1, 2, 4)),
    ReasonCode.ROI_NOT_FOUND: _outlined("HEART", [0.0], ROI),
}


def _volume(name: str) -> hd.Volume:
    """Make a ball of tissue in lung, with a texture that differs between studies."""
    texture = np.random.default_rng(list(name.encode()))
    hu = texture.integers(-850, -750, size=(SLICES, SIDE, SIDE)).astype(np.int16)
    y, x = np.ogrid[:SIDE, :SIDE]
    inside = (y - CENTRE) ** 2 + (x - CENTRE) ** 2 < (REACH + 2) ** 2
    hu[:, inside] = texture.integers(-120, 80, size=(SLICES, int(inside.sum())))
    affine = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    frame = generate_uid(entropy_srcs=[name, "frame"])
    return hd.Volume(hu, affine, coordinate_system="PATIENT", frame_of_reference_uid=frame)


def make(folder: Path, name: str, *, end: ReasonCode | None = None, roi: int = 0) -> Sample:
    """Write one study.

    Parameters
    ----------
    folder
        Folder to write it to.
    name
        Source of all its UIDs and voxels.
    end
        Expected refusal; None for a good study.
    roi
        Kind of ROI object of a good study.
    """
    slices = ct_datasets(_volume(name), name)
    draw = GOOD[roi % len(GOOD)] if end is None else BAD[end]
    Study(slices, [draw(slices)]).write(folder)
    return Sample(folder, slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID, end)


def make_many(folder: Path, count: int, share_refused: float, chance: random.Random) -> list[Sample]:
    """Write `count` studies; about `share_refused` of them must be refused."""
    ends = [chance.choice(sorted(BAD)) if chance.random() < share_refused else None for _ in range(count)]
    return [make(folder / f"{n:05}", f"{folder.name}-{n}", end=end, roi=n) for n, end in enumerate(ends)]


def junk(chance: random.Random, example: Path) -> bytes:
    """Return a junk file: empty, text, noise after a DICOM preamble, or a slice cut short."""
    return chance.choice(
        (
            b"",
            b"patients of Tuesday\n",
            bytes(128) + b"DICM" + chance.randbytes(400),
            example.read_bytes()[: chance.randrange(200, 900)],
        )
    )
