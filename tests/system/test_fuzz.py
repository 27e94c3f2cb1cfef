"""A sample of the damaged inputs of ``make fuzz``, and checks of the second reader."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEGLSLossless

from lungstage.appliance.workers.process import Limits
from tests.appliance.dicom.test_bad_input import measured
from tests.long.reliability import fuzz, oracle
from tests.long.reliability.corpus import generated_studies, real_studies
from tests.long.reliability.elements import load, save
from tests.long.reliability.strict import Contradiction, read
from tests.support.studies import seg_study, square_mask
from tests.support.transformations import EVERY, transformed
from tests.system.test_run import running, tolerant_bundle  # noqa: F401

LIMITS = Limits(seconds=60)


@pytest.mark.slow
def test_damaged_inputs_meet_no_defect_and_give_no_wrong_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few inputs get a page, because it takes as long as everything else; only one real study is used."""
    monkeypatch.setattr(fuzz, "EVERY_PAGE", 8)
    monkeypatch.setattr(fuzz, "real_studies", lambda: dict([*real_studies().items()][:1]))
    tally = fuzz.run("suite", range(80), tmp_path / "kept", LIMITS)
    assert tally.wrong == []
    assert sum(tally.kinds.values()) == 80
    assert len(tally.codes) > 10, "the sample has too few different results"
    assert sum(count for verdict, count in tally.verdicts.items() if verdict.startswith("staged")) > 8
    assert tally.bases["staged"] > 4
    assert tally.bases["staged"] > 3 * tally.bases["staged; the second reader cannot verify it"]


def test_an_input_follows_from_seed_and_number() -> None:
    studies = generated_studies()
    first, again = (fuzz.Source("1", studies, {}, ()).input(7) for _ in range(2))
    assert first == again
    assert first != fuzz.Source("2", studies, {}, ()).input(7)


def test_the_second_reader_notices_a_wrong_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value of the appliance's answer is changed a little in turn."""
    files = generated_studies()["contours"]
    fuzzer = fuzz.Fuzzer(tmp_path, LIMITS)
    try:
        fuzzer._has_page = False
        fuzzer.meet({"contours": files})
        honest = fuzzer._stage
        right = oracle.facts(list(files.values()), "GTV-1")

        def verdict(**changed: object) -> str:
            def stage(case: object) -> tuple[str, object]:
                fingerprint, answer = honest(case)
                answer.outcome.update({k: v for k, v in changed.items() if k != "documents"})
                if "documents" in changed:
                    object.__setattr__(answer, "documents", changed["documents"])
                return f"{fingerprint} {sorted(changed)}", answer

            monkeypatch.setattr(fuzzer, "_stage", stage)
            return fuzzer.send(fuzz.Input(1, "study, bytes", "contours", (), {"roi-0": files["roi-0"]}))

        assert verdict() == "staged, same answer as the sound study"
        _, answer = honest(_case(fuzzer))
        features = dict(answer.outcome["features"])
        name = next(iter(features))
        for changed in (
            {"features": features | {name: features[name] * (1 + 1e-6)}},
            {"roi": {**answer.outcome["roi"], "voxels": right.voxels - 1}},
            {"roi": {**answer.outcome["roi"], "volume_mm3": 5400.1}},
        ):
            assert verdict(**changed).startswith("WRONG"), changed
        (segmentation,) = (d for d in answer.documents if d.kind == "seg")
        drawn = segmentation.content
        at = drawn.index(oracle.pixels_of(drawn))
        moved = replace(segmentation, content=drawn[:at] + drawn[at + 1 :] + b"\0")  # shifted by eight columns
        swapped = tuple(moved if d.kind == "seg" else d for d in answer.documents)
        assert verdict(documents=swapped).startswith("WRONG: another answer")
        lacking = tuple(d for d in answer.documents if d.kind != "sr")
        assert verdict(documents=lacking).startswith("WRONG")
    finally:
        fuzzer.end()


def _case(fuzzer: fuzz.Fuzzer) -> object:
    headers = fuzzer.clean["contours"].headers
    (case,) = fuzz.assemble(header for found in headers.values() for header in found)
    return case


def test_the_second_reader_takes_compressed_frames_for_what_they_were() -> None:
    content = generated_studies()["Enhanced CT, segment"]["ct-00"]
    dataset = load(content)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    plain, compressed = oracle._read(content), oracle._read(save(dataset))
    assert len(plain) == len(compressed) == 12
    for one, other in zip(plain, compressed, strict=True):
        np.testing.assert_array_equal(one.hu, other.hu)


def test_the_second_reader_believes_nothing_that_contradicts_itself() -> None:
    content = generated_studies()["contours"]["ct-05"]
    read(content)
    for cut in (len(content) - 1, 2000, 700, 140):
        with pytest.raises(Contradiction):
            read(content[:cut])
    with pytest.raises(Contradiction):
        read(content.replace(b"(\0R\x10DS", b"(\0\x01\0DS"))  # this tag is not in the right order
    for wrong in (b"-1_024.0", b"9e999999"):  # the second is a number, but not a float
        _, dataset = read(content.replace(b"-1024.0 ", wrong))
        with pytest.raises(Contradiction):
            dataset.decimals(0x00281052, 1)


