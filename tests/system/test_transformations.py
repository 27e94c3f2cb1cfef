"""Files in any order, with any pauses and any two transformations, give the true mask and HU, or a refusal."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from tests.long.field import pairs
from tests.support.transformations import EVERY, Right, Transformation, Unfit, transformed
from tests.support.transit import IN_MEMORY, PAUSES, SETTLE, WAIT, ThirdThing, blocks, send, verdict

Kind = Literal["contours", "segment"]
KINDS: tuple[Kind, ...] = ("contours", "segment")


def _said(chosen: list[Transformation], kind: Kind, folder: Path, order: object = None, pauses: object = ()) -> str:
    files, truth = transformed(chosen, kind)
    steps, jobs = send(files, folder, order=order, pauses=pauses)  # type: ignore[arg-type]
    return verdict(steps, jobs, truth)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as made:
        yield Path(made)


@pytest.mark.parametrize("kind", KINDS)
def test_the_study_itself_is_measured(kind: Kind, folder: Path) -> None:
    assert _said([], kind, folder) == "measured"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (one.name, "segment" if one.on == "segment" or (one.on != "contours" and k % 2) else "contours")
        for k, one in enumerate(EVERY.values())
    ],
)
def test_one_transformation_has_the_verdict_that_is_right(name: str, kind: Kind, folder: Path) -> None:
    said = _said([EVERY[name]], kind, folder)
    if EVERY[name].right is Right.MEASURED:
        assert said == "measured"
    elif EVERY[name].right is Right.REFUSED:
        assert said != "measured"


@pytest.mark.parametrize("order", [1, -1])
def test_names_that_say_nothing_leave_no_second_tumour_to_be_told_by_its_name(order: int, folder: Path) -> None:
    chosen = [EVERY["a_second_tumour_of_the_same_name"], EVERY["name_says_nothing"]][::order]
    assert _said(chosen, "contours", folder) == "roi_not_found"


PAIRS = list(pairs.every())


@given(data=st.data())
@settings(max_examples=30, deadline=None, phases=(Phase.reuse, Phase.generate))
def test_transformations_together_give_the_truth_or_a_refusal_whatever_the_order_and_the_pauses(
    data: st.DataObject,
) -> None:
    chosen = list(data.draw(st.sampled_from(PAIRS)))
    if data.draw(st.integers(0, 5)) == 0:
        chosen.append(data.draw(st.sampled_from(list(EVERY.values()))))
    chosen = data.draw(st.permutations(chosen))
    kind = data.draw(st.sampled_from(KINDS))
    note(f"{chosen} {kind}")
    try:
        files, truth = transformed(chosen, kind)
    except Unfit:
        return
    if data.draw(st.booleans()):
        order = data.draw(st.permutations(sorted(files)))
        pauses = data.draw(st.lists(st.sampled_from(PAUSES), max_size=6))
    else:
        parts = data.draw(st.permutations(blocks(files)))
        order = [name for part in parts for name in part]
        ends = data.draw(st.lists(st.sampled_from(PAUSES), min_size=len(parts), max_size=len(parts)))
        pauses = [pause for part, end in zip(parts, ends, strict=True) for pause in (*[0.0] * (len(part) - 1), end)]
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        verdict(*send(files, Path(folder), order=order, pauses=pauses), truth)


def test_what_is_measured_alone_is_mostly_measured_together() -> None:
    """Otherwise refusals alone could fulfil the property above."""
    sound = [pair for pair in pairs.every() if all(one.right is Right.MEASURED for one in pair)]
    said = Counter(map(pairs.said_of, random.Random(1).sample(sound, 25)))
    assert said["unfit"] < 5
    assert said["measured"] > 0.8 * (25 - said["unfit"]), said


@pytest.mark.parametrize("pause", [SETTLE + 1, WAIT + 5])
@pytest.mark.parametrize("second", ["second_image_set_that_nothing_tells_apart", "two_acquisitions_in_a_series"])
@pytest.mark.parametrize("other", ["contours_name_none", "frames_name_none"])
def test_an_image_set_that_comes_first_is_not_taken_for_the_listed_one(second: str, other: str, pause: float) -> None:
    """Both image sets have the same Series Instance UID; only the list says which one the region was drawn on."""
    files, truth = transformed([EVERY[second], EVERY[other]])
    for late in ({f"ct-{k:03}.dcm" for k in range(12)}, {"ct-002.dcm"}):
        order = [name for name in files if name not in late] + sorted(late)
        before = len(order) - len(late)
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as each:
            steps, jobs = send(files, Path(each), order=order, pauses=[*[0.0] * (before - 1), pause])
        assert verdict(steps, jobs, truth) == "measured"
        assert sum(not one.is_clipped for one in steps.measured) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_third_thing_is_noticed(axis: int, folder: Path) -> None:
    """A mask or a volume is shifted by a voxel, a part is missing, or the name differs."""
    files, truth = transformed([EVERY["columns_from_left_to_right"]])
    steps, jobs = send(files, folder)
    (right,) = steps.measured
    assert verdict(steps, jobs, truth) == "measured"
    for wrong in (
        replace(right, mask=np.roll(right.mask, 1, axis)),
        replace(right, hu=np.roll(right.hu, 1, axis)),
        replace(right, hu=right.hu + np.int16(1)),
        replace(right, hu=right.hu[1:], mask=right.mask[1:], affine=right.affine),
        replace(right, mask=right.mask & (np.indices(right.mask.shape)[axis] != 4 + axis * 12)),
        replace(right, name="Somebody^Else"),
        replace(right, name=""),
    ):
        steps.measured[:] = [wrong]
        with pytest.raises(ThirdThing):
            verdict(steps, jobs, truth)
    steps.measured[:] = [right]
    with pytest.raises(ThirdThing):
        verdict(steps, jobs, replace(truth, mask=None))
    with pytest.raises(ThirdThing):
        verdict(replace(steps, defects=["one"]), jobs, truth)
