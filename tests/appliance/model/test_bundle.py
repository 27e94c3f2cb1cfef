from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS
from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.model import bundle as bundles
from lungstage.appliance.model import bundle_files as bundlefiles
from lungstage.appliance.model.bundle import BUNDLE_FILES, load_bundle
from lungstage.appliance.model.manifest import parse, render
from lungstage.appliance.radiomics import phantom
from lungstage.appliance.radiomics.extract import place_on_grid
from lungstage.appliance.staging import phantom as phantom_study
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.export.bundle import build
from lungstage.export.graph import build_graph
from tests.export.conftest import make_model, make_run
from tests.support.covariates import AGE, HISTOLOGY, SEX


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "made-up"
    build(make_run(), folder)
    return folder


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def reseal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda document: None) -> None:
    """Write the manifest again with `change`, and with correct hashes and seal, as an expert could."""
    document = json.loads((folder / "manifest.json").read_text())
    for name in document["files"]:
        document["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change(document)
    document.pop("seal", None)  # the seal must be last
    document["seal"] = "0" * 64
    text = (json.dumps(document, indent=2) + "\n").encode()
    seal = hashlib.sha256(text).hexdigest().encode()
    (folder / "manifest.json").write_bytes(re.sub(rb'(?m)^  "seal": "0{64}"', b'  "seal": "' + seal + b'"', text))


def code_of(folder: Path, *, self_test: bool = False) -> ReasonCode:
    with pytest.raises(Refused) as caught:
        load_bundle(folder, self_test=self_test)
    return caught.value.reason.code


def test_a_sound_bundle_loads_and_proves_itself(packed: Path) -> None:
    bundle = load_bundle(packed)
    assert bundle.digest == hashlib.sha256((packed / "manifest.json").read_bytes()).hexdigest()
    assert bundle.spec.features == bundle.manifest.feature_names == make_run().model.features
    assert bundle.spec.resampled_spacing == (1.0, 1.0, 1.0)
    features = bundles.measure_phantom(bundle.manifest.golden.phantom, bundle.spec)
    result = bundle.predictor.predict(features)
    assert result.probability_advanced == pytest.approx(bundle.manifest.golden.probability_advanced, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["manifest.json", "extraction.yaml"])
def test_every_single_byte_of_the_texts_counts(copy: Path, name: str) -> None:
    """The first and last 200 bytes, which contain braces and seal, and every 29th byte between them."""
    content = bytearray((copy / name).read_bytes())
    end = len(content)
    for position in sorted({*range(min(200, end)), *range(max(end - 200, 0), end), *range(0, end, 29)}):
        content[position] ^= 1
        (copy / name).write_bytes(content)
        assert code_of(copy) is ReasonCode.BUNDLE_HASH_MISMATCH, position
        content[position] ^= 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(sorted(BUNDLE_FILES)), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(copy: Path, data: st.DataObject, name: str, bit: int) -> None:
    original = (copy / name).read_bytes()
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= 1 << bit
    (copy / name).write_bytes(changed)
    try:
        assert code_of(copy) is ReasonCode.BUNDLE_HASH_MISMATCH
    finally:
        (copy / name).write_bytes(original)


@pytest.mark.parametrize("name", sorted(BUNDLE_FILES))
@pytest.mark.parametrize("end", ["truncated", "longer", "empty"])
def test_a_longer_or_shorter_file_is_refused(copy: Path, name: str, end: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes({"truncated": content[:-1], "longer": content + b"\n", "empty": b""}[end])
    assert code_of(copy) is ReasonCode.BUNDLE_HASH_MISMATCH


@pytest.mark.parametrize("name", sorted(BUNDLE_FILES))
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert code_of(copy) is ReasonCode.BUNDLE_UNREADABLE


def test_files_that_nobody_vouches_for_are_refused(copy: Path) -> None:
    (copy / "weights.bin").write_bytes(b"")
    assert code_of(copy) is ReasonCode.BUNDLE_INVALID


def test_what_is_no_folder_or_no_file_is_refused(copy: Path, tmp_path: Path) -> None:
    assert code_of(tmp_path / "nowhere") is ReasonCode.BUNDLE_UNREADABLE
    assert code_of(copy / "manifest.json") is ReasonCode.BUNDLE_UNREADABLE
    (copy / "model.onnx").unlink()
    os.mkfifo(copy / "model.onnx")  # reading it would wait for ever
    assert code_of(copy) is ReasonCode.BUNDLE_UNREADABLE


@pytest.mark.parametrize(("name", "most"), [("model.onnx", "MAX_MODEL_BYTES"), ("manifest.json", "MAX_TEXT_BYTES")])
def test_a_file_beyond_the_size_bound_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: str
) -> None:
    size = (copy / name).stat().st_size
    monkeypatch.setattr(bundlefiles, most, size)
    load_bundle(copy, self_test=False)
    monkeypatch.setattr(bundlefiles, most, size - 1)
    assert code_of(copy) is ReasonCode.BUNDLE_UNREADABLE


def test_a_bundle_of_an_earlier_release_loads_and_its_worth_is_not_known(copy: Path, tmp_path: Path) -> None:
    def as_it_was(document: dict[str, Any]) -> None:
        document["schema_version"] = 2
        for name in ("out_of_fold", "worth", "recalibration"):
            document.pop(name)
        for name in ("early_coverage", "advanced_coverage"):
            document["decision"].pop(name)

    reseal(copy, as_it_was)
    bundle = load_bundle(copy)
    assert (bundle.manifest.out_of_fold, bundle.manifest.worth) == (None, None)
    phantom_study.write_study(tmp_path / "study")
    use = bundle.manifest.intended_use.model_copy(update={"domain_distance_max": 1e9, "neighbour_distance_max": 1e9})
    anywhere = replace(bundle, manifest=bundle.manifest.model_copy(update={"intended_use": use}))
    answer = stage_paths(
        [tmp_path / "study"],
        anywhere,
        tmp_path / "out",
        Options(site=Site(0.6), documents=DocumentOptions(("sr",)), robustness=NO_ROBUSTNESS),
    )
    assert answer["status"] == "staged", answer["reason"]
    assert answer["predictive_value"] is None
    assert answer["worth"]["shown"] is None
    assert "does not say whether the model is better" in answer["worth"]["sentence"]


def _set(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split("/")
    node: Any = document
    for part in parents:
        node = node[int(part) if isinstance(node, list) else part]
    node[int(last) if isinstance(node, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("more", 1),
        ("decision/more", 1),
        ("schema_version", 1),
        ("schema_version", "2"),
        ("research_use_only", False),
        ("decision/alpha", float("nan")),
        ("decision/early_min_probability", 1.5),
        ("golden/probability_advanced", float("inf")),
        ("golden/features/original_shape_Flatness_", 1.0),
        ("features/0/training_median", "3"),
        ("features/0/training_quantiles/0.5", float("-inf")),
        ("features/0/training_quantiles/0", 1e12),
        ("features/0/training_quantiles/0.3", 0.0),
        ("features/0/name", "original_shape_Weight"),
        ("features", []),
        ("files/more.txt", "0" * 64),
        ("files/model.onnx", "0" * 63),
        ("roi_rule/name_patterns/0", "gtv("),
        ("intended_use/modality", "MR"),
        ("intended_use/hu_range", [10.0, 10.0]),
        ("intended_use/hu_range", [10.0]),
        ("intended_use/domain_distance_max", 0.0),
        ("intended_use/neighbour_distance_max", 0.0),
        ("intended_use/neighbour_distance_warn", -1.0),
        ("endpoint/negative", "advanced"),
        ("endpoint/positive", "indeterminate"),
        ("endpoint/name", "a\\b"),
        ("endpoint/name", "two\nlines"),
        ("endpoint/name", ""),
        ("endpoint/name", "n" * 65),
        ("endpoint/more", "x"),
        ("covariates", [{"name": "age", "levels": [], "columns": []}]),
        ("golden/covariates", {"age": 60.0}),
        ("provenance/prevalence_advanced", 0.0),
        ("provenance/prevalence_advanced", 1.0),
        ("slice_margin", 1.5),
        ("slice_margin", 0),
        ("provenance/table_sha256", "none"),
    ],
)
def test_a_sealed_manifest_that_is_wrong_is_refused(copy: Path, path: str, value: object) -> None:
    reseal(copy)
    load_bundle(copy, self_test=False)
    reseal(copy, lambda document: _set(document, path, value))
    assert code_of(copy) is ReasonCode.BUNDLE_INVALID


@pytest.fixture(scope="module")
def packed_with_covariates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clinical"
    build(make_run(covariates=(AGE, SEX, HISTOLOGY)), folder)
    return folder


def test_covariates_are_described_and_have_a_say_in_the_golden_case(packed_with_covariates: Path) -> None:
    bundle = load_bundle(packed_with_covariates)
    steps, golden = make_run(covariates=(AGE, SEX, HISTOLOGY)).model.preprocessing, bundle.manifest.golden
    assert tuple(entry.covariate for entry in bundle.manifest.covariates) == (AGE, SEX, HISTOLOGY)
    columns = [column for entry in bundle.manifest.covariates for column in entry.columns]
    assert [column.name for column in columns] == ["age", "sex=M", *HISTOLOGY.columns]
    assert [column.training_median for column in columns] == steps.median[15:].tolist()
    assert [column.limits for column in columns] == list(
        zip(steps.lower[15:].tolist(), steps.upper[15:].tolist(), strict=True)
    )
    assert golden.covariates == {"age": steps.upper[15], "sex": "M", "histology": HISTOLOGY.levels[-1]}
    features = bundles.measure_phantom(golden.phantom, bundle.spec)
    without = bundle.predictor.predict(features).probability_advanced
    assert abs(without - golden.probability_advanced) > bundles.PROBABILITY_TOLERANCE


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("covariates/0/name", "ajcc_stage"),
        ("covariates/0/levels", ["young", "old"]),
        ("covariates/0/columns/0/limits", [90.0, 40.0]),
        ("covariates/0/columns/0/training_median", float("nan")),
        ("covariates/0/columns/0/name", "years"),
        ("covariates/1/levels", ["male", "female"]),
        ("covariates/1/levels", ["M", "F"]),  # another reference level than the graph's
        ("covariates/2/levels", ["adenocarcinoma", "Adenocarcinoma", "large cell carcinoma"]),
        ("covariates/2/levels", ["adenocarcinoma"]),
        ("covariates/2/columns", []),
        ("covariates/2/more", 1),
        ("covariates", []),
        ("golden/covariates", {}),
        ("golden/covariates/age", True),
    ],
)
def test_covariates_that_the_graph_was_not_built_for_are_refused(
    packed_with_covariates: Path, tmp_path: Path, path: str, value: object
) -> None:
    copy = Path(shutil.copytree(packed_with_covariates, tmp_path / "copy"))
    reseal(copy, lambda document: _set(document, path, value))
    assert code_of(copy) is ReasonCode.BUNDLE_INVALID


