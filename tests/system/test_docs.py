"""The code does what the documentation says."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest
import typer.main
from prometheus_client import generate_latest

from lungstage.appliance.cli.main import app
from lungstage.appliance.commissioning.plan import Plan, Thresholds
from lungstage.appliance.config.explain import default_in_words
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import ReasonCode
from lungstage.appliance.daemon.prometheus import PrometheusMeter
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.audit import RECOVERED
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.heartbeat import Heartbeat
from lungstage.appliance.state.job import JobState
from lungstage.appliance.state.ledger import utc_now
from tests.conftest import ROOT


def test_every_reason_code_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "reason-codes.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)
    documented = {code for cell in first_cells for code in re.findall(r"`(\w+)`", cell)}
    assert documented == set(ReasonCode)


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, flags=re.MULTILINE))
    assert set(rows) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if not field.is_required() and field.default_factory is None and field.default is not None:
            assert rows[name] == f"`{default_in_words(name)}`"


class TestOperating:
    """docs/operating.md."""

    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")

    def test_commands_exist_with_their_options(self) -> None:
        commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
        rows = re.findall(r"^\| `lungstage (\w+)[^`]*` \| (.*) \|$", self.text, flags=re.MULTILINE)
        assert rows
        for name, meaning in rows:
            options = {option for parameter in commands[name].params for option in parameter.opts}
            assert set(re.findall(r"--[a-z]+", meaning)) <= options, name

    def test_every_metric_is_there_and_no_other(self, tmp_path: Path) -> None:
        Database(tmp_path / "ledger.sqlite").close()
        beat = Heartbeat(utc_now(), 60.0, "1", "b", watch="poll", files=0, in_hand=0, overdue=0, canary=True)
        heartbeat.write(tmp_path, beat)
        page = generate_latest(PrometheusMeter(tmp_path).registry).decode()
        first_cells = re.findall(r"^\| (`lungstage_[^|]*) \|", self.text, flags=re.MULTILINE)
        documented = {name for cell in first_cells for name in re.findall(r"`(\w+)(?:\{[\w,]+\})?`", cell)}
        assert documented == set(re.findall(r"^# TYPE (\w+) ", page, flags=re.MULTILINE))

    def test_every_state_is_there(self) -> None:
        table = self.text.split("## States of a job")[1].split("## Watch")[0]
        first_cells = re.findall(r"^\| (`[^|]*) \|", table, flags=re.MULTILINE)
        assert {state for cell in first_cells for state in re.findall(r"`(\w+)`", cell)} == set(JobState)

    def test_events_are_logged_at_their_level(self) -> None:
        code = source()
        rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (warning|error) \|", self.text, flags=re.MULTILINE)
        assert rows
        for cell, level in rows:
            for event in re.findall(r"\w+", cell):
                assert f'logger.{level}("{event}"' in code, event

    def test_settings_that_are_named_exist(self) -> None:
        named = set(re.findall(r"`((?!lungstage_)\w+_(?:seconds|mb|port|format))`", self.text))
        assert named <= set(Settings.model_fields)
        assert "alert_after_seconds" in named


def test_every_threshold_of_a_commissioning_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "commissioning.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, flags=re.MULTILINE))
    assert rows == {name: str(field.default) for name, field in Thresholds.model_fields.items()}
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert Plan.model_validate(tomllib.loads(example)).pairs == Path("pairs.csv")


def test_every_event_and_every_change_that_can_be_told_is_documented() -> None:
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    events, changes = text.split("## Replay")
    state, replay, every = source("state"), source("replay"), source()
    told = {f"job_{state}" for state in JobState} - {"job_claimed"}
    told |= {f"job_{event}" for event in re.findall(r'_tell\("(\w+)"', state)}
    told |= {f"job_{event}" for event in re.findall(r'\.move\((?:[^()]|\([^()]*\))*?, "(\w+)"[,)]', state)}
    told |= set(re.findall(r'audit\.write\(\s*"(\w+)"', every)) | {RECOVERED}
    assert told > {"job_superseded", "job_requeued", "daemon_started"}, "the patterns no longer find the events"
    assert documented(events) >= told
    kinds = {kind for name in ("Change", "changed") for kind in re.findall(rf'\b{name}\(\s*"(\w+)"', replay)}
    kinds |= {"slice_missing", "roi_missing"}  # the code builds these names from parts
    kinds |= {"feature", "contribution", "descriptor", "robustness", "variation"}
    assert documented(changes) == kinds


def source(room: str = "") -> str:
    """Return the code of a room, or of the whole appliance."""
    return "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "appliance" / room).rglob("*.py")))


def documented(text: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
PAGES = [*(ROOT / name for name in OUTSIDE), *sorted((ROOT / "docs").glob("*.md"))]
OURS = "appliance|training|export|tests|docs|models|lungstage|examples"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestNames:
    """The links, files and objects that a page names exist."""

    def test_links(self, page: Path) -> None:
        for title, target in re.findall(r"\[([^]]*)\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), target
            if title.endswith((".py", ".md", ".c", ".toml")):
                assert Path(title).name == Path(target).name, title

    def test_files(self, page: Path) -> None:
        for name in quoted(page):
            path, _, tests = name.partition("::")
            if re.fullmatch(rf"(?:{OURS})/[\w./*-]*", path):
                assert any(ROOT.glob(path)), name
            elif re.fullmatch(r"[\w/]+\.(?:pyi?|c)", path):
                assert any(found for room in ROOT.glob("[ate]*/") for found in room.rglob(path)), name
            for test in tests.split("::") if tests else ():
                assert re.search(rf"^ *(?:def|class) {test}\b", (ROOT / path).read_text(encoding="utf-8"), re.M), name

    def test_objects(self, page: Path) -> None:
        """Pages use full names; the page on architecture also uses names relative to the appliance."""
        rooms = "|".join(names for layer in layers("lungstage.appliance") for names in layer)
        for name in quoted(page):
            if re.fullmatch(r"(?:lungstage\.)?(?:appliance|training|export)(?:\.(?!py$)\w+)+", name):
                assert_is_there(f"lungstage.{name.removeprefix('lungstage.')}")
            elif page.name == "architecture.md" and re.fullmatch(rf"(?:{rooms})(?:\.(?!onnx$)\w+)+", name):
                assert_is_there(f"lungstage.appliance.{name}")


def quoted(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def assert_is_there(name: str) -> None:
    parts = name.split(".")
    for most in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(parts[:most]))
            for part in parts[most:]:
                assert hasattr(found, part), name
                found = getattr(found, part)
            return
    raise AssertionError(name)


def layers(container: str) -> list[set[str]]:
    """Return the layers that import-linter checks, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (contract,) = (one for one in contracts if one.get("containers") == [container])
    assert contract["exhaustive"]
    return [set(re.split(r" [|:] ", layer)) for layer in contract["layers"]]


