"""The acceptance set: whether this machine gives the numbers that the bundle was released with."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungstage.appliance.commissioning.verdict import Check, Verdict
from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.daemon.demo import run_demo
from lungstage.appliance.model.bundle import FEATURE_TOLERANCE, PROBABILITY_TOLERANCE, Bundle, load_bundle


def check_bundle(folder: Path) -> tuple[Check, Bundle | None]:
    """Hold the bundle to its hashes and have it give its golden case; None where it does not."""
    try:
        bundle = load_bundle(folder)
    except Refused as refused:
        return Check("bundle", Verdict.FAIL, f"{refused} [{refused.reason.code}]"), None
    return Check(
        "bundle",
        Verdict.PASS,
        f"Every byte is what was packed, and the golden case comes out: features to {FEATURE_TOLERANCE:g} relative, "
        f"probability to {PROBABILITY_TOLERANCE:g}.",
    ), bundle  # fmt: skip


def check_phantom(folder: Path, bundle: Bundle) -> Check:
    """Send the phantom study through a daemon of its own: inbox, every step, outbox, and read the report back."""
    try:
        with tempfile.TemporaryDirectory(prefix="lungstage-commission-") as place:
            result = run_demo(folder, Path(place))
    except Refused as refused:
        verdict = Verdict.NOTE if refused.reason.code is ReasonCode.OUTSIDE_INTENDED_USE else Verdict.FAIL
        return Check("phantom", verdict, f"The daemon refused the phantom: {refused} [{refused.reason.code}]")
    except Unavailable as error:
        return Check("phantom", Verdict.FAIL, str(error))
    largest = largest_difference(bundle.manifest.golden.features, result.outcome["features"])
    verdict = Verdict.PASS if largest <= FEATURE_TOLERANCE else Verdict.FAIL
    return Check(
        "phantom",
        verdict,
        f"The daemon answered it and its report ('{result.title}') was read back; its features differ from the golden "
        f"case by {largest:.1e} relative at most.",
    )


def largest_difference(expected: Mapping[str, float | None], found: Mapping[str, float | None] | None) -> float:
    """Largest relative difference between features; infinite where one is missing on one side only."""
    if found is None or expected.keys() != found.keys():
        return math.inf
    return max((relative_difference(value, found[name]) for name, value in expected.items()), default=0.0)


def relative_difference(expected: Any, found: Any) -> float:
    """Relative difference of two numbers, either of which may be missing."""
    if expected is None or found is None:
        return 0.0 if expected is found else math.inf
    if expected == found:
        return 0.0
    return float(abs(found - expected) / abs(expected)) if expected else math.inf
