"""Contours that are drawn, corrected and confirmed in a browser, over a running daemon, on a real CT and a phantom.

Needs Chromium (``LUNGSTAGE_CHROMIUM``, or one on the path); without it, these tests are skipped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from lungstage.appliance.dicom.contours import Confirmation, confirmation
from tests.appliance.staging.test_sketching import nodules
from tests.support.ball_network import ball_bundle
from tests.support.serving import process
from tests.system.test_page import CHROMIUM, Running, browser, tab, until_job  # noqa: F401

sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

FIRST, SECOND = (118.0, -200.0, -462.5), (78.0, -200.0, -462.5)
"""Ends of a line inside the tumour, in mm."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared_data: Path, shipped_bundle: Path) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("site")
    for name in ("inbox", "outbox", "state"):
        (root / name).mkdir()
    (root / "page.toml").write_text(
        f'inbox = "{root / "inbox"}"\noutbox = "{root / "outbox"}"\nstate = "{root / "state"}"\n'
        f'[page]\ncontour_bundle = "{ball_bundle(root / "ball")}"\n'
    )
    folders = [f"--{name}={root / name}" for name in ("inbox", "outbox", "state")]
    shutil.copytree(shared_data / "dicom" / "lung1-001-slab" / "CT", root / "inbox" / "CT")
    with (
        process("run", *folders, f"--bundle={shipped_bundle}", log=root / "run.log") as daemon,
        process("page", f"--config={root / 'page.toml'}", "--bind=127.0.0.1:0", log=root / "page.log") as page,
    ):
        address = re.search(r"open (http\S+)", (root / "page.log").read_text())
        assert address
        yield Running(root, address[1], page)
        assert daemon.poll() is None


