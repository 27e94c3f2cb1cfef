"""A contour network as a bundle: the graph computes it, the bundle tests itself, and a changed byte is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contour.drawing import draw
from lungstage.appliance.contour.prompts import CHANNELS, Prompt
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.doctor import software
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.contour_bundle import load_contour_bundle
from lungstage.appliance.model.contour_network import ContourNetwork as Running
from lungstage.appliance.model.model_file import CONTOUR_OPERATORS, DRAWING, require_plain
from lungstage.appliance.radiomics import phantom
from lungstage.export import cli as export_cli
from lungstage.export.contour import build_contour, pack_contour
from lungstage.export.contour_graph import build_contour_graph
from lungstage.training.contour.network import ContourNetwork
from lungstage.training.contour.training import as_function
from tests.support.ball_network import ball_bundle, ball_run


def random_network() -> ContourNetwork:
    """Return a network with weights and normalisations like those of a trained network."""
    torch.manual_seed(1)
    network = ContourNetwork(width=4, fine=3)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(layer.running_var, 0.3, 2.0)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ball_bundle(tmp_path_factory.mktemp("models") / "ball")


def test_the_graph_computes_the_trained_network_on_every_shape() -> None:
    network = random_network()
    model = build_contour_graph(network).SerializeToString()
    graph, trained = Running(model), as_function(network)
    rng = np.random.default_rng(0)
    for shape in ((64, 64, 64), (32, 40, 72), (8, 16, 24)):
        hu = rng.normal(-300, 500, shape).astype(np.float32)
        told = rng.random((len(CHANNELS), *shape), dtype=np.float32)
        found = graph(hu, told)
        assert found.shape == shape
        np.testing.assert_allclose(found, trained(hu, told), atol=1e-4)
        assert np.ptp(found) > 0.01


def test_an_answer_does_not_depend_on_what_is_far_away() -> None:
    graph = Running(build_contour_graph(random_network()).SerializeToString())
    rng = np.random.default_rng(0)
    hu = rng.normal(-300, 500, (64, 64, 160)).astype(np.float32)
    told = np.zeros((len(CHANNELS), *hu.shape), np.float32)
    whole = graph(hu, told)
    hu[:, :, 152:] = 3000.0
    changed = np.abs(graph(hu, told) - whole).max(axis=(0, 1))
    assert changed[:16].max() == 0
    assert changed[-8:].max() > 0


def test_the_graph_has_exactly_the_operators_that_are_allowed() -> None:
    model = build_contour_graph(random_network())
    assert {node.op_type for node in model.graph.node} == CONTOUR_OPERATORS
    require_plain(model.SerializeToString(), DRAWING)
    model.graph.node.append(onnx.helper.make_node("RandomNormalLike", ["hu"], ["x"]))
    with pytest.raises(Refused, match="operator that is not allowed"):
        require_plain(model.SerializeToString(), DRAWING)


def test_the_same_run_gives_the_same_bytes() -> None:
    first, _ = pack_contour(ball_run(), "ball")
    second, _ = pack_contour(ball_run(), "ball")
    assert first == second


def test_a_bundle_is_verified_on_the_command_line_and_draws(packed: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(packed)])
    assert done.exit_code == 0, done.output
    assert "complete and passes its self-test" in done.stdout
    volume, _ = phantom.make()
    mask = draw(volume, Prompt("diameter", ((-10.0, 0.0, 1.0), (10.0, 0.0, 1.0))), load_contour_bundle(packed).network)
    voxel = abs(np.linalg.det(volume.affine[:3, :3]))
    assert mask.sum() * voxel == pytest.approx(4 / 3 * np.pi * 1000, rel=0.03)
    card = (packed / "MODEL_CARD.md").read_text()
    assert card.index("Research use only") < card.index("## Data")
    assert "| diameter | 2 | 0.800 | 0.600 | 0.90 | - |" in card


@pytest.mark.parametrize("name", ["model.onnx", "MODEL_CARD.md", "manifest.json"])
def test_a_changed_byte_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(Refused) as caught:
        load_contour_bundle(copy)
    assert caught.value.reason.code is ReasonCode.BUNDLE_HASH_MISMATCH


def test_a_bundle_that_draws_otherwise_here_fails_its_self_test(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Running.__call__
    monkeypatch.setattr(Running, "__call__", lambda self, hu, told: call(self, hu, told) - 0.4)
    with pytest.raises(Refused, match=r"instead of \d+") as caught:
        load_contour_bundle(packed)
    assert caught.value.reason.code is ReasonCode.BUNDLE_SELF_TEST_FAILED


def test_the_two_kinds_of_bundle_are_not_taken_for_each_other(packed: Path, shipped_bundle: Path) -> None:
    with pytest.raises(Refused, match=r"draws contours and gives no answers\. .*lung1-stage") as caught:
        load_bundle(packed)
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID
    with pytest.raises(Refused, match=r"gives answers and draws no contours\. .*lung-contour") as caught:
        load_contour_bundle(shipped_bundle)
    assert caught.value.reason.code is ReasonCode.BUNDLE_INVALID


def test_a_bundle_of_the_wrong_kind_is_not_copied_again(packed: Path, tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    settings = Settings(inbox=tmp_path / "in", outbox=tmp_path / "out", bundle=packed, state=tmp_path / "state")
    (finding,) = software.bundle(settings)
    assert "draws contours and gives no answers" in str(finding)
    assert "Copy" not in str(finding)


@pytest.mark.parametrize("manifest", [b"", b"[1]", b"{}", b'{"kind": 3}', b"[" * 9000, b"\xff", None])
def test_a_bundle_that_does_not_say_its_kind_is_judged_by_its_files(
    packed: Path, shipped_bundle: Path, tmp_path: Path, manifest: bytes | None
) -> None:
    for folder, load, says in (
        (packed, load_bundle, r"missing: extraction\.yaml"),
        (shipped_bundle, load_contour_bundle, r"do not belong to it: extraction\.yaml"),
    ):
        copy = Path(shutil.copytree(folder, tmp_path / folder.name))
        if manifest is None:
            (copy / "manifest.json").unlink()
            says = "missing: .*manifest"
        else:
            (copy / "manifest.json").write_bytes(manifest)
        with pytest.raises(Refused, match=says):
            load(copy)


def test_an_incomplete_bundle_is_verified_as_what_it_is(shipped_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped_bundle, tmp_path / "copy"))
    (copy / "extraction.yaml").unlink()
    done = CliRunner().invoke(app, ["verify", str(copy)])
    assert "missing: extraction.yaml" in str(done.exception)


def test_what_is_no_contour_bundle_is_not_replaced(shipped_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped_bundle, tmp_path / "copy"))
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(Refused, match="is not replaced"):
        build_contour(ball_run(), copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_run_is_built_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    ball_run().save(tmp_path / "run")
    done = CliRunner().invoke(export_cli.app, ["build", str(tmp_path / "run"), "-o", str(tmp_path / "ball")])
    assert done.exit_code == 0, done.output
    assert "it draws contours" in done.stdout
    assert load_contour_bundle(tmp_path / "ball").manifest.provenance.patients == 1
