"""Recalibrate a bundle on an external cohort. The result is a new version with a new card."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper
from scipy.special import expit, logit

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.model.bundle_files import read_files
from lungstage.appliance.model.inference import Predictor
from lungstage.appliance.model.manifest import (
    Decision,
    EstimateEntry,
    Manifest,
    OutOfFold,
    Recalibration,
    render,
)
from lungstage.export.bundle import put_down
from lungstage.export.markdown import bullets, percent
from lungstage.training.run import prevalence as prevalence_of

FEWEST: Final = 20
"""Smallest number of patients per class for a slope and an intercept. With fewer they depend mostly on chance."""

_LINEAR: Final = ("logit", "contributions", "covariate_contributions")


def recalibrate(folder: Path, validation: Path, target: Path) -> Recalibration:
    """Write a bundle whose probabilities are calibrated on a cohort.

    Parameters
    ----------
    folder
        The bundle.
    validation
        ``validation.json`` of the same bundle on the cohort (``lungstage-train validate``).
    target
        Folder of the new bundle; its name becomes the bundle's name.

    Returns
    -------
    Recalibration
        Slope and intercept, with their intervals.

    Raises
    ------
    Refused
        ``bundle_invalid`` or ``table_invalid``: the validation is of another bundle or of the training table, has too
        few patients, or its slope is not shown to lie above 0. Recalibration cannot repair such a model.

    Notes
    -----
    Logistic recalibration: Cox DR. Two further applications of a model for binary regression. Biometrika 45, 1958. The
    cohort's prevalence is removed from the intercept. So the new bundle also gives probabilities at the prevalence of
    its training cohort, and can be corrected to a site's prevalence like any other bundle.
    """
    bundle, record = load_bundle(folder), _read(validation)
    _prove(bundle, record)
    manifest = bundle.manifest
    slope, intercept = (_entry(record["calibration"][name]) for name in ("slope", "intercept"))
    table, training = record["table"], manifest.provenance.prevalence_advanced
    prevalence = prevalence_of(table)
    offset = intercept.value + float(logit(training) - logit(prevalence))
    made = Recalibration(
        cohort=record["cohort"], table_sha256=table["sha256"], rows=table["used"], prevalence=prevalence,
        slope=slope, intercept=intercept, of_version=manifest.version, of_digest=bundle.digest,
    )  # fmt: skip
    contents = dict(read_files(folder))
    contents.pop("manifest.sig", None)  # it signed the old bundle
    model = _shifted(contents["model.onnx"], slope.value, offset)
    version = f"{manifest.version.partition('+')[0]}+{_sha256(model)[:8]}"
    contents |= {
        "model.onnx": model,
        "MODEL_CARD.md": _card(contents["MODEL_CARD.md"].decode(), target.name, version, made, manifest).encode(),
    }
    files = {name: _sha256(contents[name]) for name in manifest.files}
    changed = _manifest(manifest, made, offset).model_copy(
        update={"name": target.name, "version": version, "files": files}
    )
    predictor = Predictor(model, changed.features, changed.decision, tuple(e.covariate for e in changed.covariates))
    golden = manifest.golden.model_copy(update={"probability_advanced": _golden(bundle, predictor)})
    changed = changed.model_copy(update={"golden": golden})
    contents["manifest.json"] = render(Manifest.model_validate(changed.model_dump()))
    put_down(contents, target)
    return made


def _read(validation: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(validation.read_text(encoding="utf-8"))
        for keys in (("bundle", "digest"), ("calibration", "slope"), ("calibration", "intercept"), ("table", "used")):
            _ = record[keys[0]][keys[1]]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{validation.name} is not a validation.json. `lungstage-train validate BUNDLE TABLE -o DIR` writes one.",
        ) from error
    return dict(record)


def _prove(bundle: Bundle, record: Mapping[str, Any]) -> None:
    table, slope = record["table"], record["calibration"]["slope"]
    fewest = min(table["positives"], table["used"] - table["positives"])
    if record["bundle"]["digest"] != bundle.digest:
        raise _refused("The validation is of another bundle. Validate this bundle on the cohort first.")
    if record["trained_on_this_table"]:
        raise _refused("The validation is on the table that the bundle was trained on. Use your own cohort.")
    if record["extraction"]["differences"]:
        raise _refused(
            "The table was measured with other settings than the bundle's. Measure the cohort with the bundle's "
            "extraction.yaml."
        )
    if fewest < FEWEST:
        raise _refused(f"There are {fewest} patients of the rarer class; at least {FEWEST} are needed. Add patients.")
    if not slope["low"] > 0:
        raise _refused(
            f"The slope is {slope['value']:.2f} ({slope['low']:.2f} to {slope['high']:.2f}), so the model is not shown "
            "to rank these patients correctly. Recalibration cannot repair this. Use another model."
        )


def _refused(message: str) -> Refused:
    return Refused(ReasonCode.TABLE_INVALID, message)


def _entry(figure: Mapping[str, Any]) -> EstimateEntry:
    return EstimateEntry(value=float(figure["value"]), low=float(figure["low"]), high=float(figure["high"]))


def _shifted(model: bytes, slope: float, offset: float) -> bytes:
    """Apply slope and offset to the logit, and the slope to its contributions; recompute the probability."""
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    old = {name: f"{name}_of_{len(graph.node)}" for name in _LINEAR if name in {o.name for o in graph.output}}
    kept = [node for node in graph.node if "probability_advanced" not in node.output]
    for node in kept:
        node.output[:] = [old.get(name, name) for name in node.output]
        node.input[:] = [old.get(name, name) for name in node.input]
    scale, shift = (f"recalibration_{name}_{len(graph.node)}" for name in ("slope", "intercept"))
    for name, value in ((scale, slope), (shift, offset)):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.dtype("<f8")), name))
    scaled = f"scaled_{len(graph.node)}"
    added = [
        helper.make_node("Mul", [old[name], scale], [scaled if name == "logit" else name])
        for name in _LINEAR
        if name in old
    ]
    added += [
        helper.make_node("Add", [scaled, shift], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability_advanced"]),
    ]
    del graph.node[:]
    graph.node.extend([*kept, *added])
    onnx.checker.check_model(proto, full_check=True)
    written: bytes = proto.SerializeToString(deterministic=True)
    return written


def _manifest(manifest: Manifest, made: Recalibration, offset: float) -> Manifest:
    """Transform all thresholds like the probabilities, so that the same patients get the same conformal set."""

    def moved(p: float) -> float:
        if p in (0.0, 1.0):
            return p
        return float(expit(made.slope.value * (math.log(p) - math.log1p(-p)) + offset))

    decision: Decision = manifest.decision.model_copy(
        update={
            "early_min_probability": 1.0 - moved(1.0 - manifest.decision.early_min_probability),
            "advanced_min_probability": moved(manifest.decision.advanced_min_probability),
        }
    )
    seen: OutOfFold | None = manifest.out_of_fold
    if seen is not None:
        seen = seen.model_copy(update={"thresholds": tuple(map(moved, seen.thresholds))})
    update = {"schema_version": 3, "decision": decision, "out_of_fold": seen, "recalibration": made}
    return manifest.model_copy(update=update)


def _golden(bundle: Bundle, predictor: Predictor) -> float:
    from lungstage.appliance.model.bundle import measure_phantom

    golden = bundle.manifest.golden
    features = measure_phantom(golden.phantom, bundle.spec)
    return predictor.predict(features, golden.covariates).probability_advanced


def _card(card: str, name: str, version: str, made: Recalibration, manifest: Manifest) -> str:
    """Add the recalibration as the first section of the card."""
    endpoint = manifest.endpoint
    body = card.partition("\n")[2].lstrip("\n")
    slope, intercept = (f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in (made.slope, made.intercept))
    told = bullets(
        [
            f"Cohort: {made.cohort}, {made.rows} patients, {percent(made.prevalence)} of them {endpoint.positive}; "
            f"table with SHA-256 `{made.table_sha256}`. No patient row is part of this bundle.",
            f"Slope {slope}, intercept {intercept} (95 % intervals over patients; 1 and 0 mean no change).",
            f"Original version: {made.of_version}, manifest with SHA-256 `{made.of_digest}`.",
        ]
    )
    return (
        f"# Model card: {name} {version}\n\n## Recalibration\n\n"
        "**Research use only; not a medical device.** This bundle is the recalibrated version of another bundle. Its "
        f"logits were recalibrated on an external cohort.\n\n{told}\n\n"
        "The probability is sigmoid(slope × logit + intercept) at that cohort's prevalence. The bundle gives its "
        "probabilities at the prevalence of its training cohort. A site sets its own prevalence with the setting "
        "`prevalence`. The thresholds were transformed like the probabilities, so the same patients get the same "
        "conformal set. The ranking of patients (AUC) did not change. **This version has not been validated: the "
        "cohort of the recalibration cannot show that it helped.** The text below describes the original version. Its "
        f"figures on probabilities (Brier score, calibration, thresholds, answers) are those of that version.\n\n{body}"
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
