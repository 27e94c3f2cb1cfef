"""The page in a browser, over a running daemon: what a radiographer does, from logging in to the report.

Needs Chromium (``LUNGSTAGE_CHROMIUM``, or one on the path); without it, these tests are skipped.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lungstage.appliance.page.study import NIIVUE
from lungstage.appliance.staging import phantom
from tests.support.serving import SECONDS, process
from tests.support.studies import Study, contour, structure_set
from tests.system.test_run import ENVIRONMENT, RUN

sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("LUNGSTAGE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

SOFTWARE = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a graphics card

SCRIPT = "<script>document.title='run'</script>"
MISSING = (8, 9)


def circle(radius: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [(47.5 + radius * np.sin(a), 47.5 + radius * np.cos(a)) for a in angles]


def write(
    folder: Path, patient: str, patient_id: str, regions: dict[str, float], late: Path | None = None,
    description: str = SCRIPT,
) -> None:  # fmt: skip
    """Write a part of the phantom with circles as regions; if `late` is given, two slices are written there."""
    slices = phantom.ct_datasets(phantom.make()[0][7:25, 48:144, 48:144], folder.name)
    drawn = {name: [contour(image, circle(radius)) for image in slices[3:-3]] for name, radius in regions.items()}
    study = Study(slices, [structure_set(slices, drawn, slices)])
    for dataset in (*study.slices, *study.rois):
        dataset.SpecificCharacterSet, dataset.PatientName, dataset.PatientID = "ISO_IR 192", patient, patient_id
        dataset.StudyDescription = description
    if late is not None:
        late.mkdir()
        for k in MISSING:
            slices[k].save_as(late / str(k), enforce_file_format=True)
        study.slices = [image for k, image in enumerate(slices) if k not in MISSING]
    study.write(folder)


@dataclass
class Running:
    """A daemon and a page, with three studies: complete, held for two slices, and with an ambiguous region."""

    root: Path
    address: str
    page: subprocess.Popen[str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shipped_bundle: Path) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("site")
    for name in ("inbox", "outbox", "state"):
        (root / name).mkdir()
    folders = [f"--{name}={root / name}" for name in ("inbox", "outbox", "state")]
    write(root / "inbox" / "a", "Müller^Jürgen", "MRN-1", {"GTV-1": 28})
    write(root / "inbox" / "b", "Wang^XiaoDong=王^小东", "MRN-2", {"GTV-1": 28}, root / "late")
    write(root / "inbox" / "c", SCRIPT, "MRN-3", {"GTV-1": 28, "GTV-1 ": 20, SCRIPT: 10})
    with (
        process("run", *folders, f"--bundle={shipped_bundle}", log=root / "run.log") as daemon,
        process("page", *folders, "--bind=127.0.0.1:0", log=root / "page.log") as page,
    ):
        address = re.search(r"open (http\S+)", (root / "page.log").read_text())
        assert address
        yield Running(root, address[1], page)
        assert daemon.poll() is None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api.expect.set_options(timeout=1000 * SECONDS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE])
        yield browser
        browser.close()


@pytest.fixture
def plain(browser: Any) -> Iterator[Any]:
    """A browser without WebGL, as in a remote desktop (RDP)."""
    plain = browser.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-3d-apis"])
    yield plain
    plain.close()


@pytest.fixture
def tab(browser: Any, running: Running) -> Iterator[Any]:
    """A tab that is logged in; at the end, its console must be empty."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(1000 * SECONDS)
    said: list[str] = []
    refused = "the server responded with a status of 403"  # a test may cause this on purpose
    tab.on("console", lambda message: refused in message.text or said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(running.address)
    yield tab
    context.close()
    assert said == []


def address(running: Running, path: str) -> str:
    return re.sub(r"/login.*", path, running.address)


def until_job(tab: Any, running: Running, patient: str, state: str) -> str:
    """Wait without a reload until a patient's study is in a state; return the address of the study."""
    tab.goto(address(running, "/"))
    row = tab.locator("tr", has_text=patient)
    row.locator(f".state.{state}").wait_for()
    return address(running, str(row.locator("a").first.get_attribute("href")))


def test_what_is_held_is_sent_and_its_report_appears_by_itself(tab: Any, running: Running) -> None:
    study = until_job(tab, running, "MRN-2", "held")
    assert "2 of the 12 slices" in tab.locator("tr", has_text="MRN-2").inner_text()
    tab.goto(study)
    assert "2 slices are missing" in tab.locator(".images").inner_text()
    for path in (running.root / "late").iterdir():
        shutil.copy(path, running.root / "inbox" / "b" / f"late-{path.name}")
    tab.locator("#live .state.delivered").wait_for()
    tab.locator("#live .answer").wait_for()
    assert "early stage" in tab.locator("#live .answer").inner_text()


def test_images_are_scrolled_and_windowed_by_keyboard(tab: Any, running: Running) -> None:
    tab.goto(until_job(tab, running, "MRN-1", "delivered"))
    picture = tab.locator("figure[data-plane=coronal] img")
    sync_api.expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 100
    before = picture.get_attribute("src")
    tab.get_by_label("coronal", exact=True).focus()
    tab.keyboard.press("ArrowRight")
    sync_api.expect(picture).not_to_have_attribute("src", before)
    tab.get_by_label("Window").select_option("bone")
    sync_api.expect(tab.locator("figure[data-plane=sagittal] img")).to_have_attribute("src", re.compile("window=bone"))


def open_viewer(tab: Any) -> Any:
    tab.get_by_role("button", name="Open the viewer").click()
    tab.get_by_role("button", name="Close the viewer").wait_for()
    return tab.locator("#volume canvas")


def shown(canvas: Any, as_wanted: Callable[[npt.NDArray[np.uint8]], object]) -> npt.NDArray[np.uint8]:
    """Wait until the canvas looks as wanted, and return its picture."""
    deadline = time.monotonic() + SECONDS
    while True:
        picture = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(np.uint8)
        if as_wanted(picture):
            return picture
        assert time.monotonic() < deadline, "the canvas did not look as wanted in time"
        canvas.page.wait_for_timeout(50)


def lit(picture: npt.NDArray[np.uint8]) -> float:
    return float((picture.max(axis=-1) > 40).mean())


def yellow(picture: npt.NDArray[np.uint8]) -> int:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return int(((red > 200) & (green > 140) & (green < 230) & (blue < 90)).sum())


@pytest.mark.skipif(not NIIVUE.is_file(), reason="the viewer is not built: make viewer")
def test_the_viewer_shows_three_planes_with_windows_and_outline(tab: Any, running: Running) -> None:
    """The page's content security policy allows the viewer: the tab's console stays empty."""
    tab.goto(until_job(tab, running, "MRN-1", "delivered"))
    canvas = open_viewer(tab)
    first = shown(canvas, lambda seen: 0.1 < lit(seen) < 0.99 and yellow(seen) > 100)
    tab.get_by_label("Window").select_option("bone")
    there = first.max(axis=-1) > 40
    bone = shown(canvas, lambda seen: seen[there].mean() < first[there].mean())
    assert yellow(bone) > 100
    tab.get_by_label("Outline").select_option("")
    shown(canvas, lambda seen: yellow(seen) == 0)
    slider = tab.get_by_label("axial", exact=True)
    before = slider.input_value()
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert slider.input_value() == str(int(before) + 1)
    box = canvas.bounding_box()
    canvas.click(position={"x": 0.25 * box["width"], "y": 0.8 * box["height"]})
    places = {name: tab.get_by_label(name, exact=True).input_value() for name in ("axial", "coronal", "sagittal")}
    assert places["axial"] == str(int(before) + 1), "a click into the axial plane does not change the slice"
    canvas.click(position={"x": 0.28 * box["width"], "y": 0.7 * box["height"]})
    assert places != {name: tab.get_by_label(name, exact=True).input_value() for name in places}
    tab.get_by_role("button", name="Close the viewer").click()
    assert tab.locator("figure[data-plane=axial] img").is_visible()
    assert tab.locator("#viewer-hint").inner_text() == ""
    shown(open_viewer(tab), lambda seen: lit(seen) > 0.1)  # the viewer can be opened again
    sync_api.expect(tab.locator("#viewer-hint")).to_contain_text("Click or drag")


def test_without_webgl_the_pictures_stay_and_it_is_said(plain: Any, running: Running) -> None:
    tab = plain.new_page()
    tab.set_default_timeout(1000 * SECONDS)
    tab.goto(running.address)
    tab.goto(until_job(tab, running, "MRN-1", "delivered"))
    expected = "needs WebGL 2" if NIIVUE.is_file() else "has no viewer"
    sync_api.expect(tab.locator("#viewer-hint")).to_contain_text(expected)
    assert not tab.get_by_role("button", name="Open the viewer").is_visible()
    picture = tab.locator("figure[data-plane=axial] img")
    sync_api.expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 100


def test_a_region_is_chosen_among_those_that_are_drawn_and_answered(tab: Any, running: Running) -> None:
    tab.goto(until_job(tab, running, "MRN-3", "refused"))
    candidates = tab.locator(".candidate")
    assert candidates.count() == 3
    assert SCRIPT in candidates.nth(2).inner_text()
    candidates.nth(1).locator("input").check()
    tab.get_by_role("button", name="Measure this region").click()
    tab.locator("#live .state.delivered").wait_for()
    assert "number 2 of its file, was chosen by a person" in tab.locator("#live .caveats").inner_text()
    assert tab.title() != "run"


def test_a_report_is_downloaded_and_made_again_byte_for_byte(tab: Any, running: Running) -> None:
    tab.goto(until_job(tab, running, "MRN-1", "delivered"))

    def report() -> bytes:
        with tab.expect_download() as download:
            tab.get_by_role("link", name="Structured report").click()
        return Path(download.value.path()).read_bytes()

    with tab.expect_download() as taken:
        tab.get_by_role("link", name="Result page (PDF)").click()
    assert taken.value.suggested_filename.endswith(".pdf")
    pdf = Path(taken.value.path()).read_bytes()
    assert pdf.startswith(b"%PDF-")
    (kept,) = (path for path in (running.root / "outbox").glob("PDF-*") if path.stem in taken.value.suggested_filename)
    assert pdf in kept.read_bytes()
    before = report()
    tab.get_by_role("button", name="Process again").click()
    tab.locator(".history", has_text="to be processed again").wait_for()
    tab.locator("#live .state.delivered").wait_for()
    assert report() == before


def test_a_forged_form_asks_for_nothing(tab: Any, running: Running) -> None:
    study = until_job(tab, running, "MRN-1", "delivered")
    tab.goto(study)
    tab.locator("form[action$=process-again] input[name=csrf]").evaluate("field => { field.value = 'forged' }")
    tab.get_by_role("button", name="Process again").click()
    tab.get_by_role("alert").wait_for()
    assert tab.locator("main h1").inner_text() == "Not allowed"
    assert not [*(running.root / "state" / "requests").iterdir()]
    tab.context.clear_cookies()
    tab.context.add_cookies([{"name": "lungstage", "value": "made-up", "url": study}])
    tab.goto(study)
    tab.get_by_role("heading", name="Log in").wait_for()


def test_nothing_of_another_study_or_of_the_disk_is_given(tab: Any, running: Running) -> None:
    ask = tab.context.request
    own, other = (until_job(tab, running, patient, "delivered") for patient in ("MRN-1", "MRN-3"))
    tab.goto(other)
    document = tab.get_by_role("link", name="Structured report").get_attribute("href").rpartition("/")[2]
    region = tab.locator("#region option").last.get_attribute("value")
    assert ask.get(f"{other}/document/{document}").status == 200
    assert ask.get(f"{other}/region.nii?region={region}").status == 200
    for path in (
        f"/document/{document}", f"/region.nii?region={region}", f"/picture/axial/1.png?region={region}",
        "/document/..%2f..%2fstate%2fledger.sqlite", "/document/SR-1.2.3.dcm", "/region.nii?region=../../x/1",
        "/picture/axial/1.png?region=1.2.3/1", "/picture/axial/99999.png", "/picture/..%2f..%2fx/1.png",
    ):  # fmt: skip
        answer = ask.get(own + path)
        assert answer.status == 404, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "Traceback" not in answer.text()
        assert "/" not in answer.text().replace("</", "<").replace("/>", ">") or "<html" in answer.text()
    tab.goto(own)
    csrf, seen = (
        tab.locator(f"form[action$=process-again] input[name={name}]").input_value() for name in ("csrf", "seen")
    )
    answer = ask.post(f"{own}/choose-region", form={"csrf": csrf, "seen": seen, "region": region})
    assert answer.status == 409
    assert not [*(running.root / "state" / "requests").iterdir()]


def test_a_ledger_that_is_none_is_said_to_be(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ledger.sqlite").write_bytes(b"no database" * 1000)
    with process("page", f"--state={tmp_path / 'state'}", "--bind=127.0.0.1:0", log=tmp_path / "log"):
        found = re.search(r"open (http\S+)", (tmp_path / "log").read_text())
        assert found
        tab = browser.new_page()
        answer = tab.goto(found[1])
        assert answer.status == 503
        assert "ledger" in tab.get_by_role("alert").inner_text()
        tab.goto(re.sub(r"/login.*", "/status", found[1]))
        assert "no heartbeat of a daemon" in tab.locator("#vitals .problem").first.inner_text()
        tab.close()


def test_logging_out_ends_it_for_the_back_button_too(browser: Any, running: Running) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.set_default_timeout(1000 * SECONDS)
    tab.goto(running.address)
    tab.locator("table").wait_for()
    tab.get_by_role("button", name="Log out").click()
    tab.get_by_role("heading", name="Log in").wait_for()
    tab.go_back()
    assert tab.get_by_role("heading", name="Log in").is_visible()
    context.close()


@pytest.mark.parametrize("width", [1300, 400])
def test_every_page_is_accessible(browser: Any, running: Running, width: int) -> None:
    axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright")
    # axe runs its own script, which the page's policy would not allow.
    context = browser.new_context(viewport={"width": width, "height": 900}, bypass_csp=True)
    tab = context.new_page()
    tab.set_default_timeout(1000 * SECONDS)
    tab.goto(address(running, "/login"))
    grave = {"login": _grave(axe, tab)}
    tab.goto(running.address)
    for path in ("/", "/study/1", "/study/2", "/study/3", "/status", "/nowhere"):
        tab.goto(address(running, path))
        grave[path] = _grave(axe, tab)
        if path == "/study/1" and NIIVUE.is_file():
            open_viewer(tab)
            grave["viewer"] = _grave(axe, tab)
        wide = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} px too wide"
    context.close()
    assert grave == {path: [] for path in grave}


def _grave(axe: Any, tab: Any) -> list[str]:
    found = axe.Axe().run(tab).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]


