"""Pack a training run into a bundle, and verify the bundle before it is put in place."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.model.bundle import BUNDLE_FILES, carried_texts, load_bundle, measure_phantom
from lungstage.appliance.model.bundle_files import SIGNATURE_FILE
from lungstage.appliance.model.inference import Predictor
from lungstage.appliance.model.manifest import (
    QUANTILES,
    ContourSource,
    CovariateColumn,
    CovariateEntry,
    Decision,
    EndpointEntry,
    FeatureEntry,
    GoldenCase,
    Manifest,
    OutOfFold,
    Provenance,
)
from lungstage.appliance.model.manifest import render as render_manifest
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics import parameters, phantom
from lungstage.appliance.report.vocabulary import CONCEPTS
from lungstage.export import card
from lungstage.export.graph import build_graph
from lungstage.export.intended_use import intended_use
from lungstage.export.parity import Parity, prove
from lungstage.export.worth import require_shown, worth_of
from lungstage.training.run import FittedModel, Run, prevalence


def build(run: Run, folder: Path, *, strict: bool = False) -> Parity:
    """Pack `run` into the bundle `folder`; the folder's name becomes the bundle's name.

    Parameters
    ----------
    run
        The fitted model and its record.
    folder
        Folder of the bundle. An existing bundle is replaced, including its signature. Any other folder is not changed.
    strict
        Refuse a model that is not shown to beat chance and the best simple model.

    Returns
    -------
    Parity
        Largest differences between the graph and the fitted model.

    Raises
    ------
    Refused
        ``bundle_invalid``: `folder` exists and is not a bundle. ``spec_unsupported``: the appliance cannot measure the
        model's features or extraction settings. ``worth_not_shown``: see `strict`.
    ArithmeticError
        The graph does not compute the fitted model.

    Notes
    -----
    The files are written next to the target, loaded with the self-test, and then renamed into place. The same run gives
    the same bytes.
    """
    folder = folder.resolve()
    _require_replaceable(folder)
    if strict:
        require_shown(worth_of(run))
    contents, parity = pack(run, folder.name)
    put_down(contents, folder)
    return parity


def put_down(
    contents: Mapping[str, bytes],
    folder: Path,
    files: frozenset[str] = BUNDLE_FILES,
    load: Callable[[Path], object] = load_bundle,
) -> None:
    """Write a bundle's files next to `folder`, verify the bundle, and then rename it into place.

    Parameters
    ----------
    contents
        The files by name.
    folder
        Folder of the bundle.
    files
        Names of the files of such a bundle; a folder with others is not replaced.
    load
        Verifies the bundle.

    Raises
    ------
    Refused
        As :func:`build` and :func:`model.bundle.load_bundle`.
    """
    folder = folder.resolve()
    _require_replaceable(folder, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not a folder of tempfile: other users cannot read those, and the appliance runs as another user.
    fresh, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}") for kind in ("new", "old"))
    try:
        _write(contents, fresh)
        load(fresh)
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def pack(run: Run, name: str) -> tuple[dict[str, bytes], Parity]:
    """Create the bundle's files in memory.

    Returns
    -------
    tuple
        Contents by file name, and the parity of the graph with the fitted model.
    """
    model, record = run.model, run.record
    if unknown := [feature for feature in model.features if feature not in ALL_FEATURES]:
        raise Refused(
            ReasonCode.SPEC_UNSUPPORTED,
            f"The model uses features that the appliance cannot measure: {', '.join(unknown)}. Fit it without them.",
        )
    # Read by the appliance's reader, which refuses settings that the appliance cannot measure.
    extraction = parameters.render(ExtractionSpec(model.features, record["extraction"]))
    spec = parameters.parse(extraction, order=model.features)
    graph = build_graph(model, carried_texts(model.features, model.covariates, extraction))
    onnx_model = graph.SerializeToString(deterministic=True)
    parity = prove(model, onnx_model)
    entries, covariates = _entries(model, record["envelope"]), _covariates(model)
    decision, out_of_fold = _decision(record["conformal"]), _out_of_fold(record)
    # The version contains the model's hash, because the same software can fit another model.
    version = f"{record['versions']['lungstage']}+{_sha256(onnx_model)[:8]}"
    use = intended_use(record["domain"], run.endpoint)
    contents = {
        "model.onnx": onnx_model,
        "extraction.yaml": extraction.encode("utf-8"),
        "MODEL_CARD.md": card.render(
            name, version, run, entries, covariates, use, decision, out_of_fold, _sha256(onnx_model)
        ).encode("utf-8"),
    }
    manifest = Manifest(
        schema_version=3,
        name=name,
        version=version,
        research_use_only=True,
        files={file: _sha256(content) for file, content in sorted(contents.items())},
        endpoint=EndpointEntry(**asdict(run.endpoint)),
        features=entries,
        covariates=covariates,
        slice_margin=spec.margin_slices,
        pixel_type="int16 if the rescale is integral, else float64",
        roi_rule=ROI_RULE,
        intended_use=use,
        decision=decision,
        provenance=_provenance(record),
        golden=_golden(spec, Predictor(onnx_model, entries, decision, model.covariates), covariates),
        out_of_fold=out_of_fold,
        worth=worth_of(run),
        contour_sources=_contour_sources(record),
    )
    return {**contents, "manifest.json": render_manifest(manifest)}, parity


def _entries(model: FittedModel, envelope: Mapping[str, Mapping[str, float]]) -> tuple[FeatureEntry, ...]:
    return tuple(
        FeatureEntry(
            name=name,
            unit=CONCEPTS[name].unit,
            ibsi=CONCEPTS[name].ibsi,
            training_median=float(median),
            training_quantiles={key: float(envelope[name][key]) for key in QUANTILES},
        )
        for name, median in zip(model.features, model.preprocessing.median[: len(model.features)], strict=True)
    )


def _covariates(model: FittedModel) -> tuple[CovariateEntry, ...]:
    steps = model.preprocessing
    inputs = zip(steps.median.tolist(), steps.lower.tolist(), steps.upper.tolist(), strict=True)
    following = itertools.islice(inputs, len(model.features), None)
    entries = []
    for covariate in model.covariates:
        columns = [
            CovariateColumn(name=name, training_median=median, limits=(lower, upper))
            for name, (median, lower, upper) in zip(covariate.columns, following, strict=False)
        ]
        entries.append(CovariateEntry(name=covariate.name, levels=covariate.levels, columns=tuple(columns)))
    return tuple(entries)


def _decision(conformal: Mapping[str, Any]) -> Decision:
    early, advanced = (conformal.get(f"{name}_coverage") for name in ("early", "advanced"))
    return Decision(
        alpha=float(conformal["alpha"]),
        early_min_probability=float(conformal["early_min_probability"]),
        advanced_min_probability=float(conformal["advanced_min_probability"]),
        early_coverage=early and (float(early[0]), float(early[1])),
        advanced_coverage=advanced and (float(advanced[0]), float(advanced[1])),
    )


def _out_of_fold(record: Mapping[str, Any]) -> OutOfFold | None:
    """Return the out-of-fold results; None for a run of an earlier release."""
    found = record.get("reached")
    if found is None:
        return None
    return OutOfFold(
        positives=found["positives"],
        negatives=found["negatives"],
        thresholds=tuple(found["thresholds"]),
        positives_at_least=tuple(found["positives_at_least"]),
        negatives_at_least=tuple(found["negatives_at_least"]),
    )


def _contour_sources(record: Mapping[str, Any]) -> tuple[ContourSource, ...] | None:
    """Return who drew the contours; None for a run of an earlier release."""
    drawn: Sequence[ContourSource] | None = record["cohort"].get("contours")
    return None if drawn is None else tuple(drawn)


def _provenance(record: Mapping[str, Any]) -> Provenance:
    table, cohort = record["table"], record["cohort"]
    return Provenance(
        cohort=cohort["name"],
        source=cohort["source"],
        licence=cohort["licence"],
        table_sha256=table["sha256"],
        rows=table["used"],
        rows_excluded=sum(table["excluded"].values()),
        prevalence_advanced=prevalence(table),
        stages_absent=tuple(cohort["stages_absent"]),
        seed=record["seed"],
        versions=dict(sorted(record["versions"].items())),
    )


def _golden(spec: ExtractionSpec, predictor: Predictor, covariates: tuple[CovariateEntry, ...]) -> GoldenCase:
    # The covariates get values away from the median, so that the golden case tests their part of the graph.
    values = {entry.name: entry.levels[-1] if entry.levels else entry.columns[0].limits[1] for entry in covariates}
    features = measure_phantom(phantom.NAME, spec)
    if not np.isfinite(features.values).all():
        raise ArithmeticError("a selected feature is not defined on the phantom, so the bundle has no golden case")
    return GoldenCase(
        phantom=phantom.NAME,
        features=dict(zip(features.names, features.values.tolist(), strict=True)),
        covariates=values,
        probability_advanced=predictor.predict(features, values).probability_advanced,
    )


def _require_replaceable(folder: Path, files: frozenset[str] = BUNDLE_FILES) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or not {entry.name for entry in folder.iterdir()} <= files | {SIGNATURE_FILE}:
        raise Refused(
            ReasonCode.BUNDLE_INVALID,
            f"{folder.name} exists and is not a bundle, so it is not replaced. Choose another folder with -o.",
        )


def _write(contents: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir()
    for name, content in sorted(contents.items()):
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
