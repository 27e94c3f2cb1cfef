"""The pages on contributing, reporting and citing agree with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lungstage.appliance import __version__
from tests.conftest import ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = ["CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "examples", ".github/PULL_REQUEST_TEMPLATE.md"]


def read(path: str | Path) -> Any:
    return YAML(typ="safe").load((ROOT / path).read_text(encoding="utf-8"))


class TestCitation:
    """CITATION.cff, by the schema of CFF 1.2.0."""

    cff = read("CITATION.cff")

    def test_it_has_what_it_must_have(self) -> None:
        assert {"cff-version", "message", "title", "authors"} <= {*self.cff}
        assert self.cff["cff-version"] == "1.2.0"
        known = "abstract authors cff-version keywords license message references title type version"
        assert {*self.cff} <= {*known.split()}
        assert all(isinstance(self.cff[key], str) for key in ("message", "title", "abstract", "version", "license"))

    def test_it_names_this_version(self) -> None:
        assert self.cff["version"] == __version__

    def test_authors_and_references(self) -> None:
        for author in self.cff["authors"]:
            assert "name" in author or "family-names" in author
        for one in self.cff["references"]:
            assert {"type", "title", "authors"} <= {*one}
            assert re.fullmatch(r"10\.\d{4,}/\S+", one["doi"])
            assert one["doi"] in (ROOT / "models" / "LICENSE").read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version_and_its_upgrade() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert parts[0].startswith(f"[{__version__}] - ")
    heads = [re.findall(r"^### (.*)$", part, re.MULTILINE) for part in parts]
    assert heads[0][0].startswith("Upgrade from ")
    for part in heads:
        order = [name for name in ("Added", "Changed", "Fixed", "Removed") if name in part]
        assert [name for name in part if not name.startswith("Upgrade")] == order
    assert f"| {__version__.rpartition('.')[0]} | yes |" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_the_version_stands_where_an_image_is_named() -> None:
    for name in ("README.md", "compose.yaml"):
        tags = re.findall(r"\blungstage:(\d[\w.]*)", (ROOT / name).read_text(encoding="utf-8"))
        assert {*tags} == {__version__}, name


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.stem)
def test_forms_ask_for_the_doctor_and_for_no_patient(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= {*form}
    first, *fields = form["body"]
    assert first["type"] == "markdown"
    assert "Never attach patient data" in first["attributes"]["value"]
    assert any("lungstage doctor" in field["attributes"]["label"] for field in fields)
    assert fields[-1]["type"] == "checkboxes"
    assert fields[-1]["attributes"]["options"] == [{"label": "This issue contains no patient data.", "required": True}]
    names = [field["id"] for field in fields]
    assert len(names) == len({*names})
    for field in fields:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes")


def test_no_address_is_made_up() -> None:
    for name in PAGES:
        for path in (ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name]:
            if path.is_file() and path.suffix in (".md", ".py", ".yml"):
                assert not re.search(r"[\w.]+@[\w-]+\.\w", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("page", [ROOT / name for name in PAGES if name.endswith(".md")], ids=lambda path: path.name)
def test_files_and_targets_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {*re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)} <= targets
    for name in re.findall(r"`((?:appliance|training|export|tests|docs|models)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (page.parent / target).exists(), target
