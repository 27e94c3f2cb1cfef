"""The network that draws contours: simulated prompts, examples, a training that continues, and its figures."""

from __future__ import annotations

import csv
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Refused
from lungstage.training.contour import cases, evaluation, examples, simulated
from lungstage.training.contour.cases import Case, is_held_out
from lungstage.training.contour.run import ContourRun
from lungstage.training.contour.training import Plan, Trainer, as_function, train
from tests.support.ball_network import ball_network

SIDE = 92


def case(patient: str = "A", radius: float = 14.0, centre: tuple[float, float, float] = (46.0, 44.0, 48.0)) -> Case:
    """A bright ball in lung with a known mask."""
    z, y, x = np.ogrid[:SIDE, :SIDE, :SIDE]
    mask = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
    noise = np.random.default_rng(len(patient)).normal(0, 30, mask.shape)
    return Case(patient, (np.where(mask, 30, -800) + noise).astype(np.int16), mask, True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_person_s_line_is_near_the_longest_of_its_slice_and_never_a_short_one(seed: int) -> None:
    one = case(radius=12)
    lines = simulated.diameters(one.mask)
    assert max(np.linalg.norm(np.subtract(*line)) for line in lines.values()) == pytest.approx(24, abs=1)
    drawn = simulated.prompt(one.mask, lines, "diameter", np.random.default_rng(seed))
    assert np.linalg.norm(np.subtract(*drawn.points)) > simulated.LONG_ENOUGH * 24 - 6 * simulated.ENDS_MM
    assert drawn.points[0][2] == drawn.points[1][2]
    assert np.linalg.norm(np.subtract(drawn.centre, (48, 44, drawn.points[0][2]))) < 6


def test_a_box_holds_the_tumour_and_a_point_lies_in_it() -> None:
    one, rng = case(), np.random.default_rng(0)
    lines = simulated.diameters(one.mask)
    box = simulated.prompt(one.mask, lines, "box", rng)
    assert box.radii == pytest.approx((14.5, 14.5, 14.5), abs=4)
    x, y, z = simulated.prompt(one.mask, lines, "point", rng).points[0]
    assert one.mask[int(z), int(y), int(x)]


def test_the_next_correction_is_in_the_largest_mistake() -> None:
    one, rng = case(), np.random.default_rng(0)
    short, long = one.mask.copy(), one.mask.copy()
    short[:, :, 56:] = False
    long[40:50, 40:50, 62:72] = True
    point, belongs = simulated.correction(one.mask, short, rng) or ((0.0, 0.0, 0.0), False)
    assert belongs
    assert point[0] >= 56
    point, belongs = simulated.correction(one.mask, long, rng) or ((0.0, 0.0, 0.0), True)
    assert not belongs
    assert point[0] >= 61
    assert simulated.correction(one.mask, one.mask, rng) is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(examples.SIDES))
def test_an_example_shows_what_the_crop_contains_and_keeps_mask_and_image_together(seed: int, side: int) -> None:
    one = case(radius=10)
    drawn = examples.draw(one, side, np.random.default_rng(seed))
    assert drawn.hu.shape == drawn.mask.shape == (side,) * 3
    assert drawn.mask.sum() > 200
    assert drawn.told().shape == (5, side, side, side)
    inside, outside = drawn.hu[drawn.mask], drawn.hu[~drawn.mask]
    assert inside.mean() > -250
    assert outside.mean() < -500
    assert drawn.hu.min() > -1300, "nothing was padded"


def test_a_training_continues_where_it_was_interrupted_with_the_same_result(tmp_path: Path) -> None:
    patients = [case("A", 9), case("B", 12)]
    plan = Plan(steps=4, batch=1, width=2, fine=2)
    whole = Trainer(plan, patients, tmp_path / "whole")
    whole.run()
    part = Trainer(plan, patients, tmp_path / "part")

    class Interrupted(Exception):
        pass

    def interrupt(step: int, loss: float) -> None:
        if step == 2:
            part.save()
            raise Interrupted

    with pytest.raises(Interrupted):
        part.run(interrupt)
    rest = Trainer(plan, patients, tmp_path / "part")
    assert rest.step == 2
    rest.run()
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(value, rest.averaged.state_dict()[name]), name
    with pytest.raises(Refused, match="checkpoint of another training"):
        Trainer(replace(plan, seed=1), patients, tmp_path / "part")


