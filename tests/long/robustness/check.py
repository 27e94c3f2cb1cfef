"""Measure the cost of robustness, and check that the range contains answers of other contours: ``make robustness``.

Needs ``$LUNGSTAGE_DATA`` (the LUNG1 table and the crops). Fits a model without forty patients chosen by a hash, and
lets it answer for them. Writes the figures of ``docs/robustness.md``, and pictures to ``runs/robustness``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
from PIL import Image

from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.model.answering import AnswerRule
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.radiomics import extract
from lungstage.appliance.robustness.versions import Surroundings, perturb
from lungstage.training.measuring.crops import read_crops
from tests.conftest import ROOT
from tests.long.robustness.hands import other_contours

PAGE = ROOT / "docs" / "robustness.md"
DATA = Path(os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data"))
OUT = ROOT / "runs" / "robustness"
PATIENTS, HANDS = 40, 20
SHOWN = 6

Floats = npt.NDArray[np.float64]


def held_out() -> list[str]:
    """Return forty patients with the tumour completely in its crop, ordered by a hash of their names.

    The first forty in this order were used to set the smoothness of the perturbations. These are the next forty.
    """
    names = [patient for patient, _ in read_crops(DATA / "crops")]
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return ordered[PATIENTS : 2 * PATIENTS]


def command(*arguments: object) -> str:
    """Run one of the commands and return its output."""
    print("+", *arguments, flush=True)
    done = subprocess.run([*map(str, arguments)], check=True, capture_output=True, text=True)
    return done.stdout


def bundle_without(patients: list[str]) -> Bundle:
    """Fit and build a bundle without these patients, unless it exists already."""
    folder = OUT / "lung1-without-40"
    if not folder.is_dir():
        source = DATA / "lung1" / "features.csv"
        with source.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        where = header.index("patient_id")
        table = OUT / "without-40.csv"
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *(row for row in rows if row[where] not in patients)])
        binaries = Path(sys.executable).parent
        command(binaries / "lungstage-train", "fit", table, "-o", OUT / "run-without-40")
        command(binaries / "lungstage-export", "build", OUT / "run-without-40", "-o", folder)
    return load_bundle(folder)


def volume_of(around: Surroundings) -> hd.Volume:
    z, y, x = around.spacing
    affine = np.array([[0, 0, x, 0], [0, y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1.0]])
    return hd.Volume(around.image, affine, coordinate_system="PATIENT")


@dataclass(frozen=True)
class Case:
    """One patient: the range, the answers of other contours, and the agreement."""

    patient: str
    own: float
    low: float
    high: float
    others: Floats
    agreement: float
    around: Surroundings

    @property
    def covered(self) -> float:
        return float(np.mean((self.others >= self.low) & (self.others <= self.high)))

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def spread(self) -> float:
        low, high = np.percentile(self.others, [2.5, 97.5])
        return float(high - low)


def ask(patient: str, read: Callable[[], Surroundings], bundle: Bundle) -> Case | None:
    """Compare a patient's range with the answers of other contours; None if one of them is not available."""
    around = read()
    volume = volume_of(around)
    roi = extract.place_on_grid(volume, around.mask, bundle.spec)
    found = perturb(around, roi, bundle.spec, RobustnessOptions())
    seed = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16)
    hands = other_contours(around.mask, HANDS, seed)
    if found.unknown is not None or len(found.values) < 15 or len(hands) < HANDS:
        print(
            f"{patient}: left out ({found.unknown}, {len(found.values)} versions, {len(hands)} other contours)",
            flush=True,
        )
        return None
    own_values = extract.compute(roi, bundle.spec).values
    other_values = np.array([extract.extract(volume, hand, bundle.spec).values for hand in hands])
    own, versions, others = (
        bundle.predictor.run(values).probability_advanced for values in (own_values[None], found.values, other_values)
    )
    low, high = np.percentile(versions, [2.5, 97.5])
    p, rule = float(own[0]), AnswerRule.of(bundle.manifest, None)
    alike = [rule.answer(v)[0] is rule.answer(p)[0] for v in versions.tolist()]
    return Case(patient, p, min(float(low), p), max(float(high), p), others, float(np.mean(alike)), around)


