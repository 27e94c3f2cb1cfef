"""Parameter files that are accepted or refused; stock PyRadiomics accepts the files that lungstage writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from radiomics import featureextractor, getFeatureClasses

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.radiomics import parameters


@given(st.lists(st.sampled_from(ALL_FEATURES), min_size=1, max_size=20, unique=True))
def test_render_and_parse_are_inverse(features: list[str]) -> None:
    spec = ExtractionSpec(
        tuple(features), {"binWidth": 25.0, "resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"}
    )
    again = parameters.parse(parameters.render(spec), order=spec.features)
    assert again.features == spec.features
    assert dict(again.settings) == dict(spec.settings)


def test_stock_pyradiomics_takes_what_we_write(tmp_path: Path) -> None:
    spec = ExtractionSpec(
        ALL_FEATURES[::7], {"binWidth": 25.0, "resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"}
    )
    path = tmp_path / "extraction.yaml"
    path.write_text(parameters.render(spec))
    extractor = featureextractor.RadiomicsFeatureExtractor(str(path))
    enabled = {f"original_{group}_{name}" for group, names in extractor.enabledFeatures.items() for name in names}
    assert enabled == set(spec.features)
    assert extractor.settings["resampledPixelSpacing"] == [1, 1, 1]


def test_defaults_are_the_106_at_25_hu() -> None:
    spec = parameters.read("all")
    assert spec.features == ALL_FEATURES
    assert len(spec.features) == 106
    assert dict(spec.settings) == {"binWidth": 25.0}
    assert parameters.parse("setting: {binWidth: 25}").features == ALL_FEATURES


def test_features_are_pyradiomics_own_less_voxel_volume() -> None:
    every = {
        f"original_{group}_{name}"
        for group, feature_class in getFeatureClasses().items()
        if group != "shape2D"
        for name, deprecated in feature_class.getFeatureNames().items()
        if not deprecated
    }
    assert every - {"original_shape_VoxelVolume"} == set(ALL_FEATURES)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("imageType: {Wavelet: {}}", "Wavelet"),
        ("imageType: {Original: {binWidth: 5}}", "imageType: Original"),
        ("featureClass: {shape2D: }", "shape2D"),
        ("featureClass: {glcm: [Contrast, Contrats]}", "Contrats"),
        ("featureClass: {shape: [VoxelVolume]}", "VoxelVolume"),
        ("setting: {normalize: true}", "normalize"),
        ("setting: {resegmentRange: [-100, 200]}", "resegmentRange"),
        ("setting: {binWidth: -5}", "binWidth"),
        ("setting: {binWidth: .nan}", "binWidth"),
        ("setting: {binWidth: wide}", "binWidth"),
        ("setting: {interpolator: sitkLanczosWindowedSinc}", "interpolator"),
        ("setting: {resampledPixelSpacing: [1, 1]}", "resampledPixelSpacing"),
        ("setting: {label: 2}", "label"),
        ("settings: {binWidth: 25}", "settings"),
        ("voxelSetting: {kernelRadius: 2}", "voxelSetting"),
        ("- a\n- b", "mapping"),
        ("a: [", "YAML"),
        ("featureClass: {glcm: [Contrast, Contrast]}", "only once"),
    ],
)
def test_refusals_name_the_entry(text: str, named: str) -> None:
    with pytest.raises(Refused) as refusal:
        parameters.parse(text)
    assert refusal.value.reason.code == ReasonCode.SPEC_UNSUPPORTED
    assert named in refusal.value.reason.message


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        parameters.read(str(tmp_path / "nowhere.yaml"))