def test_the_order_of_the_covariates_is_the_graphs(packed_with_covariates: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(packed_with_covariates, tmp_path / "copy"))
    reseal(copy, lambda document: document["covariates"].reverse())
    assert code_of(copy) is ReasonCode.BUNDLE_INVALID


def test_all_problems_are_named_at_once_by_their_paths(copy: Path) -> None:
    def spoil(document: dict[str, Any]) -> None:
        _set(document, "decision/alpha", "x")
        _set(document, "features/3/unit", 5)
        document["intended_use"].pop("statement")

    reseal(copy, spoil)
    with pytest.raises(Refused) as caught:
        load_bundle(copy)
    for place in ("decision.alpha", "features.3.unit", "intended_use.statement"):
        assert place in caught.value.reason.message


def test_a_manifest_that_is_not_an_object_is_refused() -> None:
    body = b'[\n  "seal": "' + b"0" * 64 + b'"\n]'
    seal = hashlib.sha256(body).hexdigest().encode()
    with pytest.raises(Refused) as caught:
        parse(body.replace(b"0" * 64, seal))
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID


def test_a_second_seal_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes() + b'\n  "seal": "' + b"0" * 64 + b'"\n')
    assert code_of(copy) is ReasonCode.BUNDLE_HASH_MISMATCH