def test_a_study_whose_files_are_taken_away_is_still_told_of(tab: Any, running: Running) -> None:
    """No later test needs the deleted files."""
    study = until_job(tab, running, "MRN-1", "delivered")
    assert "Jürgen" in tab.content()
    shutil.rmtree(running.root / "inbox" / "a")
    tab.goto(study)
    assert "early stage" in tab.locator("#live .answer").inner_text()
    assert "no slice is available" in tab.locator(".images").inner_text()
    assert "Jürgen" not in tab.content()
    for path in ("/volume.nii", "/picture/axial/1.png"):
        assert tab.context.request.get(study + path).status == 404


def test_what_is_no_http_is_answered_with_the_policy(running: Running) -> None:
    port = int(re.search(r":(\d+)/", running.address)[1])  # type: ignore[index]
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        answer = connection.recv(65536).lower()
    assert answer.startswith(b"http/1.1 400")
    assert b"content-security-policy: default-src 'none'" in answer


def test_the_token_is_told_once(running: Running, tmp_path: Path) -> None:
    told = []
    (tmp_path / "state").mkdir()
    for options in ([], [], ["--new-token"]):
        log = tmp_path / "log"
        with process("page", f"--state={tmp_path / 'state'}", "--bind=127.0.0.1:0", *options, log=log):
            told.append("token=" in log.read_text())
    assert told == [True, False, True]


def test_the_audit_command_reads_the_access_log(running: Running) -> None:
    state = f"--state={running.root / 'state'}"
    for arguments in (["audit", "verify", state], ["audit", "dump", "--access", state]):
        done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        assert "access log of the page" in done.stdout or '"study_viewed"' in done.stdout
        assert "MRN-" not in done.stdout