def place_on_picture(page: Any, plane: str, point: tuple[float, float, float]) -> tuple[float, float]:
    """Return the window's pixel that shows a patient's coordinate in a plane's picture, by the page's affine."""
    affine = np.array(page.evaluate("JSON.parse(document.getElementById('drawing').dataset.affine)"))
    index = np.linalg.solve(affine[:, :3], np.array(point) - affine[:, 3])
    axes = [k for k in range(3) if k != ("axial", "coronal", "sagittal").index(plane)]
    counts = [int(page.locator(f"#{name}").get_attribute("max")) + 1 for name in ("axial", "coronal", "sagittal")]
    picture = page.locator(f"figure[data-plane={plane}] img")
    picture.scroll_into_view_if_needed()
    sync_api.expect(picture).to_have_js_property("complete", True)
    box = picture.bounding_box()
    size = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    scale = min(box["width"] / size[0], box["height"] / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = box["x"] + (box["width"] - width) / 2, box["y"] + (box["height"] - height) / 2
    down, across = ((index[k] + 0.5) / counts[k] for k in axes)
    return float(left + across * width), float(top + down * height)


def go_to(page: Any, plane: str, point: tuple[float, float, float]) -> None:
    affine = np.array(page.evaluate("JSON.parse(document.getElementById('drawing').dataset.affine)"))
    index = np.linalg.solve(affine[:, :3], np.array(point) - affine[:, 3])
    k = ("axial", "coronal", "sagittal").index(plane)
    number = round(float(index[k]))
    page.locator(f"#{plane}").fill(str(number))
    sync_api.expect(page.locator(f"figure[data-plane={plane}] img")).to_have_attribute(
        "src", re.compile(f"/{number}.png")
    )


def volume_of(page: Any) -> float:
    """Return the draft's volume in ml, as the page shows it."""
    status = page.locator("#drawn")
    sync_api.expect(status).to_have_text(re.compile(r"^Volume"))
    found = re.search(r"([\d.]+) ml", status.inner_text())
    assert found
    return float(found[1])


def test_a_contour_is_drawn_corrected_confirmed_and_answered(tab: Any, running: Running) -> None:  # noqa: F811
    study = until_job(tab, running, "LUNG1-001", "held")
    tab.goto(study)
    tab.locator("#live").get_by_role("link", name="Draw a contour").click()
    tab.locator("#drawing[data-ready]").wait_for()
    confirm = tab.get_by_role("button", name="Confirm")
    sync_api.expect(confirm).to_be_disabled()
    go_to(tab, "axial", FIRST)
    for step, point in (("move", FIRST), ("down", None), ("move", SECOND), ("up", None)):
        getattr(tab.mouse, step)(*(place_on_picture(tab, "axial", point) if point else ()))
    drawn = volume_of(tab)
    assert drawn == pytest.approx(4 / 3 * np.pi * 20**3 / 1000, rel=0.02)

    tab.get_by_label("Remove").check()
    go_to(tab, "coronal", SECOND)
    tab.mouse.click(*place_on_picture(tab, "coronal", SECOND))
    sync_api.expect(tab.locator("#drawn")).not_to_have_text(re.compile(rf"{drawn}"))
    assert volume_of(tab) < drawn
    tab.get_by_role("button", name="Undo").click()
    sync_api.expect(tab.locator("#drawn")).to_have_text(re.compile(rf"{drawn}"))
    tab.get_by_label("Remove").check()
    tab.mouse.click(*place_on_picture(tab, "coronal", SECOND))
    sync_api.expect(tab.locator("#drawn")).not_to_have_text(re.compile(rf"{drawn}"))
    corrected = volume_of(tab)
    assert not list((running.root / "inbox").glob("SEG-*"))

    tab.get_by_label("Your name").fill("Weber^Anna")
    tab.get_by_label("I have checked").check()
    confirm.click()
    tab.locator("#live .state.delivered").wait_for()
    (seg,) = (running.root / "inbox").glob("SEG-*")
    dataset = pydicom.dcmread(seg)
    assert confirmation(dataset) is Confirmation.CONFIRMED
    assert dataset.ContentCreatorName == "Weber^Anna"
    voxel = np.prod([*dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing, 3.0])
    assert np.count_nonzero(dataset.pixel_array) * voxel / 1000 == pytest.approx(corrected, abs=0.06)
    assert sorted(path.name.split("-")[0] for path in (running.root / "outbox").iterdir()) == ["PDF", "SR"]
    log = "".join(path.read_text() for path in (running.root / "state" / "page").glob("audit*"))
    assert "contour_confirmed" in log
    assert "Weber" not in log + (running.root / "page.log").read_text() + (running.root / "run.log").read_text()


def test_of_a_tool_s_nodules_one_is_picked_and_the_second_operator_is_told(
    tab: Any, running: Running, browser: Any  # noqa: F811
) -> None:  # fmt: skip
    """The first operator closes the browser before the end; the second picks and confirms; the third is refused."""
    nodules("AUTOMATIC")[0].write(running.root / "inbox" / "nodules")
    before = {path.name for path in (running.root / "inbox").iterdir()}
    study = until_job(tab, running, "LUNGSTAGE-PHANTOM", "delivered")

    def opened(page: Any) -> None:
        page.goto(f"{study}/contour")
        page.get_by_label("Start from").select_option(label="Tumour (SEG 1)")
        page.locator("#drawing[data-ready]").wait_for()
        sync_api.expect(page.locator("#parts")).to_contain_text("2 separate parts")
        page.get_by_label("Only this part").check()
        for plane in ("axial", "coronal"):
            go_to(page, plane, (16.0, 0.0, 1.0))
        page.mouse.click(*place_on_picture(page, "axial", (16.0, 0.0, 1.0)))
        sync_api.expect(page.locator("#parts")).to_be_hidden()
        assert volume_of(page) == pytest.approx(4 / 3 * np.pi * 9**3 / 1000, rel=0.1)

    left = browser.new_context()
    page = left.new_page()
    page.goto(running.address)
    opened(page)
    left.close()
    assert {path.name for path in (running.root / "inbox").iterdir()} == before

    opened(tab)
    third = browser.new_context()
    late = third.new_page()
    late.goto(running.address)
    opened(late)
    for page, name in ((tab, "Weber^Anna"), (late, "Klein^Bert")):
        page.get_by_label("Your name").fill(name)
        page.get_by_label("I have checked").check()
        page.get_by_role("button", name="Confirm").click()
        page.wait_for_load_state()
    sync_api.expect(late.locator("body")).to_contain_text("Weber^Anna already confirmed a contour of this study")
    third.close()
    (name,) = {path.name for path in (running.root / "inbox").iterdir()} - before
    assert pydicom.dcmread(running.root / "inbox" / name).ContentCreatorName == "Weber^Anna"
    tab.locator("#live .problem a").click()  # to the job with the new report
    tab.get_by_text("semi-automatically and confirmed by a person").first.wait_for()
    sync_api.expect(tab.locator(".caveats")).to_contain_text("not validated on semi-automatic contours")
