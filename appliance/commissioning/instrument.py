"""The appliance under test: one bundle, the site's settings, and every step from files to report."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from pathlib import Path
from typing import Any

from lungstage.appliance import __version__
from lungstage.appliance.commissioning.plan import Plan, Study
from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.one_shot import Options, measure_paths, stage_paths
from lungstage.appliance.staging.outcome import Outcome

_LIBRARIES = ("numpy", "SimpleITK", "pydicom", "highdicom", "onnxruntime")
_PROCESSORS = Path("/proc/cpuinfo")


class Instrument:
    """The appliance that answers during a commissioning.

    Parameters
    ----------
    bundle
        The bundle, after its self-test.
    plan
        Gives the matching of slices, the prevalence and the covariates.
    """

    def __init__(self, bundle: Bundle, plan: Plan) -> None:
        self.bundle = bundle
        self._match_by_geometry = plan.match_by_geometry
        self._site = Site.read(plan.prevalence, plan.covariates)

    def stage(self, study: Study) -> Outcome:
        """Send a study through every step. Its documents contain the patient's name, so they are deleted again."""
        with tempfile.TemporaryDirectory(prefix="lungstage-commission-") as out:
            return stage_paths([study.path], self.bundle, Path(out), self._options(study))

    def measure(self, study: Study) -> Outcome:
        """Send a study through every step. If the model may not answer, measure the features without it."""
        outcome = self.stage(study)
        reason = outcome["reason"]
        if reason is None or reason["code"] != ReasonCode.OUTSIDE_INTENDED_USE:
            return outcome
        measured = measure_paths([study.path], self.bundle.manifest.roi_rule, self.bundle.spec, self._options(study))
        return outcome | {"features": measured["features"]}

    def _options(self, study: Study) -> Options:
        return Options(study.roi, self._match_by_geometry, site=self._site)


def answer_of(outcome: Outcome) -> dict[str, Any]:
    """Return the part of an outcome that must not change: status, reason code, answer and its numbers."""
    reason, endpoint = outcome["reason"] or {}, outcome.get("endpoint")
    return {
        "status": outcome["status"],
        "code": reason.get("code"),
        "answer": endpoint["answer"] if endpoint else outcome["stage"],
        "probability": endpoint["probability"] if endpoint else outcome["probability_advanced"],
        "distance": (outcome["domain"] or {}).get("distance"),
        "voxels": (outcome["roi"] or {}).get("voxels"),
        "features": outcome["features"],
    }


def environment(bundle: Bundle | None) -> dict[str, str]:
    """Return the versions of software, bundle, libraries and machine."""
    about = {"lungstage": __version__}
    if bundle is not None:
        about |= {"bundle": f"{bundle.manifest.name} {bundle.manifest.version}", "bundle digest": bundle.digest}
    about |= {"python": platform.python_version()}
    about |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return about | {"system": f"{platform.system()} {platform.machine()}", "processor": _processor()}


def _processor() -> str:
    """Return the model of the processor. Other instruction sets can change the last bits of a result."""
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "unknown")
