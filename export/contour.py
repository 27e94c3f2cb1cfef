"""Pack a trained contour network into a bundle, and verify the bundle before it is put in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from lungstage.appliance.contour.prompts import CHANNELS, Prompt
from lungstage.appliance.model import sealed
from lungstage.appliance.model.bundle_files import CONTOUR_FILES, sha256
from lungstage.appliance.model.contour_bundle import (
    ContourFigures,
    ContourManifest,
    ContourProvenance,
    GoldenContour,
    golden_case,
    load_contour_bundle,
)
from lungstage.appliance.model.contour_network import ContourNetwork
from lungstage.appliance.radiomics import phantom
from lungstage.export import contour_card
from lungstage.export.bundle import put_down
from lungstage.export.contour_graph import TOLERANCE, build_contour_graph
from lungstage.training.contour.run import ContourRun
from lungstage.training.contour.training import as_function

_GOLDEN: Final = Prompt("diameter", ((-15.0, 0.0, 1.0), (15.0, 0.0, 1.0)), exclude=((0.0, 18.0, 1.0),))
"""Prompt of the golden case, on the generated phantom."""

_SIDES: Final = ((64, 64, 64), (32, 72, 80))


def build_contour(run: ContourRun, folder: Path) -> float:
    """Pack `run` into the bundle `folder`; the folder's name becomes the bundle's name.

    Returns
    -------
    float
        Largest difference of a logit between the graph and the trained network.

    Raises
    ------
    Refused
        ``bundle_invalid``: `folder` exists and is not a contour bundle, or the graph is not acceptable.
        ``bundle_self_test_failed``.
    ArithmeticError
        The graph does not compute the trained network, or draws nothing on the phantom.
    """
    contents, difference = pack_contour(run, folder.resolve().name)
    put_down(contents, folder, CONTOUR_FILES, load_contour_bundle)
    return difference


def pack_contour(run: ContourRun, name: str) -> tuple[dict[str, bytes], float]:
    """Create the bundle's files in memory: contents by file name, and the difference of :func:`build_contour`."""
    model = build_contour_graph(run.network).SerializeToString(deterministic=True)
    network = ContourNetwork(model)
    difference = _difference(run, network)
    voxels, centre = golden_case(network, phantom.NAME, _GOLDEN)
    if not voxels:
        raise ArithmeticError("the network draws nothing on the phantom, so the bundle has no golden case")
    record = run.record
    version = f"{record['versions']['lungstage']}+{sha256(model)[:8]}"
    figures = tuple(_figures(record["figures"]))
    provenance = ContourProvenance(
        cohort=record["cohort"]["name"],
        source=record["cohort"]["source"],
        licence=record["cohort"]["licence"],
        patients=len(record["trained_on"]),
        held_out=len(record["held_out"]),
        steps=record["plan"]["steps"],
        seed=record["plan"]["seed"],
        versions=dict(sorted(record["versions"].items())),
    )
    contents = {
        "model.onnx": model,
        "MODEL_CARD.md": contour_card.render(name, version, provenance, figures, sha256(model)).encode(),
    }
    ends = _GOLDEN.points[0], _GOLDEN.points[1]
    manifest = ContourManifest(
        schema_version=1,
        kind="contour",
        name=name,
        version=version,
        research_use_only=True,
        files={file: sha256(content) for file, content in sorted(contents.items())},
        channels=CHANNELS,
        provenance=provenance,
        figures=figures,
        golden=GoldenContour(
            phantom=phantom.NAME, diameter=ends, include=_GOLDEN.include, exclude=_GOLDEN.exclude,
            voxels=voxels, centre=centre,
        ),
    )  # fmt: skip
    return {**contents, "manifest.json": sealed.render(manifest)}, difference


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[ContourFigures]:
    for method, found in figures.items():
        yield ContourFigures(method=method, **found)


def _difference(run: ContourRun, network: ContourNetwork) -> float:
    """Compare graph and trained network on random windows."""
    rng = np.random.default_rng(0)
    trained, largest = as_function(run.network), 0.0
    for sides in _SIDES:
        hu = rng.normal(-400, 400, sides).astype(np.float32)
        told = rng.random((len(CHANNELS), *sides), dtype=np.float32)
        largest = max(largest, float(np.abs(network(hu, told) - trained(hu, told)).max()))
    if not largest <= TOLERANCE:
        raise ArithmeticError(f"the graph does not compute the trained network: a logit differs by {largest}")
    return largest
