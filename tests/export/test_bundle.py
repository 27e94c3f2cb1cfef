from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, STAGE_GROUP
from lungstage.appliance.model.bundle import BUNDLE_FILES, load_bundle
from lungstage.appliance.report.vocabulary import CONCEPTS
from lungstage.export import bundle as packing
from lungstage.export.bundle import build, pack
from lungstage.training.run import Run

from .conftest import SURVIVAL, make_run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_builds_of_one_run_are_byte_identical(run: Run, packed: Path, tmp_path: Path) -> None:
    run.save(tmp_path / "run")
    build(Run.load(tmp_path / "run"), tmp_path / "again" / packed.name)
    assert contents(packed) == contents(tmp_path / "again" / packed.name)
    assert set(contents(packed)) == BUNDLE_FILES


def test_manifest_says_what_the_run_says(run: Run, packed: Path) -> None:
    manifest = load_bundle(packed).manifest
    record = run.record
    assert manifest.name == packed.name
    assert manifest.feature_names == run.model.features
    for entry, median in zip(manifest.features, run.model.preprocessing.median, strict=True):
        assert entry.training_median == median
        assert entry.training_quantiles == record["envelope"][entry.name]
        assert (entry.unit, entry.ibsi) == (CONCEPTS[entry.name].unit, CONCEPTS[entry.name].ibsi)
    assert manifest.decision.early_min_probability == record["conformal"]["early_min_probability"]
    assert manifest.decision.advanced_min_probability == record["conformal"]["advanced_min_probability"]
    assert manifest.intended_use.domain_distance_warn == 5.0
    assert manifest.intended_use.domain_distance_max == 13.0
    assert manifest.intended_use.neighbour_distance_warn == 1.25
    assert manifest.intended_use.neighbour_distance_max == 3.0
    assert manifest.endpoint.endpoint == STAGE_GROUP
    assert (manifest.covariates, manifest.golden.covariates) == ((), {})
    assert manifest.provenance.prevalence_advanced == 98 / 160
    assert (manifest.provenance.rows, manifest.provenance.rows_excluded) == (160, 35)
    assert manifest.provenance.licence == "CC BY-NC 3.0"
    assert manifest.slice_margin == 1


def test_another_endpoint_is_packed_under_its_own_names() -> None:
    files, _ = pack(make_run(endpoint=SURVIVAL), "survival")
    manifest = json.loads(files["manifest.json"])
    assert manifest["endpoint"] == {"name": "two-year survival", "negative": "alive", "positive": "dead"}
    assert "two-year survival" in manifest["intended_use"]["statement"]


def test_no_row_of_the_training_table_is_in_the_model_file(run: Run, packed: Path) -> None:
    proto = onnx.load_from_string((packed / "model.onnx").read_bytes())
    shapes = {tuple(t.dims) for t in proto.graph.initializer}
    assert run.model.domain_references.shape in shapes
    assert not any(run.record["table"]["used"] in shape for shape in shapes)


def test_version_follows_the_model(run: Run, packed: Path) -> None:
    model = hashlib.sha256((packed / "model.onnx").read_bytes()).hexdigest()
    assert load_bundle(packed).manifest.version == f"0.1.0+{model[:8]}"


def test_the_model_file_carries_the_extraction_spec(packed: Path) -> None:
    session = onnxruntime.InferenceSession((packed / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    carried = session.get_modelmeta().custom_metadata_map
    assert carried["extraction.yaml"] == (packed / "extraction.yaml").read_text()
    assert carried["features"].split("\n") == [
        e["name"] for e in json.loads((packed / "manifest.json").read_text())["features"]
    ]


def test_stock_pyradiomics_takes_the_extraction_file(run: Run, packed: Path) -> None:
    from radiomics import featureextractor

    extractor = featureextractor.RadiomicsFeatureExtractor(str(packed / "extraction.yaml"))
    enabled = {f"original_{group}_{name}" for group, names in extractor.enabledFeatures.items() for name in names}
    assert enabled == set(run.model.features)
    assert extractor.settings["binWidth"] == 25
    assert extractor.settings["resampledPixelSpacing"] == [1, 1, 1]
    assert extractor.settings["interpolator"] == "sitkLinear"


def test_an_existing_bundle_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "name"
    build(make_run(0), folder)
    before = contents(folder)
    build(make_run(1), folder)
    after = contents(folder)
    assert before["model.onnx"] != after["model.onnx"]
    load_bundle(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_folder_that_is_no_bundle_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(Refused) as caught:
        build(run, tmp_path)
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID
    assert contents(tmp_path) == {"thesis.docx": b"years of work"}


def test_a_bundle_that_fails_its_proof_never_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "name"
    build(make_run(0), folder)
    before = contents(folder)
    golden = packing._golden

    def wrong(*args: Any) -> Any:
        case = golden(*args)
        return case.model_copy(update={"probability_advanced": 1.0 - case.probability_advanced})

    monkeypatch.setattr(packing, "_golden", wrong)
    with pytest.raises(Refused) as caught:
        build(make_run(1), folder)
    assert caught.value.reason.code is ReasonCode.BUNDLE_SELF_TEST_FAILED
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_graph_that_is_not_the_model_is_a_defect(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    build_graph = packing.build_graph
    other = make_run(1).model
    model = dataclasses.replace(other, features=run.model.features)
    monkeypatch.setattr(packing, "build_graph", lambda _, metadata: build_graph(model, metadata))
    with pytest.raises(ArithmeticError):
        pack(run, "name")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda extraction: extraction.update(normalize=True),
        lambda extraction: extraction.update(binWidth=-1),
        lambda extraction: extraction.update(interpolator="sitkGaussian"),
    ],
)
def test_settings_that_the_appliance_cannot_measure_with_are_refused(spoil: Callable[[dict[str, Any]], None]) -> None:
    run = make_run()
    spoil(run.record["extraction"])
    with pytest.raises(Refused) as caught:
        pack(run, "name")
    assert caught.value.reason.code is ReasonCode.SPEC_UNSUPPORTED


def test_features_that_the_appliance_cannot_measure_are_refused_by_name() -> None:
    run = make_run()
    filtered = ("wavelet-LLH_glcm_Idm", "original_shape2D_Perimeter")
    model = dataclasses.replace(run.model, features=(*filtered, *run.model.features[2:]))
    with pytest.raises(Refused, match="cannot measure: wavelet-LLH_glcm_Idm, original_shape2D_Perimeter") as caught:
        pack(dataclasses.replace(run, model=model), "name")
    assert caught.value.reason.code is ReasonCode.SPEC_UNSUPPORTED


def test_every_feature_can_be_packed() -> None:
    run = make_run(k=len(ALL_FEATURES))
    files, _ = pack(run, "all")
    golden = json.loads(files["manifest.json"])["golden"]["features"]
    assert set(golden) == set(ALL_FEATURES)
    assert np.isfinite(list(golden.values())).all()
