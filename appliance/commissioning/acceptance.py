"""The acceptance set: check that this machine computes the numbers that the bundle was released with."""

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
    """Check the bundle's hashes and its self-test; the bundle is None if a check fails."""
    try:
        bundle = load_bundle(folder)
    except Refused as refused:
        return Check("bundle", Verdict.FAIL, f"{refused} [{refused.reason.code}]"), None
    return Check(
        "bundle",
        Verdict.PASS,
        f"All files are unchanged, and the golden case gives the released result: features within "
        f"{FEATURE_TOLERANCE:g} relative, probability within {PROBABILITY_TOLERANCE:g}.",
    ), bundle  # fmt: skip


def check_phantom(folder: Path, bundle: Bundle) -> Check:
    """Send the phantom study through a separate daemon, from inbox to outbox, and read the report back."""
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
        f"The daemon answered the phantom, and its report ('{result.title}') was read back. Its features differ from "
        f"the golden case by at most {largest:.1e} relative.",
    )


def largest_difference(expected: Mapping[str, float | None], found: Mapping[str, float | None] | None) -> float:
    """Return the largest relative difference between features; infinite if a feature is missing on one side only."""
    if found is None or expected.keys() != found.keys():
        return math.inf
    return max((relative_difference(value, found[name]) for name, value in expected.items()), default=0.0)


def relative_difference(expected: Any, found: Any) -> float:
    """Return the relative difference of two numbers; each may be missing."""
    if expected is None or found is None:
        return 0.0 if expected is found else math.inf
    if expected == found:
        return 0.0
    return float(abs(found - expected) / abs(expected)) if expected else math.inf
