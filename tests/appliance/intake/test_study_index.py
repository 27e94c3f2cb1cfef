"""The study index gives the cases of all headers together, and keeps nothing of files that are gone."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.dicom.cases import Case, assemble
from lungstage.appliance.dicom.header import Header, RoiHeader, headers_to_json
from lungstage.appliance.intake.study_index import StudyIndex
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.file_table import FileRecord, FileTable
from tests.support.fake_steps import image

SERIES, FRAMES = ("1.1", "1.2", "1.3"), ("", "2.1", "2.2")


class Scene:
    """An index over records in memory, and the headers that it should hold."""

    def __init__(self) -> None:
        self.database = Database(Path(":memory:"))
        self.files = FileTable(self.database, "1")
        self.assembled = 0
        self.index = StudyIndex(self.files, self.assemble)
        self.lying: dict[str, Header] = {}

    def assemble(self, headers: Iterable[Header]) -> tuple[Case, ...]:
        every = tuple(headers)
        self.assembled += len(every)
        return assemble(every)

    def put(self, header: Header) -> None:
        path = str(header.path)
        self.index.drop(path)
        self.files.update([FileRecord(path, 1, 1, headers_to_json([header]), None)], (), ())
        self.index.put(path, (header,))
        self.lying[path] = header

    def drop(self, path: str) -> None:
        self.index.drop(path)
        del self.lying[path]

    def changed(self) -> tuple[Case, ...]:
        return tuple(case for cases in self.index.changed() for case in cases)

    def expected(self) -> dict[str, Case]:
        return {case.key: case for case in assemble(header for _, header in sorted(self.lying.items()))}


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_why_a_case_waits_is_kept_up_to_date(scene: Scene) -> None:
    scene.put(replace(image(Path("/inbox/a/1"), "d", "1.5", "1"), frame_of_reference_uid=""))
    (case,) = scene.changed()
    plain = Reason(ReasonCode.CT_MISSING, "It waits.")
    assert scene.index.with_unreadable(plain, case) == plain
    scene.index.put_unreadable("/inbox/b/2")
    assert scene.index.with_unreadable(plain, case) == plain
    for name in ("2", "3", "3"):
        scene.index.put_unreadable(f"/inbox/a/{name}")
    told = scene.index.with_unreadable(plain, case)
    assert told.message.startswith("It waits. In the folders of this case, 2 DICOM files cannot be read. ")
    scene.index.drop("/inbox/a/2")
    once = scene.index.with_unreadable(told, case)
    assert once.message.startswith("It waits. In the folders of this case, 1 DICOM file cannot be read. ")
    assert once.message.count("In the folders") == 1
    scene.index.drop("/inbox/a/3")
    assert scene.index.with_unreadable(once, case) == plain
    earlier = replace(plain, message="It waits. Beside its files 2 DICOM files lie that cannot be read; see there.")
    assert scene.index.with_unreadable(earlier, case) == plain


def ct(path: str, series: str, number: int, frame: str = "", uid: str | None = None) -> Header:
    header = image(Path(path), f"{series}{number}", series, str(number))
    return replace(header, frame_of_reference_uid=frame, sop_instance_uid=uid or header.sop_instance_uid)


def roi(
    path: str, uid: str, *, of: Iterable[str] = (), listed: Iterable[str] = (), frames: Iterable[str] = ()
) -> RoiHeader:
    known: dict[str, Any] = {
        "path": Path(path), "digest": uid, "kind": "RTSTRUCT", "sop_class_uid": "1.2", "sop_instance_uid": uid,
        "series_instance_uid": "1.9", "study_instance_uid": "1", "patient_key": "patient", "drawn_at": "",
        "frames_of_reference": tuple(frames), "listed": tuple((series, ()) for series in listed),
        "image_references": tuple(of),
    }  # fmt: skip
    assert known.keys() <= {field.name for field in fields(RoiHeader)}
    return RoiHeader(**known)


def headers() -> st.SearchStrategy[Header]:
    """Few UIDs, so that files refer to each other in every possible way."""
    paths, series, frames = st.sampled_from("abcdefgh"), st.sampled_from(SERIES), st.sampled_from(FRAMES)
    instances = st.builds(lambda s, n: f"{s}.{n}", series, st.integers(0, 2))
    images = st.builds(ct, paths, series, st.integers(0, 2), frames, st.one_of(st.none(), instances))
    rois = st.builds(
        roi, paths, st.sampled_from(("3.1", "3.2", "1.1.0")), of=st.lists(instances, max_size=2),
        listed=st.lists(series, max_size=2), frames=st.lists(frames.filter(bool), max_size=2),
    )  # fmt: skip
    return st.one_of(images, rois)


Step = Header | int | None


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(headers(), st.integers(0, 7), st.none()), max_size=25))
def test_it_gives_what_all_headers_together_would_give(steps: list[Step]) -> None:
    scene, seen = Scene(), dict[str, Case]()
    for step in (*steps, None):
        if isinstance(step, int):
            if scene.lying:
                scene.drop(sorted(scene.lying)[step % len(scene.lying)])
        elif step is not None:
            scene.put(step)
        else:
            given_now = {case.key: case for case in scene.changed()}
            seen = {key: case for key, case in seen.items() if key in scene.index} | given_now
            assert seen == scene.expected()
            assert {key: scene.index.case(key) for key in seen} == seen
            assert scene.changed() == ()
            for header in scene.lying.values():
                homes = scene.index.homes(header.sop_instance_uid)
                assert homes
                assert {*homes} <= {*seen}
    for path in list(scene.lying):
        scene.drop(path)
    scene.changed()
    index = scene.index
    assert not any((index._group_of, index._group_at, index._group_with, index._changed, index._series_in))


def test_a_file_that_comes_costs_its_own_group_only(scene: Scene) -> None:
    for study in range(50):
        for number in range(4):
            scene.put(ct(f"{study}-{number}", f"1.{study}", number, f"2.{study}"))
    assert len(scene.changed()) == 50
    scene.assembled = 0
    scene.put(roi("roi", "3.1", of=["1.7.2"]))
    (case,) = scene.changed()
    assert (case.key, len(case.images), len(case.rois)) == ("1.7", 4, 1)
    assert scene.assembled == 5


def test_one_frame_of_reference_for_all_studies_does_not_make_them_one_group(scene: Scene) -> None:
    for study in range(50):
        scene.put(ct(f"{study}", f"1.{study}", 0, "2.1"))
    scene.changed()
    scene.assembled = 0
    scene.put(ct("more", "1.7", 1, "2.1"))
    assert [case.key for case in scene.changed()] == ["1.7"]
    assert scene.assembled == 2
    scene.put(roi("roi", "3.1", frames=["2.1"]))  # it may belong to any series
    assert {case.key for case in scene.changed()} == set(scene.expected())


def test_a_group_is_given_again_where_it_was_not_taken_in(scene: Scene) -> None:
    for number in range(2):
        scene.put(ct(f"{number}", f"1.{number}", 0))
    given = scene.index.changed()
    next(given)
    given.close()
    assert {case.key for case in scene.changed()} == {"1.0", "1.1"}


def test_a_record_that_is_gone_is_a_file_that_is_gone(scene: Scene) -> None:
    scene.put(ct("/inbox/a", "1.1", 0))
    scene.changed()
    scene.files.forget(Path("/inbox"))
    assert scene.index.case("1.1") is None
    scene.drop("/inbox/a")
    assert scene.changed() == ()
    assert "1.1" not in scene.index


def test_what_a_file_holds_is_not_kept(scene: Scene) -> None:
    """For a region that names a thousand slices, the index keeps a little for each of them, and no header."""
    for number in range(1000):
        scene.put(ct(f"{number:04}", "1.1", number))
    scene.put(roi("roi", "3.1", of=[f"1.1.{n}" for n in range(1000)]))
    scene.changed()
    assert not any(isinstance(kept, Header) for kept in _reachable(scene.index, stop=(FileTable,)))


def test_cases_of_one_frame_of_reference_are_read_once_until_a_file_changes(scene: Scene) -> None:
    """Some software gives every study the same Frame of Reference, so that a thousand studies are one group."""
    for number in range(40):
        scene.put(ct(f"{number}", f"1.{number}", number))
        scene.put(roi(f"roi{number}", f"3.{number}", of=[f"1.{number}.{number}"]))
    scene.changed()
    keys = [key for key in (f"1.{number}" for number in range(40)) if key in scene.index]
    assert len(keys) == 40
    scene.assembled = 0
    found = [scene.index.case(key) for key in keys]
    assert [case.key for case in found if case is not None] == keys
    assert scene.assembled <= 80, "each header is read at most once"
    scene.put(ct("new", "1.0", 99))
    case = scene.index.case("1.0")
    assert case is not None
    assert len(case.images) == 2, "a new file counts at once"


def _reachable(root: object, stop: tuple[type, ...]) -> Iterator[object]:
    seen, waiting = set[int](), [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (*stop, type)) or callable(one):
            continue
        seen.add(id(one))
        yield one
        waiting += gc.get_referents(one)
