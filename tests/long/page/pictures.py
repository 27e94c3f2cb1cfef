"""The pictures of the page in the documentation, of phantoms with invented names: ``make page-pictures``.

Needs Chromium, like :mod:`tests.system.test_page`, and the viewer (``make viewer``).
"""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.conftest import ROOT
from tests.support.serving import SECONDS, process
from tests.system.test_page import CHROMIUM, SOFTWARE, write

WIDTHS = (1300, 400)
_HEIGHT, _LONGEST = 1050, 1700
_COLOURS = 128


def keep(tab: Any, name: str, width: int, *, whole: bool = False) -> None:
    """Save a picture of a tab: the part that fits a window, or all of it up to a maximum length."""
    height = _HEIGHT
    if whole or width < 600:
        height = min(_LONGEST, tab.evaluate("document.documentElement.scrollHeight"))
    shot = tab.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height}, full_page=True)
    picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    picture.save(ROOT / "docs" / f"page-{name}-{width}.png", optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        for name in ("inbox", "outbox", "state"):
            (root / name).mkdir(mode=0o700)
        config = root / "lungstage.toml"
        config.write_text(
            f'inbox = "{root}/inbox"\noutbox = "{root}/outbox"\nstate = "{root}/state"\nbundle = "lung1-stage"\n'
        )
        described: Any = {"description": "CT thorax"}
        write(root / "inbox" / "a", "Müller^Jürgen", "MRN-1", {"GTV-1": 28}, **described)
        write(root / "inbox" / "b", "Kowalska^Zofia", "MRN-2", {"GTV-1": 28}, root / "late", **described)
        regions = {"GTV-1": 28, "GTV-1 ": 20, "GTV nodes": 10}
        write(root / "inbox" / "c", "Dupont^Élise", "MRN-3", regions, **described)
        with (
            process("run", f"--config={config}", log=root / "run.log"),
            process("page", f"--config={config}", "--bind=127.0.0.1:0", log=root / "page.log"),
        ):
            (address,) = re.findall(r"open (http\S+)", (root / "page.log").read_text())
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE])
            for width in WIDTHS:
                tab = browser.new_context(viewport={"width": width, "height": _HEIGHT}).new_page()
                tab.set_default_timeout(1000 * SECONDS)
                tab.goto(address)
                for state in ("held", "refused", "delivered"):
                    tab.locator(f".state.{state}").wait_for()
                keep(tab, "worklist", width)
                tab.locator("tr", has=tab.locator(".state.delivered")).locator("a").first.click()
                tab.get_by_role("button", name="Open the viewer").click()
                tab.get_by_role("button", name="Close the viewer").wait_for()
                tab.wait_for_timeout(1500)
                keep(tab, "study", width)
                tab.get_by_role("link", name="Worklist").click()
                tab.get_by_role("link", name="Choose the region").click()
                tab.locator("#choose-title").scroll_into_view_if_needed()
                tab.wait_for_timeout(1500)
                if width > 600:
                    keep(tab, "choice", width, whole=True)
                tab.get_by_role("link", name="Status").click()
                keep(tab, "status", width)
            browser.close()


if __name__ == "__main__":
    main()