def test_manifest_survives_writing_and_reading(packed: Path) -> None:
    content = (packed / "manifest.json").read_bytes()
    assert render(parse(content)) == content


def swap_two_features(document: dict[str, Any]) -> None:
    features = document["features"]
    features[0], features[1] = features[1], features[0]


def test_another_order_than_the_models_is_refused(copy: Path) -> None:
    reseal(copy, swap_two_features)
    assert code_of(copy) is ReasonCode.BUNDLE_INVALID


def test_another_extraction_than_the_models_is_refused(copy: Path) -> None:
    path = copy / "extraction.yaml"
    path.write_text(path.read_text().replace("binWidth: 25", "binWidth: 20"))
    reseal(copy)
    assert code_of(copy) is ReasonCode.BUNDLE_INVALID


def test_an_extraction_that_pyradiomics_would_not_take_is_refused(copy: Path) -> None:
    path = copy / "extraction.yaml"
    path.write_text(path.read_text() + "more: 1\n")
    reseal(copy)
    assert code_of(copy) is ReasonCode.BUNDLE_INVALID


def test_another_model_fails_the_self_test_alone(packed: Path, copy: Path) -> None:
    first = make_run().model
    other = make_model(1)
    metadata = {"features": "\n".join(first.features), "extraction.yaml": (copy / "extraction.yaml").read_text()}
    (copy / "model.onnx").write_bytes(build_graph(other, metadata).SerializeToString())
    reseal(copy)
    load_bundle(copy, self_test=False)
    assert code_of(copy, self_test=True) is ReasonCode.BUNDLE_SELF_TEST_FAILED


