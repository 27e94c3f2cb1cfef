"""The site of the documentation: its pages, its links, and that it loads nothing from other hosts.

``make site`` builds it and fails on a broken link; these tests build nothing.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from mkdocs.exceptions import PluginError
from ruamel.yaml import YAML

import lungstage
from lungstage.training.model.classifier import DeepClassifier
from tests.conftest import ROOT

API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = YAML(typ="safe").load(re.sub(r"!!python\S+ ", "", text))
    return found


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """The module with the hooks; mkdocs loads it by its path."""
    spec = importlib.util.spec_from_file_location("documentation_pages", ROOT / "docs" / "site" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _leaves(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [leaf for one in (entry.values() if isinstance(entry, dict) else entry) for leaf in _leaves(one)]


def test_navigation_names_every_page_once_and_no_other(configuration: dict[str, Any], pages: ModuleType) -> None:
    added = {there for there in pages.OUTSIDE.values() if there.endswith(".md")}
    named = _leaves(configuration["nav"])
    assert sorted(named) == sorted({path.name for path in (ROOT / "docs").glob("*.md")} | added)


def test_readme_and_training_lead_to_the_new_pages() -> None:
    readme, training = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/training.md"))
    for page in ("researchers.md", "another-endpoint.md"):
        assert f"](docs/{page})" in readme
        assert f"]({page})" in training
    assert "](docs/api.md)" in readme


def test_nothing_of_the_theme_comes_from_elsewhere(configuration: dict[str, Any]) -> None:
    assert configuration["theme"]["font"] is False
    told = str(configuration)
    assert "http" not in told, "a documentation site in a hospital must not name another host"


def test_what_mkdocs_needs_is_pinned() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name in ("mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python", "griffelib", "pymdown-extensions"):
        assert re.search(rf"^{name}==", pinned, re.MULTILINE), name


class TestReference:
    """docs/api.md."""

    named = re.findall(r"^::: ([\w.]+)$", API, re.MULTILINE)

    def test_every_public_name_is_there(self) -> None:
        public = {f"lungstage.{name}" for name in lungstage.__all__} - {"lungstage.__version__"}
        assert public <= {*self.named}
        assert len(self.named) == len({*self.named})

    @pytest.mark.parametrize(
        "what",
        [
            lungstage.measure, lungstage.stage, lungstage.load_bundle, lungstage.GradientLossRFE, DeepClassifier,
            lungstage.MeasuredCase, lungstage.StagedCase, lungstage.Bundle, lungstage.ExtractionSpec,
        ],
    )  # fmt: skip
    def test_each_parameter_has_an_entry_of_its_own(self, what: Any) -> None:
        """If several parameters share an entry, all are shown with the type and default of the first."""
        heads = re.findall(r"^    (?! )(.*,.*)$", str(what.__doc__), re.MULTILINE)
        assert not [head for head in heads if re.fullmatch(r"\w+(?:, \w+)+(?: :.*)?", head)]


class TestLinks:
    """Links to files of the repository become links to the same content on the site."""

    @pytest.fixture
    def led(self, pages: ModuleType) -> Any:
        there = {*pages.OUTSIDE.values(), *(path.name for path in (ROOT / "docs").iterdir() if path.is_file())}
        files = SimpleNamespace(get_file_from_path=lambda uri: uri if uri in there else None)

        def lead(uri: str, markdown: str) -> str:
            page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
            return str(pages.on_page_markdown(markdown, page, None, files))

        return lead

    @pytest.mark.parametrize(
        ("uri", "written", "led_to"),
        [
            ("index.md", "[a](docs/training.md#study)", "[a](training.md#study)"),
            ("index.md", "[card](models/lung1-stage/MODEL_CARD.md)", "[card](models/lung1-stage/MODEL_CARD.md)"),
            ("bundles.md", "[card](../models/lung1-stage/MODEL_CARD.md)", "[card](models/lung1-stage/MODEL_CARD.md)"),
            ("bundles.md", "[a](settings.md)", "[a](settings.md)"),
            ("bundles.md", "[a](#sign)", "[a](#sign)"),
            ("bundles.md", "[a](../README.md)", "[a](index.md)"),
            ("models/lung1-stage/MODEL_CARD.md", "[a](../../docs/training.md)", "[a](../../training.md)"),
            ("page.md", "[style.py](../tests/long/field/check.py)", "style.py (`tests/long/field/check.py`)"),
            ("page.md", "[check.py](../tests/long/field/check.py)", "`tests/long/field/check.py`"),
            ("index.md", "[an example](training/cohorts/lung1.toml)", "an example (`training/cohorts/lung1.toml`)"),
            ("bundles.md", "[a](nowhere.md)", "[a](nowhere.md)"),
            ("bundles.md", "[a](https://example.org/)", "[a](https://example.org/)"),
            ("bundles.md", "```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
            ("bundles.md", "<!-- made -->\n| a |", "<!-- made -->\n\n| a |"),
        ],
    )  # fmt: skip
    def test_they_lead_there(self, led: Any, uri: str, written: str, led_to: str) -> None:
        assert led(uri, written) == led_to


class TestForeign:
    """Resources from other hosts, which a browser must not load."""

    @pytest.mark.parametrize(
        "html",
        [
            '<script src="https://example.org/a.js"></script>',
            '<script src="//example.org/a.js"></script>',
            '<link rel="stylesheet" href="http://example.org/a.css">',
            '<link rel="preconnect" href="https://fonts.example.org">',
            '<img src="https://example.org/a.png">',
            '<iframe src="https://example.org"></iframe>',
            "<style>@import 'https://example.org/a.css';</style>",
            '<pre class="mermaid">graph</pre>',
        ],
    )
    def test_it_is_refused(self, pages: ModuleType, tmp_path: Path, html: str) -> None:
        (tmp_path / "page.html").write_text(html)
        with pytest.raises(PluginError, match=r"page\.html"):
            pages.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))

    def test_in_a_style_sheet_too(self, pages: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "a.css").write_text("@font-face { src: url(https://example.org/a.woff2) }")
        with pytest.raises(PluginError, match=r"a\.css"):
            pages.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))

    def test_a_link_to_click_and_what_is_its_own_pass(self, pages: ModuleType, tmp_path: Path) -> None:
        own = (
            '<a href="https://example.org">elsewhere</a><script src="a.js"></script><img src="data:image/png;base64,">'
        )
        (tmp_path / "page.html").write_text(own)
        (tmp_path / "a.css").write_text("a { background: url(data:image/svg+xml;x) } b { src: url(b.woff2) }")
        pages.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
