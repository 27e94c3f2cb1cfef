"""The pictures of contours in the documentation: the best, the middle, a weak and the worst of the held-out patients.

``make contour-pictures`` after ``make contour``. Expert's contour in green, the network's in orange, the line in white.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from lungstage.training.contour import cases, evaluation
from lungstage.training.contour.cases import Case
from lungstage.training.contour.run import ContourRun
from lungstage.training.contour.training import as_function
from tests.conftest import ROOT

SHARES = {"best": 1.0, "middle": 0.5, "tenth percentile": 0.1, "second worst": 0.03, "worst": 0.0}
LOW, HIGH = -1000, 400
_PLANES = ("axial", "coronal", "sagittal")


def main(run_folder: Path, crops: Path) -> None:
    run = ContourRun.load(run_folder)
    network = as_function(run.network)
    every = {case.patient: case for case in cases.read(crops)}
    ranked = sorted((one["dice"], one["patient"]) for one in run.record["drawn"] if one["method"] == "diameter")
    rows = {name: ranked[round(share * (len(ranked) - 1))] for name, share in SHARES.items()}
    figure, axes = plt.subplots(len(rows), 4, figsize=(10, 2.6 * len(rows)), facecolor="black")
    for (name, (dice, patient)), row in zip(rows.items(), axes, strict=True):
        case = every[patient]
        prompt, drawn, corrected = evaluation.from_diameter(case, network)
        at = tuple(round(value) for value in reversed(prompt.centre))
        for plane, axis in zip(_PLANES, row, strict=False):
            show(axis, case, drawn, _PLANES.index(plane), at)
        row[0].plot(*zip(*[point[:2] for point in prompt.points], strict=True), color="white", linewidth=1)
        row[0].set_ylabel(f"{name}: Dice {dice:.2f}", color="white", fontsize=8)
        show(row[3], case, corrected, 0, at)
        row[3].set_ylabel(f"corrected twice: {evaluation.dice(corrected, case.mask):.2f}", color="white", fontsize=8)
    for axis, title in zip(axes[0], (*_PLANES, "axial, corrected"), strict=True):
        axis.set_title(title, color="white", fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(ROOT / "docs" / "contour-pictures.png", dpi=90, facecolor="black")


def show(axis: Any, case: Case, drawn: evaluation.Mask, across: int, at: tuple[int, ...]) -> None:
    """Show a plane with both outlines; coronal and sagittal planes with the head on top."""
    image, mask, found = (np.take(values, at[across], axis=across) for values in (case.hu, case.mask, drawn))
    axis.imshow(image, cmap="gray", vmin=LOW, vmax=HIGH, origin="upper" if across == 0 else "lower")
    for outline, colour in ((mask, "#40e040"), (found, "#ff9020")):
        if outline.any():
            axis.contour(outline, [0.5], colors=colour, linewidths=1)
    axis.set_xticks([])
    axis.set_yticks([])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