@pytest.mark.parametrize(("factor", "passes"), [(1 + 1e-11, True), (1 + 1e-8, False), (1 - 1e-8, False)])
def test_golden_features_are_held_to_1e_9(copy: Path, factor: float, passes: bool) -> None:
    def scale(document: dict[str, Any]) -> None:
        golden = document["golden"]["features"]
        name = max(golden, key=lambda key: abs(golden[key]))
        golden[name] *= factor

    reseal(copy, scale)
    if passes:
        load_bundle(copy)
    else:
        assert code_of(copy, self_test=True) is ReasonCode.BUNDLE_SELF_TEST_FAILED


@pytest.mark.parametrize(("shift", "passes"), [(5e-7, True), (2e-6, False), (-2e-6, False)])
def test_golden_probability_is_held_to_1e_6(copy: Path, shift: float, passes: bool) -> None:
    def move(document: dict[str, Any]) -> None:
        document["golden"]["probability_advanced"] += shift

    reseal(copy, move)
    if passes:
        load_bundle(copy)
    else:
        assert code_of(copy, self_test=True) is ReasonCode.BUNDLE_SELF_TEST_FAILED


def test_a_phantom_that_this_version_cannot_make_is_refused(copy: Path) -> None:
    reseal(copy, lambda document: _set(document, "golden/phantom", "cube-9"))
    assert code_of(copy, self_test=True) is ReasonCode.BUNDLE_INVALID


def test_the_self_test_measures_through_the_real_steps(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = phantom.make

    def one_voxel_brighter(name: str) -> Any:
        volume, mask = make(name)
        array = np.array(volume.array)
        array[tuple(np.argwhere(mask)[0])] += 400
        return volume.with_array(array), mask

    monkeypatch.setattr(phantom, "make", one_voxel_brighter)
    assert code_of(packed, self_test=True) is ReasonCode.BUNDLE_SELF_TEST_FAILED


def test_no_voxel_of_the_golden_case_lies_near_a_bin_edge() -> None:
    # With the shipped spec: rounding could move a value on an edge into either bin.
    spec = ExtractionSpec(
        ("original_glcm_Contrast",),
        {"binWidth": 25, "interpolator": "sitkLinear", "resampledPixelSpacing": [1, 1, 1]},
    )
    roi = place_on_grid(*phantom.make(), spec)
    values = roi.image[roi.mask].astype(float)
    assert np.abs(values - 25 * np.round(values / 25)).min() > 1e-3