@pytest.mark.parametrize(
    "name",
    [
        "frames_mirrored", "frames_transposed", "cropped_to_what_is_drawn", "a_frame_twice",
        "segmentation_in_another_study", "another_series_beside", "organs_on_another_series", "lying_on_the_side",
    ],
)  # fmt: skip
def test_the_second_reader_finds_what_was_drawn(name: str) -> None:
    one = EVERY[name]
    files, truth = transformed([one], "contours" if one.on == "contours" else "segment")
    facts = oracle.facts(oracle.sound(list(files.values())), "GTV-1" if one.on == "contours" else "Tumour")
    assert truth.mask is not None
    assert facts.voxels == truth.mask.sum()
    assert sorted(facts.hu.ravel()) == sorted(truth.hu[2:10].ravel())


def test_the_second_reader_tells_a_region_that_is_drawn_elsewhere() -> None:
    """Noise in a position's last digits is accepted; a missing, repeated or shifted voxel is not."""
    facts = oracle.facts(list(generated_studies()["contours, oblique"].values()), "GTV-1")
    places = facts.drawn()
    noise = np.random.default_rng(1).uniform(-0.004, 0.004, places.shape)
    assert facts.is_drawn_at((places + noise)[::-1])
    assert not facts.is_drawn_at(places[1:])
    assert not facts.is_drawn_at(np.concatenate([places, places[:1]]))
    assert not facts.is_drawn_at(np.concatenate([places[1:], places[1:2]]))
    for aside in (0.03, 1.25):
        assert not facts.is_drawn_at(places + np.array([aside, 0, 0]))
        assert not facts.is_drawn_at(np.concatenate([places[1:], places[:1] + np.array([0, aside, 0])]))


@pytest.mark.parametrize(
    ("ids", "name", "are_one"),
    [
        ({3: ""}, "Phantom^Generated", True),
        ({3: ""}, "Somebody^Else", False),
        ({3: "ANOTHER"}, "Phantom^Generated", False),
        ({2: "ANOTHER", 3: ""}, "Phantom^Generated", False),  # either may be the third patient, but they differ
    ],
)
def test_the_second_reader_tells_patients_apart_as_the_documents_say(
    ids: dict[int, str], name: str, are_one: bool
) -> None:
    files = generated_studies()["contours"]
    for k, patient_id in ids.items():
        dataset = load(files[f"ct-{k:02}"])
        dataset.PatientID, dataset.PatientName = patient_id, name
        files[f"ct-{k:02}"] = save(dataset)
    if are_one:
        assert oracle.facts(list(files.values()), "GTV-1").voxels > 0
    else:
        with pytest.raises(Contradiction, match="patients"):
            oracle.facts(list(files.values()), "GTV-1")


def test_the_second_reader_says_what_it_cannot_tell() -> None:
    for name in ("frames_on_a_regular_grid", "positions_rounded_to_a_tenth"):
        files, _ = transformed([EVERY[name]], "segment")
        with pytest.raises(oracle.Untold):
            oracle.facts(list(files.values()), "Tumour")


@pytest.mark.parametrize(("off", "is_on_it"), [(0.09, True), (-0.09, True), (0.11, False), (1.5, False)])
def test_a_frame_lies_on_a_slice_as_near_as_the_documents_say(off: float, is_on_it: bool, tmp_path: Path) -> None:
    """The limit is 0.1 mm, or a fifth of the step, for the second reader and for the appliance."""
    study = seg_study()
    for group in study.rois[0].PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [*place.ImagePositionPatient[:2], place.ImagePositionPatient[2] + off]
    folder = study.write(tmp_path / "study")
    contents = [path.read_bytes() for path in folder.iterdir()]
    assert (measured(folder)["status"] == "measured") is is_on_it
    if is_on_it:
        assert oracle.facts(contents, "Tumour").voxels == square_mask().sum()
    else:
        with pytest.raises(Contradiction):
            oracle.facts(contents, "Tumour")


@pytest.mark.slow
def test_a_daemon_lives_through_damaged_studies_and_answers_the_next(tmp_path: Path, tolerant_bundle: Path) -> None:  # noqa: F811
    """20 of the hundreds of studies that ``python -m tests.long.reliability.folder`` sends."""
    from tests.long.reliability.folder import drop

    with running(tmp_path, tolerant_bundle) as one:
        drop(one.inbox, "suite", range(20))
        (sound,) = drop(one.inbox, "sound", [0], damaged=False)
        one.until(
            lambda: any(job["study_instance_uid"] == sound and job["state"] == "delivered" for job in one.jobs()), 120
        )
        time.sleep(1)
        log = one.stop()
    for word in ("defect", "Traceback", "internal_error"):
        assert word not in log, log
    shutil.rmtree(tmp_path / "inbox")
