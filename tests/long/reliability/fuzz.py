"""Damaged DICOM through the appliance's real path: no process dies, no error is unclassified, no number is wrong.

``python -m tests.long.reliability.fuzz`` (``make fuzz``). Every input follows from the seed and its number alone. It is
processed as by the daemon: confined processes read each header, and plan and stage the study; the parent assembles.
Each answer is compared with :mod:`long.reliability.oracle`, which shares no code with the appliance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import DefectError, ExhaustedError, Held, Refused, Unavailable
from lungstage.appliance.daemon.open_cases import content_digest
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.header import Header, headers_from_json, headers_to_json
from lungstage.appliance.model.bundle_files import read_files
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers.messages import Answer, AnswerT, Prepare, ReadHeaders, Request, Setting, Stage
from lungstage.appliance.workers.process import Limits, WorkerProcess
from lungstage.export.bundle import build
from tests.conftest import ROOT
from tests.export.conftest import make_run, without_limits
from tests.long.reliability import oracle, page
from tests.long.reliability.corpus import Files, generated_studies, real_files, real_studies
from tests.long.reliability.elements import LARGE, STUDY_MUTATORS, Changes, roi_of
from tests.long.reliability.mutations import BYTE_MUTATORS, Chance
from tests.long.reliability.strict import Contradiction, read
from tests.long.reliability.transformed import Base, base
from tests.support import habits

KINDS = {
    "file, bytes": 37, "study, habits": 3, "study, transformed": 20, "study, bytes": 18, "study, elements": 20,
    "real study": 1.9, "large": 0.1,
}  # fmt: skip
_NOT_PLAIN = ("contours, implicit", "contours, JPEG-LS")  # habits.parts cannot split these files
_PARENT_BYTES = 2 * 1024**3  # limit of this process, which acts as the daemon; more memory breaks a promise
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_NUMERIC_VALUE, _FLOATING_VALUE, _CONTENT, _MEASURED = 0x0040A30A, 0x0040A161, 0x0040A730, 0x0040A300


class WrongError(Exception):
    """A promise that was broken."""


EVERY_PAGE = 4
"""One in this many inputs is answered with a page too, which takes as long as everything else."""


@dataclass(frozen=True)
class Input:
    """One damaged input: a study with its changes, or a single file."""

    number: int
    kind: str
    study: str  # "" for a single file
    mutators: tuple[str, ...]
    changes: Changes
    base: Base | None = None  # the transformed study, if it is not one of the sound ones


@dataclass(frozen=True)
class Clean:
    """The result of a sound study; incomplete if it is refused or the second reader cannot verify it."""

    files: Files
    headers: Mapping[str, tuple[Header, ...]]
    answer: tuple[Any, ...] | None
    facts: oracle.Facts | None
    drawn: bytes


@dataclass
class Tally:
    """Results of the inputs."""

    verdicts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    by_mutator: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    died: int = 0
    unclassified: int = 0
    untrue: int = 0
    bases: Counter[str] = field(default_factory=Counter)  # transformed studies, before they were damaged
    slowest: float = 0.0  # s, of an input
    slowest_request: float = 0.0  # s, of those that an input takes
    peak: int = 0  # KB, of a confined process
    parent: int = 0  # KB


class Source:
    """Makes the inputs of a seed."""

    def __init__(self, seed: str, studies: Mapping[str, Files], real: Mapping[str, Files], files: Sequence[bytes]):
        self._seed, self._studies, self._real = seed, studies, real
        self._files = files or [content for study in studies.values() for content in study.values()]

    def input(self, number: int) -> Input:
        chance = Chance(f"{self._seed}:{number}")
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        while True:
            with suppress(Exception):  # if a mutator does not fit, draw again
                return Input(number, kind, *self._make(kind, chance))

    def _make(self, kind: str, chance: Chance) -> tuple[Any, ...]:
        if kind == "file, bytes":
            return "", *self._bytes({"file": chance.choice(self._files)}, ["file"], chance)
        studies = self._real if kind == "real study" and self._real else self._studies
        name = chance.choice(list(studies))
        files = studies[name]
        if kind == "study, transformed":
            drawn = base(chance)
            return "transformed", *self._damaged(drawn, chance), drawn
        if kind == "study, habits":
            name = chance.choice([name for name in self._studies if name not in _NOT_PLAIN])
            return name, *self._habits(self._studies[name], chance)
        if kind == "large":
            mutators = [chance.choice(LARGE)]
        elif kind == "study, bytes" or (kind == "real study" and chance.random() < 0.7):
            victims = [roi_of(files)] if chance.random() < 0.5 else chance.sample(list(files), chance.choice((1, 1, 2)))
            return name, *self._bytes(files, victims, chance)
        else:
            mutators = [chance.choice(STUDY_MUTATORS) for _ in range(chance.choice((1, 1, 1, 2)))]
        now, changes = dict(files), {}
        for mutator in mutators:
            done = mutator(now, chance)
            changes.update(done)
            now = {k: v for k, v in (now | done).items() if v is not None}
        return name, tuple(m.__name__ for m in mutators), changes

    def _damaged(self, drawn: Base, chance: Chance) -> tuple[tuple[str, ...], Changes]:
        """A transformed study with damage to bytes or elements, or with none."""
        told: tuple[str, ...] = ()
        changes: Changes = {}
        way = chance.choice(("bytes", "elements", "elements", "none"))
        if way == "bytes":
            told, changes = self._bytes(dict(drawn.files), [chance.choice(list(drawn.files))], chance)
        elif way == "elements":
            mutator = chance.choice(STUDY_MUTATORS)
            told, changes = (mutator.__name__,), mutator(drawn.files, chance)
        return drawn.transformations + told, changes

    def _habits(self, files: Files, chance: Chance) -> tuple[tuple[str, ...], Changes]:
        """Apply one or two habits of other writers to every file of a study, or to one."""
        chosen = chance.sample(habits.HABITS, chance.choice((1, 1, 2)))
        changes: Changes = {}
        for name in files if chance.random() < 0.5 else [chance.choice(list(files))]:
            file = habits.parts(files[name])
            for habit in chosen:
                file = habit(file)
            changes[name] = file.joined()
        return tuple(habit.__name__ for habit in chosen), changes

    def _bytes(self, files: Files, victims: Sequence[str], chance: Chance) -> tuple[tuple[str, ...], Changes]:
        changes: Changes = {}
        told = []
        for victim in victims:
            content = files[victim]
            for _ in range(chance.choice((1, 1, 1, 2, 3))):
                mutator = chance.choice(BYTE_MUTATORS)
                if len(content) > 140:
                    content = mutator(content, chance, self._files)
                    told.append(mutator.__name__)
            changes[victim] = content
        return tuple(told), changes


class Fuzzer:
    """Sends inputs through a process and checks the results."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._bundle = folder / "bundle"
        build(without_limits(make_run()), self._bundle)
        files = read_files(self._bundle)
        self._processes = {
            has_page: WorkerProcess(
                Setting(files, "compiled", folder, documents=DocumentOptions(("sr", "pdf") if has_page else ("sr",))),
                limits,
            )
            for has_page in (False, True)
        }
        self._has_page = True
        self._answers: dict[str, tuple[Any, ...]] = {}
        self._stock: dict[str, dict[str, float]] = {}
        self.clean: dict[str, Clean] = {}
        self.tally = Tally()

    def end(self) -> None:
        self._measure()
        for process in self._processes.values():
            process.end()

    def meet(self, studies: Mapping[str, Files]) -> None:
        """Stage the sound studies, and compare them with the oracle too."""
        for name, files in studies.items():
            folder = self._folder / f"clean-{len(self.clean)}"
            headers = {file: self._read(folder / file, content) for file, content in files.items()}
            (case,) = assemble(itertools.chain(*headers.values()))
            answer = self._stage(case)[1]
            facts = oracle.facts(list(files.values()), answer.outcome["roi"]["name"])
            if wrong := self._compare(answer, facts):
                raise WrongError(f"{name}: {wrong}")
            self.clean[name] = Clean(files, headers, _said(answer), facts, _drawn(answer))

    def send(self, one: Input) -> str:
        """Send one input; return its verdict, which begins with ``WRONG`` if a promise was broken."""
        started = time.perf_counter()
        self._has_page = one.number % EVERY_PAGE == 0
        try:
            verdict = self._file(one) if not one.study else self._study(one)
        except (Refused, Held) as reason:
            self.tally.codes[f"study {reason.reason.code}"] += 1
            verdict = "refused" if isinstance(reason, Refused) else "held"
        except ExhaustedError as error:
            verdict = f"over its limits, {str(error)[:-1].lower()}"
        except Unavailable as error:  # the daemon would try again for ever, because no file changes here
            self.tally.unclassified += 1
            verdict = f"WRONG: unavailable: {error}"
        except DefectError as defect:
            self.tally.unclassified += 1
            verdict = f"WRONG: unclassified {defect.defect}"
        except WrongError as error:
            self.tally.untrue += 1
            verdict = f"WRONG: {error}"
        except Exception:
            self.tally.died += 1
            verdict = f"WRONG: the parent fails: {traceback.format_exc()}"
        took = time.perf_counter() - started
        tally = self.tally
        tally.slowest = max(tally.slowest, took)
        tally.verdicts[verdict if not verdict.startswith("WRONG") else "WRONG"] += 1
        tally.kinds[one.kind] += 1
        for mutator in set(one.mutators):
            tally.by_mutator[mutator, verdict.split(":")[0]] += 1
        if verdict.startswith("WRONG"):
            tally.wrong.append(f"{one.number} ({one.study or 'file'}; {', '.join(one.mutators)}): {verdict}")
        if one.number % 50 == 0 or one.kind == "large":
            self._measure()
        return verdict

    def _measure(self) -> None:
        for process in self._processes.values():
            with suppress(OSError, AttributeError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                self.tally.peak = max(self.tally.peak, int(re.search(r"VmHWM:\s+(\d+)", status).group(1)))  # type: ignore[union-attr]
        self.tally.parent = max(self.tally.parent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        self.tally.peak = max(self.tally.peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)

    def _call(self, request: Request[AnswerT]) -> AnswerT:
        started = time.perf_counter()
        try:
            return self._processes[self._has_page].call(request)
        finally:
            self.tally.slowest_request = max(self.tally.slowest_request, time.perf_counter() - started)

    def _read(self, path: Path, content: bytes) -> tuple[Header, ...]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        headers = self._call(ReadHeaders(path))
        if headers_from_json(headers_to_json(headers), path) != headers:
            raise WrongError("a header does not survive the ledger")
        return headers

    def _read_damaged(self, one: Input) -> dict[str, tuple[Header, ...]]:
        headers = {}
        for name, content in one.changes.items():
            if content is None:
                continue
            try:
                headers[name] = self._read(self._folder / "damaged" / f"{one.number}-{name}", content)
            except Refused as refused:
                self.tally.codes[f"file {refused.reason.code}"] += 1
        return headers

    def _file(self, one: Input) -> str:
        headers = self._read_damaged(one)
        try:
            if not any(headers.values()):
                return "nothing usable, or refused"
            for case in assemble(itertools.chain(*headers.values())):
                content_digest(case)
                with suppress(Refused, Held):
                    self._call(Prepare(case, settled=True, roi_name=None, match_by_geometry=True))
            return "read"
        finally:
            self._clear(one)

    def _clean_of(self, one: Base, number: int) -> Clean:
        """Process a transformed study before it is damaged: it must give the true region, or nothing."""
        headers = {}
        for name, content in one.files.items():
            with suppress(Refused):
                headers[name] = self._read(self._folder / f"base-{number}" / name, content)
        clean = Clean(dict(one.files), headers, None, None, b"")
        reasons = []
        for case in assemble(itertools.chain(*headers.values())):
            try:
                answer = self._stage(case)[1]
            except (Refused, Held) as reason:
                reasons += [str(reason.reason.code)] if case.rois else []
                continue
            if answer.outcome["roi"]["voxels"] != one.voxels:
                raise WrongError(f"before any damage: {answer.outcome['roi']['voxels']} voxels, but {one.voxels}")
            facts = None
            try:
                facts = oracle.facts(oracle.sound([one.files[name] for name in headers]), answer.outcome["roi"]["name"])
            except Contradiction:
                self.tally.bases["staged; the second reader cannot verify it"] += 1
            else:
                if wrong := self._compare(answer, facts):
                    raise WrongError(f"before any damage: {wrong}")
                self.tally.bases["staged"] += 1
            clean = Clean(dict(one.files), headers, _said(answer), facts, _drawn(answer))
        if clean.answer is None:
            self.tally.bases[f"refused or held: {min(reasons, default='')}"] += 1
        return clean

    def _study(self, one: Input) -> str:
        clean = self.clean[one.study] if one.base is None else self._clean_of(one.base, one.number)
        try:
            headers = {**clean.headers}
            for name in one.changes:
                headers.pop(name, None)
            headers |= self._read_damaged(one)
            # A refused file counts as not received, even if the second reader finds nothing wrong in it.
            contents = {k: v for k, v in (clean.files | one.changes).items() if v is not None and k in headers}
            verdicts: list[str] = []
            stopped: Refused | Held | None = None
            for case in assemble(itertools.chain(*headers.values())):
                content_digest(case)
                try:
                    fingerprint, answer = self._stage(case)
                except (Refused, Held) as reason:
                    if stopped is None or case.rois:
                        stopped = reason
                else:
                    verdicts.append(self._judge(clean, fingerprint, answer, contents))
            if (
                one.kind == "study, habits"
                and verdicts != ["staged, same answer as the sound study"]
                and len(one.mutators) == 1
            ):
                raise WrongError(f"a habit is not read as the sound study: {verdicts or stopped}")
            all_read = headers.keys() >= one.changes.keys()  # a file may be unreadable with two habits together
            if (
                one.kind == "study, habits"
                and all_read
                and any(v != "staged, same answer as the sound study" for v in verdicts)
            ):
                raise WrongError(f"habits give a third thing: {verdicts}")
            if verdicts:
                return verdicts[0]
            if stopped is not None:
                raise stopped
            return "nothing left"
        finally:
            self._clear(one)

    def _clear(self, one: Input) -> None:
        for name in one.changes:
            (self._folder / "damaged" / f"{one.number}-{name}").unlink(missing_ok=True)
        if one.base is not None:
            shutil.rmtree(self._folder / f"base-{one.number}", ignore_errors=True)

    def _stage(self, case: Any) -> tuple[str, Answer]:
        plan = self._call(Prepare(case, settled=True, roi_name=None, match_by_geometry=False))
        site = Site().of_study(case.study_instance_uid)
        return plan.fingerprint, self._call(Stage(plan, _CREATED, site))

    def _judge(self, clean: Clean, fingerprint: str, answer: Answer, contents: Mapping[str, bytes]) -> str:
        said = _said(answer)
        # A fingerprint is answered once, so it must give one answer.
        if self._answers.setdefault(fingerprint, said) != said:
            raise WrongError("one fingerprint, two answers")
        same = said == clean.answer and (not clean.drawn or _drawn(answer) == clean.drawn)
        every = list(contents.values())
        sound = oracle.sound(every)
        try:
            facts = oracle.facts(sound, answer.outcome["roi"]["name"])
        except Contradiction as why:
            if same:
                return "staged, same answer as the sound study"
            if clean.facts is None or isinstance(why, oracle.Untold):
                return "staged; the second reader cannot verify it"
            raise WrongError(f"another answer although {why}") from why
        if clean.facts is not None and facts.digest == clean.facts.digest and not same:
            raise WrongError("another answer from the same content")
        if wrong := self._compare(answer, facts):
            if same and len(sound) < len(every):  # a file that the second reader refuses although its content is right
                return "staged, same answer as the sound study"
            raise WrongError(wrong)
        if same:
            return "staged, same answer as the sound study"
        if facts.clipped:
            if not any("extrapolated" in warning for warning in answer.outcome["warnings"]):
                raise WrongError("the margin is missing, and there is no warning")
            return "staged without a neighbouring slice, with a warning"
        return "staged, other content, correct numbers"

    def _compare(self, answer: Answer, facts: oracle.Facts) -> str:
        """Return how an answer and its documents differ from the files; empty if they agree."""
        roi = answer.outcome["roi"]
        volume = facts.voxels * facts.spacing[0] * facts.spacing[1] * facts.spacing[2]
        if roi["voxels"] != facts.voxels or abs(roi["volume_mm3"] - volume) > 1e-9 * volume:
            return f"{roi['voxels']} voxels, {roi['volume_mm3']} mm3, but {facts.voxels} and {volume}"
        extraction = self._bundle / "extraction.yaml"
        if facts.digest not in self._stock:
            self._stock[facts.digest] = oracle.stock_features(facts, extraction)
        if wrong := oracle.agree(answer.outcome["features"], self._stock[facts.digest], facts, extraction):
            return f"features that are not stock PyRadiomics': {wrong}"
        numbers = _numbers(_content(answer, "sr"))
        missing = [v for v in answer.outcome["features"].values() if v is not None and not _among(v, numbers)]
        if missing:
            return f"the report does not contain {missing}"
        segmentation = _content(answer, "seg")
        if segmentation and not facts.is_drawn_at(oracle.drawn_voxels(segmentation)):
            return "the written segmentation is another one"
        return ""


def _said(answer: Answer) -> tuple[Any, ...]:
    outcome = answer.outcome
    return (
        tuple(sorted(outcome["features"].items())), outcome["roi"]["voxels"], outcome["roi"]["volume_mm3"],
        outcome["probability_advanced"],
    )  # fmt: skip


def _drawn(answer: Answer) -> bytes:
    """Return the pixels of the segmentation that was written, if any."""
    segmentation = _content(answer, "seg")
    return oracle.pixels_of(segmentation) if segmentation else b""


def _content(answer: Answer, kind: str) -> bytes:
    """Return the document of this kind; empty if there is none."""
    return b"".join(document.content for document in answer.documents if document.kind == kind)


def _numbers(content: bytes) -> list[float]:
    found: list[float] = []
    pending = [read(content)[1]]
    while pending:
        dataset = pending.pop()
        pending += dataset.items(_CONTENT) + dataset.items(_MEASURED)
        if _NUMERIC_VALUE in dataset:
            found += dataset.decimals(_NUMERIC_VALUE)
        if _FLOATING_VALUE in dataset:
            found += dataset.doubles(_FLOATING_VALUE)
    return found


def _among(value: float, numbers: Sequence[float]) -> bool:
    return any(abs(number - value) <= 1e-12 * abs(value) for number in numbers)


def run(seed: str, numbers: Sequence[int], keep: Path, limits: Limits, *, loud: bool = False) -> Tally:
    """Send inputs; those that break a promise are kept in `keep`."""
    former = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_PARENT_BYTES, former[1]))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzzer = Fuzzer(Path(folder), limits)
        try:
            studies, real = generated_studies(), real_studies()
            fuzzer.meet(studies | real)
            source = Source(seed, studies, real, real_files())
            for number in numbers:
                one = source.input(number)
                verdict = fuzzer.send(one)
                if verdict.startswith("WRONG"):
                    _keep(one, seed, verdict, keep)
                if loud and (number + 1) % 500 == 0:
                    print(number + 1, dict(fuzzer.tally.verdicts), flush=True)
            return fuzzer.tally
        finally:
            fuzzer.end()
            resource.setrlimit(resource.RLIMIT_DATA, former)


