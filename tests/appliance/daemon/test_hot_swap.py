"""The hot swap, in simulated time: when a bundle is tried, what is logged, and what the daemon does then."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.contract.errors import DefectError, ExhaustedError, ReasonCode, Refused, Unavailable
from lungstage.appliance.daemon import hot_swap as hotswap
from lungstage.appliance.daemon.hot_swap import BundleEvent, HotSwap
from lungstage.appliance.daemon.loop import Daemon, Steps
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.model.bundle_files import BUNDLE_FILES, SIGNATURE_FILE, BundleFiles, digest_of, read_files
from lungstage.appliance.model.signature import PublicKey
from lungstage.appliance.state import chain
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.heartbeat import read as read_heartbeat
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.workers.bundle_workers import Workers
from lungstage.appliance.workers.messages import Prepare, ReadHeaders, Request, Stage
from tests.appliance.model.test_signature import KEY, OTHER, public, signed
from tests.support.fake_steps import FakePlan, FakeSteps
from tests.support.simulated import House, SimulatedWake, put_study

SETTLE, REPORT = 2.0, 5.0  # case_settle_seconds and report_after_seconds


def bundle_of(name: str) -> dict[str, bytes]:
    """Files with meaningless content: only the processes would read it, and these are simulated here."""
    return {file: f"{file} of {name}".encode() for file in BUNDLE_FILES}


def put(folder: Path, files: BundleFiles) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


OLD, NEW, NEWER = (bundle_of(name) for name in ("old", "new", "newer"))
REFUSED = Refused(ReasonCode.BUNDLE_SELF_TEST_FAILED, "It is not what it was.")


@dataclass
class Trial:
    """Workers that try a bundle, and take as long as the test wants."""

    files: BundleFiles
    ready: bool = False
    error: Exception | None = None

    def is_set_up(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.ready

    def descriptors(self) -> list[int]:
        return [99]

    def next_due(self) -> float | None:
        return 12345.0


@dataclass
class FakeCandidates:
    """Records which bundles were tried, ended and taken into use."""

    ready: bool = True
    error: Exception | None = None
    tried: list[Trial] = field(default_factory=list)
    dropped: int = 0
    at_work: list[str] = field(default_factory=list)

    def start_candidate(self, files: BundleFiles) -> Trial:
        if isinstance(self.error, BlockingIOError):
            raise self.error
        self.tried.append(Trial(files, self.ready, self.error))
        return self.tried[-1]

    def drop_candidate(self) -> None:
        self.dropped += 1

    def switch_over(self) -> None:
        self.at_work.append(digest_of(self.tried[-1].files))


class Place:
    """A bundle's folder that the hot swap watches."""

    def __init__(
        self, root: Path, files: BundleFiles = OLD, trusted: tuple[PublicKey, ...] = (), **options: Any
    ) -> None:
        self.folder = root / "bundle"
        put(self.folder, files)
        paths = {"inbox": root / "i", "outbox": root / "o", "bundle": self.folder}
        self.settings = load_settings(None, {**paths, **options}, {})
        self.clock, self.candidates = SimulatedWake(), FakeCandidates()
        self.events: list[BundleEvent] = []
        self.swap = HotSwap(self.settings, files, trusted, self.candidates, self.clock, self.events.append)
        self.taken: list[str] = []

    def run(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self.clock.now < until:
            digest = self.swap.look()
            if digest is not None:
                self.taken.append(digest)
            due = self.swap.next_due()
            self.clock.now += 0.25 if due is None else min(max(due - self.clock.now, 0.01), 0.25)

    def codes(self) -> list[str]:
        return ["taken" if event.code is None else event.code.value for event in self.events]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.run(10)
    assert (made.candidates.tried, made.events) == ([], [])
    return made


def test_a_bundle_that_does_not_change_is_read_once_and_never_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    monkeypatch.setattr(hotswap, "read_files", lambda folder: reads.append(folder) or read_files(folder))
    place = Place(tmp_path)
    place.run(600)
    assert (len(reads), place.candidates.tried, place.events) == (1, [], [])
    assert place.swap.next_due() is None
    assert list(place.swap.descriptors()) == []


def test_a_new_bundle_is_tried_once_it_rests_and_taken_once_it_is_set_up(place: Place) -> None:
    place.candidates.ready = False
    put(place.folder, NEW)
    place.run(SETTLE)
    assert place.candidates.tried == []
    place.run(2)
    (trial,) = place.candidates.tried
    assert trial.files == NEW
    assert (place.swap.descriptors(), place.swap.next_due()) == ([99], 12345.0)
    place.run(60)
    assert (place.taken, place.events, place.candidates.at_work) == ([], [], [])
    trial.ready = True
    place.run(1)
    assert place.taken == place.candidates.at_work == [digest_of(NEW)]
    assert place.events == [BundleEvent(digest_of(NEW), digest_of(OLD))]
    place.run(60)
    assert (len(place.candidates.tried), len(place.events), place.candidates.dropped) == (1, 1, 0)


def test_one_bundle_follows_another(place: Place) -> None:
    for files in (NEW, NEWER, OLD):
        put(place.folder, files)
        place.run(10)
    assert place.taken == [digest_of(files) for files in (NEW, NEWER, OLD)]
    assert [event.in_use for event in place.events] == [digest_of(files) for files in (OLD, NEW, NEWER)]


def test_files_that_arrive_one_by_one_are_nothing_until_they_are_whole(place: Place) -> None:
    shutil.rmtree(place.folder)
    place.folder.mkdir()
    for name in sorted(NEW):
        place.run(REPORT - 1)
        assert (place.events, place.candidates.tried) == ([], [])
        (place.folder / name).write_bytes(NEW[name][:5])
        place.run(1)
        (place.folder / name).write_bytes(NEW[name])
    place.run(SETTLE + 1.5)
    assert place.codes() == ["taken"]
    assert [trial.files for trial in place.candidates.tried] == [NEW]


def test_a_bundle_half_of_which_was_exchanged_is_refused_only_when_it_stays_so(place: Place) -> None:
    place.candidates.error = Refused(ReasonCode.BUNDLE_HASH_MISMATCH, "Not the file that was packed.")
    (place.folder / "model.onnx").write_bytes(NEW["model.onnx"])
    place.run(REPORT - 0.5)
    assert len(place.candidates.tried) == 1
    assert place.events == []
    place.candidates.error = None
    put(place.folder, NEW)
    place.run(10)
    assert place.codes() == ["taken"]


def test_a_refused_bundle_leaves_the_old_one_and_is_told_once(place: Place) -> None:
    place.candidates.error = REFUSED
    put(place.folder, NEW)
    place.run(600)
    assert place.events == [
        BundleEvent(digest_of(NEW), digest_of(OLD), None, ReasonCode.BUNDLE_SELF_TEST_FAILED),
    ]  # fmt: skip
    assert (len(place.candidates.tried), place.candidates.dropped, place.taken) == (1, 1, [])
    put(place.folder, NEWER)
    place.run(600)
    assert place.codes() == ["bundle_self_test_failed"] * 2
    place.candidates.error = None
    os.utime(place.folder / "manifest.json")  # the same content, placed again: the operator wants it tried again
    place.run(10)
    assert place.events[-1] == BundleEvent(digest_of(NEWER), digest_of(OLD))


def test_the_old_bundle_put_back_after_a_refusal_is_told_and_not_tried(place: Place) -> None:
    place.candidates.error = REFUSED
    put(place.folder, NEW)
    place.run(20)
    put(place.folder, OLD)
    place.run(20)
    assert place.codes() == ["bundle_self_test_failed", "taken"]
    assert place.events[-1] == BundleEvent(digest_of(OLD), digest_of(OLD))
    assert (len(place.candidates.tried), place.taken) == (1, [])


def test_what_is_missing_or_too_much_is_refused_without_a_trial(place: Place) -> None:
    (place.folder / "model.onnx").unlink()
    place.run(20)
    put(place.folder, {**OLD, "notes.txt": b"who knows"})
    place.run(20)
    shutil.rmtree(place.folder)
    place.run(20)
    assert place.codes() == ["bundle_unreadable", "bundle_invalid", "bundle_unreadable"]
    assert [event.digest for event in place.events] == [None, None, None]
    assert place.candidates.tried == []
    put(place.folder, OLD)
    place.run(20)
    assert place.codes()[3:] == ["taken"]


@pytest.mark.parametrize("how", ["link", "rename"])
def test_a_folder_that_is_exchanged_as_a_whole_is_noticed(tmp_path: Path, how: str) -> None:
    put(tmp_path / "one", OLD)
    put(tmp_path / "two", NEW)
    for name in BUNDLE_FILES:  # as a copy that preserves times
        os.utime(tmp_path / "one" / name, ns=(0, 0))
        os.utime(tmp_path / "two" / name, ns=(0, 0))
    place = Place(tmp_path)
    shutil.rmtree(place.folder)
    if how == "link":
        place.folder.symlink_to("one")
    else:
        (tmp_path / "one").rename(place.folder)
    place.run(10)
    assert place.events == []
    if how == "link":
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").replace(place.folder)
    else:
        place.folder.rename(tmp_path / "aside")
        (tmp_path / "two").rename(place.folder)
    place.run(10)
    assert place.taken == [digest_of(NEW)]


def test_a_change_during_the_trial_ends_it_and_the_newest_is_tried(place: Place) -> None:
    place.candidates.ready = False
    put(place.folder, NEW)
    place.run(4)
    place.candidates.ready = True
    place.candidates.tried[0].ready = False
    put(place.folder, NEWER)
    place.run(10)
    assert (place.taken, place.candidates.dropped) == ([digest_of(NEWER)], 1)


def test_a_change_while_it_is_read_is_not_a_bundle(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_slowly(folder: Path) -> BundleFiles:
        files = read_files(folder)
        if files == NEW:
            put(folder, NEWER)
            return {**NEW, "model.onnx": NEWER["model.onnx"]}
        return files

    monkeypatch.setattr(hotswap, "read_files", read_slowly)
    put(place.folder, NEW)
    place.run(10)
    assert [trial.files for trial in place.candidates.tried] == [NEWER]


def test_a_bundle_that_ends_its_processes_is_given_up(place: Place) -> None:
    place.candidates.error = ExhaustedError("Its process was ended by SIGKILL.")
    put(place.folder, NEW)
    place.run(60)
    assert place.codes() == ["limits_exceeded"]
    assert len(place.candidates.tried) == place.candidates.dropped == place.settings.max_attempts


def test_failures_are_a_content_s_own(place: Place) -> None:
    place.candidates.error = ExhaustedError("Its process was ended by SIGKILL.")
    for files in (NEW, NEWER):
        put(place.folder, files)
        before = len(place.candidates.tried)
        for _ in range(100):
            if len(place.candidates.tried) < before + place.settings.max_attempts - 1:
                place.run(0.1)
    assert len(place.candidates.tried) == 2 * (place.settings.max_attempts - 1)
    place.candidates.error = None
    place.run(10)
    assert place.codes() == ["taken"]


def test_a_defect_of_ours_in_trying_is_told_and_given_up(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.candidates.error = DefectError({"error": "KeyError", "frames": "bundle.py:1:f"})
    put(place.folder, NEW)
    with caplog.at_level(logging.ERROR, "lungstage"):
        place.run(60)
    assert place.codes() == ["internal_error"]
    assert [record.msg for record in caplog.records] == ["bundle_defect"] * 3


@pytest.mark.parametrize("error", [Unavailable("No room."), BlockingIOError("fork")])
def test_a_machine_without_room_for_a_trial_is_no_bundle_s_fault(place: Place, error: Exception) -> None:
    place.candidates.error = error
    put(place.folder, NEW)
    place.run(300)
    assert place.events == []
    place.candidates.error = None
    place.run(70)
    assert place.codes() == ["taken"]


def test_where_a_key_is_trusted_only_what_it_signed_is_tried(tmp_path: Path) -> None:
    place = Place(tmp_path, signed(OLD, KEY), (public(KEY),))
    place.run(10)
    fingerprint = public(KEY).fingerprint
    for files in (NEW, signed(NEW, OTHER), {**NEW, SIGNATURE_FILE: signed(OLD, KEY)[SIGNATURE_FILE]}, OLD):
        put(place.folder, files)
        place.run(20)
    assert place.codes() == [
        "bundle_unsigned", "bundle_signature_invalid", "bundle_signature_invalid", "bundle_unsigned",
    ]  # fmt: skip
    assert place.candidates.tried == []
    assert {event.in_use for event in place.events} == {digest_of(OLD)}
    assert [event.digest for event in place.events] == [digest_of(NEW)] * 3 + [digest_of(OLD)]
    put(place.folder, signed(NEW, KEY))
    place.run(20)
    assert place.events[-1] == BundleEvent(digest_of(NEW), digest_of(OLD), fingerprint)
    assert place.taken == [digest_of(NEW)]


def test_a_single_file_that_comes_or_goes_is_noticed(tmp_path: Path) -> None:
    place = Place(tmp_path, signed(OLD, KEY), (public(KEY),))
    place.run(10)
    (place.folder / SIGNATURE_FILE).unlink()
    place.run(10)
    (place.folder / SIGNATURE_FILE).write_bytes(signed(OLD, KEY)[SIGNATURE_FILE])
    place.run(10)
    (place.folder / SIGNATURE_FILE).write_bytes(signed(OLD, OTHER)[SIGNATURE_FILE])
    place.run(10)
    (place.folder / "notes.txt").touch()
    place.run(10)
    assert place.codes() == ["bundle_unsigned", "taken", "bundle_signature_invalid", "bundle_invalid"]


def test_a_file_that_is_written_over_under_its_old_date_is_noticed(place: Place) -> None:
    path = place.folder / "model.onnx"
    before = path.stat()
    path.write_bytes(NEW["model.onnx"])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    place.run(10)
    assert [trial.files for trial in place.candidates.tried] == [{**OLD, "model.onnx": NEW["model.onnx"]}]


def test_a_signature_that_joins_the_bundle_in_use_changes_nothing(place: Place) -> None:
    for files in (signed(OLD, KEY), signed(OLD, OTHER), OLD):
        put(place.folder, files)
        place.run(20)
    assert (place.events, place.candidates.tried) == ([], [])


def test_events_are_logged_by_codes_and_digests_alone(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO, "lungstage")
    hotswap.tell(BundleEvent("d", "u", "s"), Audit(tmp_path))
    hotswap.tell(BundleEvent("d", "u", None, ReasonCode.BUNDLE_INVALID), Audit(tmp_path))
    assert [(entry.event, dict(entry.fields)) for entry in chain.entries(tmp_path)] == [
        ("bundle_taken", {"bundle": "d", "signed_by": "s", "former": "u"}),
        ("bundle_refused", {"bundle": "d", "signed_by": None, "code": "bundle_invalid", "kept": "u"}),
    ]
    told = [(r.levelname, r.msg, r.bundle, r.signed_by) for r in caplog.records]  # type: ignore[attr-defined]
    assert told == [("INFO", "bundle_taken", "d", "s"), ("WARNING", "bundle_refused", "d", None)]
    assert caplog.records[0].former == "u"  # type: ignore[attr-defined]
    assert (caplog.records[1].kept, caplog.records[1].code) == ("u", "bundle_invalid")  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", ["taken", "refused in time", "refused late", "taken back"])
def test_what_cannot_be_told_is_not_done_until_it_can(place: Place, what: str) -> None:
    if what == "taken back":
        (place.folder / "more.txt").touch()
        place.run(20)
    elif what != "taken":
        place.candidates.error = REFUSED
    if what == "refused late":  # after the time at which a refusal is logged
        place.candidates.ready, place.candidates.error = False, None
    place.events.clear()
    tell, failures = place.swap._tell, iter(range(3))

    def fail(event: BundleEvent) -> None:
        if next(failures, None) is not None:
            raise Unavailable("The audit log cannot be written.")
        tell(event)

    place.swap._tell = fail  # type: ignore[method-assign]
    if what == "taken":
        put(place.folder, NEW)
    elif what == "taken back":
        (place.folder / "more.txt").unlink()
    else:
        put(place.folder, NEW)
    if what == "refused late":
        place.run(10)
        place.candidates.tried[-1].error = REFUSED
    times = 0
    for _ in range(100):
        try:
            place.run(0.1)
        except Unavailable:
            times += 1
            assert (place.events, place.taken, place.candidates.at_work) == ([], [], [])
    assert times == 3
    assert len(place.events) == 1
    assert place.taken == ([digest_of(NEW)] if what == "taken" else [])


# With the daemon and its jobs


class Stagers:
    """Stagers of one bundle that finish when the test lets them."""

    def __init__(self, steps: FakeSteps, count: int) -> None:
        self._steps, self._count = steps, count
        self.held = False
        self.in_hand: dict[int, Callable[[], Any]] = {}

    @property
    def keys(self) -> frozenset[int]:
        return frozenset(self.in_hand)

    def free(self) -> bool:
        return len(self.in_hand) < self._count

    def ask(self, ticket: int, request: Any) -> None:
        assert isinstance(request, Stage)
        known = {
            "created": request.created, "site": request.site, "predecessor": request.predecessor,
            "beyond": request.beyond,
        }  # fmt: skip
        self.in_hand[ticket] = partial(self._steps.stage, cast(FakePlan, request.plan), **known)

    def finished(self) -> list[tuple[int, Future[Any]]]:
        if self.held:
            return []
        done, self.in_hand = self.in_hand, {}
        return [(ticket, _became(work)) for ticket, work in done.items()]

    def descriptors(self) -> list[int]:
        return []

    def next_due(self) -> float | None:
        return None


def _became(work: Callable[[], Any]) -> Future[Any]:
    became: Future[Any] = Future()
    try:
        became.set_result(work())
    except Exception as error:
        became.set_exception(error)
    return became


class FakeWorkers:
    """The steps of one bundle: it makes its own plans and stages no other bundle's."""

    def __init__(self, files: BundleFiles, workers: int) -> None:
        self.digest = digest_of(files)
        self.steps = FakeSteps()
        self.stagers = Stagers(self.steps, workers)
        self.examiner = self
        self.idle_ended = self.ended = False
        self.refuses: str | None = None
        original, self.steps.stage = self.steps.stage, self.stage  # type: ignore[method-assign]
        self._stage = original

    def start(self) -> None:
        pass

    def set_up(self) -> None:
        pass

    def is_set_up(self) -> bool:
        return True

    def next_due(self) -> float | None:
        return None

    def descriptors(self) -> list[int]:
        return []

    def end_idle(self) -> None:
        self.idle_ended = True

    def end(self) -> None:
        self.ended = True

    def call(self, request: Request[Any]) -> Any:
        assert not self.idle_ended
        assert not self.ended
        match request:
            case ReadHeaders():
                return self.steps.read_headers(request.path)
            case Prepare():
                return self.prepare(request)
        raise AssertionError(request)

    def prepare(self, request: Prepare) -> FakePlan:
        plan = self.steps.prepare(request.case, settled=request.settled, waited=request.waited)
        if self.refuses == plan.case.series_instance_uid:
            raise Refused(ReasonCode.ROI_NOT_FOUND, "No such region.")
        # The fingerprint depends on the bundle, as its margin and its rule determine what is needed.
        return replace(plan, fingerprint=hashlib.sha256((plan.fingerprint + self.digest).encode()).hexdigest())

    def stage(self, plan: FakePlan, **known: Any) -> Any:
        ours = [self.steps.prepare(plan.case, settled=True, waited=True).fingerprint + self.digest]
        assert plan.fingerprint in [hashlib.sha256(each.encode()).hexdigest() for each in ours], "another's plan"
        return self._stage(plan, **known)


class SwappingHouse(House):
    """A daemon that changes to another bundle."""

    sets: list[FakeWorkers]

    def __init__(self, root: Path, **options: Any) -> None:
        self.sets = []
        (root / "bundle").mkdir()
        put(root / "bundle", OLD)
        super().__init__(root, **options)

    def start(self) -> None:
        self.settings = self.settings.model_copy(update={"bundle": self.root / "bundle"})
        self.database = Database(self.state / "ledger.sqlite")
        self.ledger = Ledger(self.database)
        make: Any = self.make
        self.workers = work = Workers(make, OLD)
        steps = Steps(work.read_headers, assemble, work.prepare, work, work.write_phantom)
        wake: Any = self.wake
        self.events: list[BundleEvent] = []
        swap = HotSwap(self.settings, OLD, (), work, self.wake, self.events.append)
        self.daemon = Daemon(self.settings, digest_of(OLD), steps, self.database, wake, clock=self.wake, swap=swap)

    def make(self, files: BundleFiles) -> FakeWorkers:
        self.sets.append(FakeWorkers(files, self.settings.workers))
        return self.sets[-1]

    def exchange(self, files: BundleFiles = NEW) -> None:
        """Place another bundle and let the daemon take it."""
        put(self.root / "bundle", files)
        before = len(self.events)
        self.run(8)
        assert len(self.events) == before + 1
        assert self.events[-1].code is None

    def answered_by(self) -> list[tuple[str, str | None]]:
        names = {digest_of(files): name for files, name in ((OLD, "old"), (NEW, "new"), (NEWER, "newer"))}
        return [(job.state.value, job.bundle_digest and names[job.bundle_digest]) for job in self.ledger.jobs.find()]


@pytest.fixture
def house(tmp_path: Path) -> SwappingHouse:
    return SwappingHouse(tmp_path, workers=1)


def test_the_next_study_is_answered_by_the_new_bundle_and_answered_ones_stay(house: SwappingHouse) -> None:
    put_study(house.inbox, "1.5")
    house.run(3)
    house.exchange()
    put_study(house.inbox, "1.6")
    house.run(60)
    assert house.answered_by() == [("delivered", "old"), ("delivered", "new")]
    old, new = house.sets
    assert (old.steps.calls["stage"], new.steps.calls["stage"]) == (1, 1)
    assert (old.idle_ended, old.ended, new.ended) == (True, True, False)
    alive = read_heartbeat(house.state)
    assert alive is not None
    assert alive.bundle_digest == digest_of(NEW)


def test_an_answered_study_is_answered_anew_only_when_asked(house: SwappingHouse) -> None:
    put_study(house.inbox, "1.5")
    house.run(3)
    house.exchange()
    with Database(house.state / "ledger.sqlite") as command_line:
        Ledger(command_line).requeue(1)
    house.run(5)
    assert house.answered_by() == [("delivered", "new")]


def test_what_is_in_hand_is_finished_by_the_old_bundle_and_what_is_ready_examined_by_the_new(
    house: SwappingHouse,
) -> None:
    put_study(house.inbox, "1.5")
    house.sets[0].stagers.held = True
    house.run(3)
    put_study(house.inbox, "1.6")
    house.run(3)
    assert house.answered_by() == [("claimed", "old"), ("ready", "old")]
    house.exchange()
    house.run(5)
    assert house.answered_by() == [("claimed", "old"), ("delivered", "new")]
    old, new = house.sets
    assert (old.idle_ended, old.ended) == (True, False)
    old.stagers.held = False
    house.run(60)
    assert house.answered_by() == [("delivered", "old"), ("delivered", "new")]
    assert old.ended
    assert (old.steps.calls["stage"], new.steps.calls["stage"]) == (1, 1)
    assert len(house.reports()) == 2


def test_what_is_in_hand_at_the_old_bundle_while_its_files_are_taken_away_is_held(house: SwappingHouse) -> None:
    put_study(house.inbox / "a", "1.5")
    house.sets[0].stagers.held = True
    house.run(3)
    house.exchange()
    shutil.rmtree(house.inbox / "a")
    house.run(3)
    house.sets[0].stagers.held = False
    house.run(3)
    put_study(house.inbox / "b", "1.6")
    house.run(10)
    assert house.answered_by() == [("held", "old"), ("delivered", "new")]


@pytest.mark.parametrize("error", [Unavailable("A disk is away."), ValueError("a defect")])
def test_what_the_old_bundle_gives_back_is_answered_by_the_new(house: SwappingHouse, error: Exception) -> None:
    put_study(house.inbox, "1.5")
    house.sets[0].stagers.held = True
    house.run(3)
    house.exchange()
    house.run(3)
    assert house.answered_by() == [("claimed", "old")]

    def fail() -> None:
        raise error

    house.sets[0].steps.during_stage = fail
    house.sets[0].stagers.held = False
    house.run(10)
    assert house.answered_by() == [("delivered", "new")]
    assert house.job().attempts == 0
    assert len(house.reports()) == 1


def test_a_report_that_waits_for_the_outbox_stays_the_old_bundle_s(house: SwappingHouse) -> None:
    house.outbox.rename(house.root / "elsewhere")
    put_study(house.inbox, "1.5")
    house.run(5)
    house.exchange()
    house.run(5)
    assert house.answered_by() == [("report_ready", "old")]
    (house.root / "elsewhere").rename(house.outbox)
    house.run(70)
    assert house.answered_by() == [("delivered", "old")]
    assert house.sets[1].steps.calls["stage"] == 0


def test_what_the_old_bundle_found_no_region_in_is_examined_again(house: SwappingHouse) -> None:
    house.sets[0].refuses = "1.5"
    put_study(house.inbox, "1.5")
    house.run(10)
    assert house.states() == ["refused"]
    house.exchange()
    house.run(3)
    assert house.answered_by() == [("delivered", "new")]


def test_a_backlog_is_examined_again_piece_by_piece(house: SwappingHouse) -> None:
    house.sets[0].stagers.held = True
    for n in range(20):
        put_study(house.inbox, f"1.{n + 10}")
    house.run(8)
    assert [state for state, _ in house.answered_by()].count("ready") == 19

    def slowly() -> None:
        house.wake.now += 0.3

    make = house.make

    def make_slow(files: BundleFiles) -> FakeWorkers:
        workers = make(files)
        workers.steps.during_prepare = slowly
        return workers

    house.workers._make = make_slow  # type: ignore[assignment]
    put(house.root / "bundle", NEW)
    longest, before = 0.0, house.wake.now
    for _ in range(300):
        house.daemon.step()
        longest, before = max(longest, house.wake.now - before), house.wake.now
    assert len(house.events) == 1
    assert longest < 2.0  # all examinations together take six seconds
    house.sets[0].stagers.held = False
    house.run(30)
    assert [bundle for _, bundle in house.answered_by()].count("new") == 19
    assert {state for state, _ in house.answered_by()} == {"delivered"}


def test_a_refused_bundle_disturbs_no_study(house: SwappingHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FakeWorkers) -> bool:
        raise REFUSED

    monkeypatch.setattr(FakeWorkers, "is_set_up", refuse)
    put(house.root / "bundle", NEW)
    put_study(house.inbox, "1.5")
    house.run(20)
    assert [event.code for event in house.events] == [ReasonCode.BUNDLE_SELF_TEST_FAILED]
    put_study(house.inbox, "1.6")
    house.run(5)
    assert house.answered_by() == [("delivered", "old")] * 2
    old, new = house.sets
    assert (old.idle_ended, new.ended) == (False, True)


def test_all_crews_end_with_the_daemon(house: SwappingHouse) -> None:
    put_study(house.inbox, "1.5")
    house.sets[0].stagers.held = True
    house.run(3)
    house.exchange()
    house.workers.start_candidate(NEWER)
    house.workers.end()
    assert [workers.ended for workers in house.sets] == [True, True, True]


def test_a_job_planned_for_another_bundle_is_not_claimed(house: SwappingHouse) -> None:
    from datetime import timedelta

    job = house.ledger.open_job("1.5", "1", "1.5", "1.5.1")
    house.ledger.ready(job.id, content="c", fingerprint="f", bundle_digest=digest_of(OLD))
    assert Claims(house.ledger).claim(timedelta(seconds=5), digest_of(NEW)) is None
    claimed = Claims(house.ledger).claim(timedelta(seconds=5), digest_of(OLD))
    assert claimed is not None
    assert claimed.state is JobState.CLAIMED