class TestArchitecture:
    """docs/architecture.md."""

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

    def rows(self, heading: str) -> list[tuple[int, str, str]]:
        part = self.text.split(f"## {heading}\n")[1].split("\n## ")[0]
        return [(int(n), room, what) for n, room, what in re.findall(r"^\| (\d+) \| `(\w+)/?` \| (.*?) \|", part, re.M)]

    @pytest.mark.parametrize(("package", "heading"), [("appliance", "The rooms of the appliance"),
                                                     ("training", "The rooms of training")])  # fmt: skip
    def test_rooms_are_those_of_the_contract_in_its_order(self, package: str, heading: str) -> None:
        rows = [(number, room) for number, room, what in self.rows(heading) if not what.startswith("planned")]
        by_layer = [{room for n, room in rows if n == number} for number in sorted({n for n, _ in rows})]
        assert by_layer == layers(f"lungstage.{package}")
        assert rows == sorted(rows, key=lambda row: row[0])

    def test_every_folder_is_there_that_is_not_planned_and_no_other(self) -> None:
        folders = {path.parent.name for path in (ROOT / "appliance").glob("*/__init__.py")}
        for _, room, what in self.rows("The rooms of the appliance"):
            assert (room in folders) != what.startswith("planned"), room

    def test_every_module_of_export_is_named(self) -> None:
        part = self.text.split("## Export\n")[1].split("\n## ")[0]
        modules = {path.stem for path in (ROOT / "export").glob("[a-z]*.py")}
        assert set(re.findall(r"`(\w+)`", part)) == modules

    def test_tests_mirror_the_rooms(self) -> None:
        for package in ("appliance", "training"):
            rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
            mirrored = {path.parent.name for path in (ROOT / "tests" / package).glob("*/__init__.py")}
            assert mirrored <= rooms, mirrored - rooms
        assert not list((ROOT / "tests" / "long").rglob("test_*.py")), "long runs are not part of the suite"


def test_glossary_names_code_that_is_there() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| [^|]+ \| [^|]+ \| (`[^|]+`) \|", text, flags=re.MULTILINE)
    every = "".join(
        path.read_text(encoding="utf-8") for room in ("appliance", "training") for path in (ROOT / room).rglob("*.py")
    )
    for name in (part for cell in cells for quotes in re.findall(r"`([\w.]+)`", cell) for part in quotes.split(".")):
        assert re.search(rf"\b{name}\b(?:\(.*\))?:|^ *{name}\b.*[=:]", every, flags=re.MULTILINE), name


def test_decisions_are_numbered_once_and_in_order() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^### (\d+)\. \S", text, flags=re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == text.count("\n### ")
    for page in PAGES:
        for number in re.findall(r"decisions?\.md#(\d+)-", page.read_text(encoding="utf-8")):
            assert int(number) in numbers, page.name


def test_the_figures_of_the_contour_network_are_those_of_its_bundle() -> None:
    manifest = json.loads((ROOT / "models" / "lung-contour" / "manifest.json").read_bytes())
    text = (ROOT / "docs" / "contour.md").read_text(encoding="utf-8")
    for figures in manifest["figures"]:
        both = f"{figures['dice_median']:.3f}", f"{figures['dice_tenth_percentile']:.3f}"
        if figures["method"] in ("diameter", "point", "box", "random walker", "region growing"):
            assert f"| {both[0]} / {both[1]} |" in text, figures["method"]
    assert f"{manifest['provenance']['held_out']} patients of LUNG1" in text