def test_training_and_figures_use_different_patients(tmp_path: Path) -> None:
    names = [f"LUNG1-{k:03d}" for k in range(1, 30)]
    seen = next(name for name in names if not is_held_out(name))
    unseen, cut = [name for name in names if is_held_out(name)][:2]
    every = [case(seen, 9), case(unseen, 9), replace(case(cut, 9), is_whole=False)]
    told: list[tuple[str, int, int]] = []
    run = train(
        every, Plan(steps=1, batch=1, width=2, fine=2), tmp_path,
        cohort={"name": "made up", "source": "made up", "licence": "CC0"}, report=lambda *one: told.append(one),
    )  # fmt: skip
    assert run.record["trained_on"] == [seen]
    assert run.record["held_out"] == [unseen]
    assert {one["patient"] for one in run.record["drawn"]} == {unseen}
    assert {"diameter", "diameter, 2 corrections", "point", "box", "random walker", "region growing"} <= set(
        run.record["figures"]
    )
    assert told == [("training", 1, 1), ("evaluation", 1, 1)]
    run.save(tmp_path)
    again = ContourRun.load(tmp_path)
    assert dict(again.record) == dict(run.record)
    hu, channels = np.zeros((16, 16, 16), np.float32), np.zeros((5, 16, 16, 16), np.float32)
    np.testing.assert_array_equal(as_function(again.network)(hu, channels), as_function(run.network)(hu, channels))


def test_figures_are_right_for_a_network_whose_contours_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ball network draws a ball around the line: this is right for a ball and too large for a flat tumour."""
    monkeypatch.setattr(simulated, "LONG_ENOUGH", 0.99)
    flat = case("flat", 16)
    flat.mask[:40] = flat.mask[53:] = False
    drawn = evaluation.evaluate(
        [case("ball", 16), flat], as_function(ball_network()), kinds=("diameter",), rivals=False
    )
    by = {(one.patient, one.method): one for one in drawn}
    assert by["ball", "diameter"].dice > 0.85
    assert by["ball", "diameter"].sphericity == pytest.approx(by["ball", "diameter"].expert_sphericity, rel=0.03)
    assert by["flat", "diameter"].dice < 0.85
    assert by["flat", "diameter, 2 corrections"].dice > by["flat", "diameter"].dice
    assert by["flat", "diameter"].volume > by["flat", "diameter"].expert_volume
    summary = evaluation.summarise(drawn)
    assert summary["diameter"]["patients"] == 2
    assert summary["diameter"]["dice_median"] == pytest.approx(
        (by["ball", "diameter"].dice + by["flat", "diameter"].dice) / 2
    )


@pytest.mark.parametrize("method", [evaluation.random_walker, evaluation.region_growing])
def test_the_methods_without_a_network_find_a_ball_in_lung(
    method: evaluation.Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "LONG_ENOUGH", 0.99)
    one = case(radius=12)
    lines = simulated.diameters(one.mask)
    drawn = method(evaluation.volume_of(one), simulated.prompt(one.mask, lines, "diameter", np.random.default_rng(0)))
    assert evaluation.dice(drawn, one.mask) > 0.85


def test_crops_are_read_and_what_is_no_folder_of_crops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no folder of crops"):
        cases.read(tmp_path)
    with (tmp_path / "patients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["crop", "patient_id", "voxels", "touches_edge"], ["1", "A", "5", "0"]])
    with zipfile.ZipFile(tmp_path / "crops.zip", "w") as archive:
        archive.writestr("1.jls", b"not an image")
        archive.writestr("1.mask", zlib.compress(b"0"))
    with pytest.raises(Refused, match="cannot be read"):
        cases.read(tmp_path)