def _keep(one: Input, seed: str, verdict: str, keep: Path) -> None:
    folder = keep / f"{seed}-{one.number}"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"seed": seed, "number": one.number, "study": one.study, "mutators": one.mutators, "verdict": verdict,
             "removed": [name for name, content in one.changes.items() if content is None]}  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about, indent=1))
    files = one.changes if one.base is None else {**one.base.files, **one.changes}
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)


def parts(tally: Tally, seed: str, minutes: float) -> list[str]:
    """The section of docs/reliability.md."""
    count = sum(tally.kinds.values())
    kinds = ", ".join(f"{kind} {number}" for kind, number in tally.kinds.most_common())
    return [
        f"{count} inputs of seed {seed} in {minutes:.0f} minutes: {kinds}. {page.machine()}",
        f"Worker processes that died, or requests that failed in the parent: {tally.died}. Unclassified errors: "
        f"{tally.unclassified}. Answers that contradict the files: {tally.untrue}. Slowest request: "
        f"{tally.slowest_request:.1f} s (limit {Limits().seconds:g} s). Slowest input, with several requests: "
        f"{tally.slowest:.1f} s. Largest resident set of a confined process: "
        f"{tally.peak / 1024:.0f} MB (limit {Limits().memory // 2**20} MB); of the parent, which includes the second "
        f"reader: {tally.parent / 1024:.0f} MB.",
        page.counts(("result", "inputs"), tally.verdicts),
        f"{sum(tally.bases.values())} studies were transformed before they were damaged. Before the damage, "
        f"{tally.bases['staged']} were staged with the second reader's numbers. For "
        f"{tally.bases['staged; the second reader cannot verify it']} the second reader has no numbers: only the "
        "number of voxels was compared with the drawn region, and after the damage only the same answer counts as "
        "correct. All others were refused or held.",
        page.counts(("code, of a file or of a study", "times"), tally.codes),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of single inputs; the page is not written")
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "fuzz", help="folder for inputs that failed")
    given = parser.parse_args()
    started = time.monotonic()
    tally = run(given.seed, given.only or range(given.count), given.keep, Limits(), loud=True)
    told = parts(tally, given.seed, (time.monotonic() - started) / 60)
    for key, count in sorted(tally.by_mutator.items()):
        print(*key, count)
    print(*tally.wrong, *told, sep="\n")
    if not given.only:
        page.write("fuzz", told)
    raise SystemExit(bool(tally.wrong))


if __name__ == "__main__":
    main()