def draw(cases: list[Case]) -> None:
    """Draw the tumours with the lowest agreement: the slice with the largest area of the tumour, and its outline."""
    for case in sorted(cases, key=lambda case: (case.agreement, -case.width))[:SHOWN]:
        index = int(case.around.mask.sum(axis=(1, 2)).argmax())
        hu, mask = case.around.image[index].astype(float), case.around.mask[index]
        grey = np.clip((hu + 1000) / 1400 * 255, 0, 255).astype(np.uint8)
        picture = np.stack([grey] * 3, axis=2).repeat(4, axis=0).repeat(4, axis=1)
        large = mask.repeat(4, axis=0).repeat(4, axis=1)
        rim = large & ~(np.roll(large, 1, 0) & np.roll(large, -1, 0) & np.roll(large, 1, 1) & np.roll(large, -1, 1))
        picture[rim] = (255, 196, 0)
        Image.fromarray(picture).save(OUT / f"{case.patient}-{case.agreement:.2f}.png")


def ball(diameter: float, spacing: tuple[float, float, float]) -> Surroundings:
    """Make a ball of soft tissue in lung, with noise."""
    shape = tuple(int((diameter + 30) / step) for step in spacing)
    z, y, x = np.ix_(*((np.arange(n) - n / 2) * step for n, step in zip(shape, spacing, strict=True)))
    way = np.sqrt(z * z + y * y + x * x)
    hu = np.where(way <= diameter / 2 + 1, 30, -800) + 20 * np.random.default_rng(1).standard_normal(shape)
    return Surroundings(hu.astype(np.int16), way <= diameter / 2, spacing)


def cost(around: Surroundings, spec: ExtractionSpec) -> tuple[int, int, float]:
    """Return measured voxels, versions and processor seconds of one pass, the fastest of three."""
    roi = extract.place_on_grid(volume_of(around), around.mask, spec)
    seconds, made = [], 0
    for _ in range(3):
        start = time.process_time()
        made = len(perturb(around, roi, spec, RobustnessOptions()).values)
        seconds.append(time.process_time() - start)
    return int(roi.mask.sum()), made, min(seconds)


def main() -> None:
    """Measure, draw, and write the figures into the documentation."""
    OUT.mkdir(parents=True, exist_ok=True)
    patients = held_out()
    bundle = bundle_without(patients)
    crops = dict(read_crops(DATA / "crops"))
    cases = [case for name in patients if (case := ask(name, crops[name], bundle)) is not None]
    draw(cases)
    covered = float(np.mean([case.covered for case in cases]))
    widths, spreads = (np.array([getattr(case, what) for case in cases]) for what in ("width", "spread"))
    ratio = float(np.median(widths) / np.median(spreads))
    shipped = load_bundle(ROOT / "models" / "lung1-stage").spec
    costs = {f"{diameter} mm": cost(ball(diameter, (2.5, 0.8, 0.8)), shipped) for diameter in (10, 40, 90, 156)}
    worst = sorted(cases, key=lambda case: (case.agreement, -case.width))[:SHOWN]
    figures = {
        "patients": len(cases), "hands": HANDS, "covered": covered, "median_width": float(np.median(widths)),
        "median_spread": float(np.median(spreads)), "ratio": ratio,
        "median_of_ratios": float(np.median(widths / spreads)),
        "agreeing": float(np.mean([case.agreement >= 0.9 for case in cases])), "cost": costs,
        "least_robust": {case.patient: [case.own, case.low, case.high, case.agreement] for case in worst},
    }  # fmt: skip
    (OUT / "results.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    rows = [f"| {what} | {n:,} | {made} | {seconds:.2f} |" for what, (n, made, seconds) in costs.items()]
    text = "\n".join(
        [
            "| what | asked for | measured |",
            "|---|---|---|",
            f"| answers from other contours that are within the range ({len(cases)} patients × {HANDS}) | at least 90 "
            f"% | {100 * covered:.1f} % |",
            f"| median width of the range, divided by the median 95 % spread of those answers | at most 1.5 | "
            f"{ratio:.2f} ({100 * np.median(widths):.1f} and {100 * np.median(spreads):.1f} percentage points) |",
            "",
            "| ball of | voxels at 1 mm | versions | processor seconds |",
            "|---|---|---|---|",
            *rows,
        ]
    )
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        re.sub(r"(<!-- make robustness -->\n).*?(\n<!-- end -->)", lambda m: m[1] + text + m[2], page, flags=re.S),
        encoding="utf-8",
    )
    print(text)


if __name__ == "__main__":
    main()
