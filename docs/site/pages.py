"""Hooks of ``mkdocs.yml``: pages from outside ``docs/``, links to them, and a check that the site loads only itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from posixpath import relpath
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]
OUTSIDE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "models/lung-contour/MODEL_CARD.md": "models/lung-contour/MODEL_CARD.md",
    "models/lung1-stage/MODEL_CARD.md": "models/lung1-stage/MODEL_CARD.md",
    "models/lung1-survival/MODEL_CARD.md": "models/lung1-survival/MODEL_CARD.md",
    "docs/site/site.css": "site.css",
    "docs/site/iframe-worker.js": "iframe-worker.js",
}
"""Files of the repository and their paths in the site, where these differ from the path in ``docs/``."""

_LINK = re.compile(r"\[([^]\n]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^( *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):(?=<code)")
_FOREIGN = re.compile(r"\s*(?:https?:)?//")
_IN_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//[^\"')]*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files from outside ``docs/``."""
    for source, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change links to the site's paths; a file that the site does not contain is named by its path in the sources."""
    uri = page.file.src_uri
    source = {there: here for here, there in OUTSIDE.items()}.get(uri, f"docs/{uri}")

    def lead(link: re.Match[str]) -> str:
        title, target, anchor = link[1], link[2], link[3] or ""
        path = (ROOT / source).parent.joinpath(target).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            return link[0]  # mkdocs reports it as broken
        named = path.relative_to(ROOT).as_posix()
        there = OUTSIDE.get(named, named.removeprefix("docs/"))
        if (there != named or named in OUTSIDE) and files.get_file_from_path(there):
            return f"[{title}]({relpath(there, str(Path(uri).parent))}{anchor})"
        return f"`{named}`" if Path(title).name == path.name else f"{title} (`{named}`)"

    parts = _FENCE.split(markdown)  # every second part is a block of code
    parts[::2] = [re.sub(r"(-->)\n\|", r"\1\n\n|", _LINK.sub(lead, part)) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remove the docstrings' roles, which are for Sphinx."""
    return _ROLE.sub("", html)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that makes a browser load anything from another host: hospitals have no internet."""
    foreign = []
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix == ".html":
            found = _Loaded.of(path.read_text(encoding="utf-8"))
        elif path.suffix == ".css":
            found = _IN_STYLE.findall(path.read_text(encoding="utf-8"))
        else:
            continue
        foreign += [f"{path.relative_to(config.site_dir)}: {what}" for what in found]
    if foreign:
        raise PluginError("The site loads from other hosts:\n" + "\n".join(foreign))


class _Loaded(HTMLParser):
    """Everything that a page makes the browser load from another host."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    @classmethod
    def of(cls, html: str) -> list[str]:
        reader = cls()
        reader.feed(html)
        return [*reader.foreign, *_IN_STYLE.findall(html)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") != "canonical":
            self._look(tag, given.get("href", ""))
        elif tag != "a":
            for name in ("src", "srcset", "poster", "data"):
                self._look(tag, given.get(name, ""))
        if "mermaid" in given.get("class", "").split():
            self.foreign.append("a diagram: the theme loads mermaid for it")

    def _look(self, tag: str, address: str) -> None:
        if _FOREIGN.match(address):
            self.foreign.append(f"<{tag}> {address}")
