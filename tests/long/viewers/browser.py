"""OHIF as a radiologist uses it: open a study, show one of its documents, and read the screen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.long.viewers.site import VIEWER

# root cannot use Chromium's sandbox, and there may be no graphics card. The rest stops Chromium's background traffic.
_FLAGS = (
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)  # fmt: skip
_PATIENCE = 120_000  # ms; pixels are drawn by the processor
_SCREEN = {"width": 1920, "height": 1080}
_SEEN = "localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))"  # skips the guided tour

_BYTES = "async shown => [...new Uint8Array(await (await fetch(shown.data)).arrayBuffer())]"
_LABELS = """
() => [...document.querySelectorAll('svg text, svg tspan')].map(text => {
    const box = text.getBoundingClientRect();
    return {text: text.textContent, left: box.left, right: box.right, top: box.top, bottom: box.bottom};
})
"""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; :func:`tests.long.viewers.peers.fetch` installs Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=[*_FLAGS])
        yield chromium
        chromium.close()


def _pixels(screenshot: bytes) -> npt.NDArray[np.int_]:
    with Image.open(BytesIO(screenshot)) as picture:
        return np.asarray(picture.convert("RGB"), dtype=int)


class Viewer:
    """One study in OHIF.

    Parameters
    ----------
    chromium
        The browser of :func:`browser`.
    study
        Its Study Instance UID.
    """

    def __init__(self, chromium: Any, study: str) -> None:
        self.page = chromium.new_page(viewport=_SCREEN)
        self.page.set_default_timeout(_PATIENCE)
        self.page.add_init_script(_SEEN)
        self.page.goto(f"{VIEWER}/viewer?StudyInstanceUIDs={study}")
        self.page.locator("[data-cy=study-browser-thumbnail]").first.wait_for()
        self.rest()

    def rest(self, seconds: float = 3.0) -> None:
        """Wait until the screen has not changed for some seconds."""
        before, since, start = b"", time.monotonic(), time.monotonic()
        while time.monotonic() - since < seconds and time.monotonic() - start < _PATIENCE / 1000:
            now = self.page.screenshot()
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.3)

    def open(self, modality: str, series_number: int) -> None:
        """Double-click one of the study's documents."""
        entry = self.page.locator("[data-cy=study-browser-thumbnail-no-image]").filter(has_text=modality)
        entry.filter(has_text=f"S:{series_number}").dblclick()

    def overlay(self) -> None:
        """Answer yes when OHIF asks whether to show the segmentation."""
        self.page.get_by_text("Yes", exact=True).click()
        self.page.get_by_text("Yes", exact=True).wait_for(state="detached")

    def shows(self, text: str) -> None:
        """Wait for a text anywhere on the page."""
        self.page.get_by_text(text).first.wait_for()

    def slice_number(self) -> int:
        """Return the Instance Number of the slice on the screen."""
        shown: str = self.page.locator("[data-cy=viewport-overlay-bottom-right]").first.inner_text()
        return int(shown.partition("I:")[2].split()[0])

    def label(self, beginning: str) -> dict[str, Any]:
        """Return the label on the image that starts with `beginning`: its text and its place on the screen."""
        found = [one for one in self.page.evaluate(_LABELS) if one["text"].startswith(beginning)]
        return min(found, key=lambda one: len(one["text"])) if found else {}

    @property
    def width(self) -> int:
        """Width of the screen in pixels."""
        return _SCREEN["width"]

    def coloured(self) -> int:
        """Count the reddish pixels of the image; a CT has none."""
        red, green, _ = np.moveaxis(_pixels(self.page.locator("canvas").first.screenshot()), -1, 0)
        return int(np.count_nonzero(red - green > 60))

    def document(self) -> bytes:
        """Return the PDF that is shown in place of the image."""
        shown = self.page.locator("object[type='application/pdf'][data]")
        shown.wait_for()
        return bytes(shown.evaluate(_BYTES))

    def paper(self) -> float:
        """Return the share of white pixels on the screen; only a page is white here."""
        return float(np.mean(_pixels(self.page.screenshot()).min(axis=-1) > 250))

    def outline(self) -> int:
        """Count the line segments that are drawn over the image."""
        return int(self.page.locator("svg polyline, svg path[data-tool-type], svg line").count())

    def picture(self, path: Path) -> Path:
        """Save a picture of the screen."""
        self.page.screenshot(path=path)
        return path

    def close(self) -> None:
        """Close the page."""
        self.page.close()
