"""IBSI's consensus values for digital phantom and CT (A, B) are met, or missed for a tested reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.commissioning.ibsi_tags import NOT_IN_IBSI, TAGS
from lungstage.appliance.contract.spec import ALL_FEATURES
from lungstage.appliance.radiomics.extract import extract
from tests.appliance.radiomics.consensus import (
    CASES,
    IN_PLANE,
    IN_PLANE_MERGED,
    IN_SPACE,
    IN_SPACE_MERGED,
    PHANTOM,
    A,
    Aggregation,
    B,
    Configuration,
    agreements,
    agrees,
    consensus,
    load,
    measured,
    on_pyradiomics_grid,
    steps,
)
from tests.long.conformance import ibsi_table

EVERY = [
    pytest.param(configuration, aggregation, feature, id=f"{configuration.name}-{tag}")
    for configuration, aggregation in CASES
    for feature, tag in configuration.compared(aggregation)
]
of_the_ct = pytest.mark.parametrize("configuration", [A, B], ids=["A", "B"])


def test_every_feature_is_accounted_for() -> None:
    every = {name.removeprefix("original_") for name in ALL_FEATURES}
    assert every == {*TAGS, *NOT_IN_IBSI}
    assert not TAGS.keys() & NOT_IN_IBSI


@pytest.mark.parametrize(("configuration", "aggregation", "feature"), EVERY)
def test_consensus_value(
    configuration: Configuration, aggregation: Aggregation, feature: str, shared_data: Path
) -> None:
    (row,) = (row for row in agreements(shared_data, configuration, aggregation) if row.name == feature)
    assert row.met, row


@of_the_ct
def test_image_and_mask_after_each_step(configuration: Configuration, shared_data: Path) -> None:
    rows = list(steps(shared_data, configuration))
    assert [row for row in rows if not row.met] == []
    # All consensus values of this kind are compared.
    published = {tag for tag in consensus(shared_data, configuration) if tag.endswith(("_img", "_roi"))}
    assert {row.tag for row in rows} == published


def test_agreement_is_ibsi_s() -> None:
    assert agrees(0.6985, 0.698, 0.001)
    assert not agrees(0.6996, 0.698, 0.001)
    assert agrees(125256, 125256, 0)
    assert not agrees(125257, 125256, 0)
    assert not agrees(-0.157, 0.157, 0.1)


# --- what differs, and why ----------------------------------------------------------------------------------------


def test_definitions_that_differ_do_so_for_just_the_reason_that_is_given(shared_data: Path) -> None:
    otherwise = {
        configuration.name: {
            row.name: row
            for row in agreements(shared_data, configuration, configuration.aggregations[0])
            if row.defined_otherwise
        }
        for configuration in (PHANTOM, A, B)
    }
    axes = {"shape_LeastAxisLength", "shape_MinorAxisLength"}
    assert otherwise[PHANTOM.name].keys() == {"firstorder_Kurtosis", *axes}
    # With the number of voxels of the CT's tumour, n and n - 1 are the same to three digits.
    assert otherwise[A.name].keys() == otherwise[B.name].keys() == {"firstorder_Kurtosis"}
    for rows in otherwise.values():
        for row in rows.values():
            assert not agrees(row.ours, row.consensus, row.tolerance)
            assert agrees(row.as_defined, row.consensus, row.tolerance)


SUFFIXES = ("_2D_avg", "_2D_comb", "_2_5D_avg", "_2_5D_comb", "_3D_avg", "_3D_comb")


@pytest.mark.parametrize(
    ("configuration", "aggregation"), CASES, ids=[f"{c.name}-{a.directional[1:]}" for c, a in CASES]
)
def test_a_setting_gives_one_aggregation_and_no_other(
    configuration: Configuration, aggregation: Aggregation, shared_data: Path
) -> None:
    """The values show what `force2D` and `weightingNorm` do: textures agree with only one of IBSI's aggregations."""
    values, published = measured(shared_data, configuration, aggregation), consensus(shared_data, configuration)
    directional = [name for name in TAGS if name.startswith(("glcm_", "glrlm_"))]
    agreeing = {
        suffix
        for suffix in SUFFIXES
        if all(
            (tag := TAGS[name] + suffix) in published and agrees(values[name], *published[tag]) for name in directional
        )
    }
    assert agreeing == {aggregation.directional}
    others = [name for name in TAGS if name.startswith(("glszm_", "gldm_", "ngtdm_"))]
    agreeing = {
        suffix
        for suffix in ("_2D", "_2_5D", "_3D")
        if all((tag := TAGS[name] + suffix) in published and agrees(values[name], *published[tag]) for name in others)
    }
    flat = aggregation in (IN_PLANE, IN_PLANE_MERGED)
    assert agreeing == {"_2_5D" if flat else "_3D"}
    assert flat or aggregation in (IN_SPACE, IN_SPACE_MERGED)


def test_pyradiomics_own_grid_does_not_meet_configuration_b(shared_data: Path) -> None:
    """The grid is necessary: on PyRadiomics' own grid, half of the features miss the consensus."""
    missed = [row.name for row in on_pyradiomics_grid(shared_data, B) if not row.met]
    assert len(missed) > 40
    # Without resampling, the two grids are the same.
    assert all(row.met for row in on_pyradiomics_grid(shared_data, A))


# --- the appliance's way to the same values -----------------------------------------------------------------------


@of_the_ct
def test_slices_of_the_region_are_enough_where_slices_are_kept(configuration: Configuration, shared_data: Path) -> None:
    """Reference volume and image have the same centre in the plane, so the whole series gives the same numbers."""
    whole = extract(*load(shared_data, "ct_phantom"), configuration.spec(IN_PLANE)).as_dict()
    ours = measured(shared_data, configuration, IN_PLANE)
    assert {name.removeprefix("original_"): value for name, value in whole.items()} == pytest.approx(ours, rel=1e-7)


@pytest.mark.parametrize("case", [(PHANTOM, IN_SPACE), (B, IN_PLANE)], ids=["phantom", "B"])
def test_pyradiomics_own_classes_give_the_same(case: tuple[Configuration, Aggregation], shared_data: Path) -> None:
    configuration, aggregation = case
    volume, mask = load(shared_data, "digital_phantom" if configuration is PHANTOM else "ct_phantom")
    spec = configuration.spec(aggregation)
    theirs = extract(volume, mask, replace(spec, engine="reference")).as_dict()
    assert extract(volume, mask, spec).as_dict() == pytest.approx(theirs, rel=1e-9)


@of_the_ct
def test_the_command_gives_what_the_page_says(configuration: Configuration, shared_data: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(configuration.text(IN_PLANE))
    command = ["measure", str(shared_data / "ibsi/ct_phantom/dicom"), "--spec", str(spec), "--json"]
    done = CliRunner().invoke(app, [*command, "--grid", "ibsi"], catch_exceptions=False)
    answer = json.loads(done.stdout)
    assert answer["roi"]["voxels"] == 125256
    features = {name.removeprefix("original_"): value for name, value in answer["features"].items()}
    assert features == measured(shared_data, configuration, IN_PLANE)
    refused = CliRunner().invoke(app, command, catch_exceptions=False)
    assert refused.exit_code == 3
    assert json.loads(refused.stdout)["reason"]["code"] == "spec_unsupported"


def test_the_page_is_what_the_command_writes(shared_data: Path) -> None:
    assert ibsi_table.PAGE.read_text(encoding="utf-8") == ibsi_table.render(shared_data)
