"""Our documents in a real viewer on a real archive: ``make viewers``. What is seen is asserted, and pictured.

Two patients whose pixels fill whole bytes (512²) and do not (201 × 204) are staged, put into Orthanc with their CT, and
opened in OHIF.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset

from lungstage.appliance.contour.prompts import Prompt
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.contour_bundle import load_contour_bundle
from lungstage.appliance.staging.one_shot import Options, files_in, stage_paths
from lungstage.appliance.staging.prompting import draw_contour
from tests.conftest import ROOT
from tests.long.viewers import peers, site
from tests.long.viewers.browser import Viewer, browser

STUDIES = {"512": "dicom/lung1-001-slab", "201x204": "ibsi/ct_phantom/dicom"}
_DRAWN_ON, _DIAMETER = "512", ((118.0, -200.0, -462.5), (78.0, -200.0, -462.5))  # mm, in the tumour
_FIRST_NUMBER = "Model probability of advanced stage (research)"


def documents(source: Path, out: Path) -> dict[str, Dataset]:
    """Stage a study and return what was written, by modality."""
    bundle = load_bundle(ROOT / "models" / "lung1-stage")
    outcome = stage_paths([source], bundle, out, Options())
    if outcome["reason"] is not None:
        raise SystemExit(f"{source}: {outcome['reason']['message']}")
    written = [pydicom.dcmread(path) for path in sorted(out.glob("*.dcm"))]
    return {dataset.Modality: dataset for dataset in written}


def confirmed_contour(source: Path, out: Path) -> Path:
    """Draw the contour of the first study from a diameter, and confirm it; return its SEG."""
    bundle = load_contour_bundle(ROOT / "models" / "lung-contour")
    drawn = draw_contour([source / "CT"], Prompt("diameter", _DIAMETER), bundle, out, confirmed_by="Weber^Anna")
    if drawn["reason"] is not None:
        raise SystemExit(f"{source}: {drawn['reason']['message']}")
    return Path(drawn["seg"])


def frames_are_served(segmentation: Dataset, name: str) -> Iterator[str]:
    """Ask Orthanc for the first and the last frame of a SEG, by its own way and by DICOMweb."""
    series = f"/dicom-web/studies/{segmentation.StudyInstanceUID}/series/{segmentation.SeriesInstanceUID}"
    last = int(segmentation.NumberOfFrames) - 1
    for index in (0, last):
        paths = (f"/instances/{name}/frames/{index}/raw", f"/instances/{name}/frames/{index}/preview")
        for path in (*paths, f"{series}/instances/{segmentation.SOPInstanceUID}/frames/{index + 1}"):
            code, _ = site.status(path)
            if code != 200:
                yield f"Orthanc answers {code} to {path}"


def report_is_readable(viewer: Viewer, report: Dataset, picture: Path) -> Iterator[str]:
    """Open the SR: it shows the key slice with the outline, and its first label is completely on the screen."""
    before = viewer.outline()
    viewer.open("SR", 9001)
    viewer.shows(_FIRST_NUMBER)
    viewer.rest()
    viewer.picture(picture)
    label = viewer.label(_FIRST_NUMBER)
    value = next(item for item in _items(report) if item.ValueType == "NUM" and _named(item, _FIRST_NUMBER))
    percent = float(value.MeasuredValueSequence[0].NumericValue)
    if f"{percent:.2f}" not in label.get("text", ""):
        yield f"the label says {label.get('text')!r}, and not {percent:.2f}"
    if label and not (label["left"] >= 0 and label["right"] <= viewer.width):
        yield f"the label ends at {label['right']:.0f} of {viewer.width} pixels"
    if viewer.slice_number() != key_slice_number(report):
        yield f"it opens on slice {viewer.slice_number()}, and the key slice is {key_slice_number(report)}"
    if viewer.outline() <= before:
        yield "no outline is drawn"


def segmentation_is_laid_over(viewer: Viewer, picture: Path, series: int = 9002) -> Iterator[str]:
    """Open a SEG: red pixels appear over the image."""
    before = viewer.coloured()
    viewer.open("SEG", series)
    viewer.overlay()
    viewer.rest()
    viewer.picture(picture)
    if viewer.coloured() < before + 100:
        yield f"{viewer.coloured()} coloured pixels, {before} before"


def page_opens(viewer: Viewer, page: Dataset, picture: Path) -> Iterator[str]:
    """Open the PDF: it is byte-identical, and Chromium's own reader shows it in place of the image."""
    before = viewer.paper()
    viewer.open("DOC", 9003)
    if viewer.document()[: page.EncapsulatedDocumentLength] != pdf_of(page):
        yield "what is shown is not the PDF that was written"
    viewer.rest()
    viewer.picture(picture)
    if viewer.paper() < before + 0.1:
        yield f"{viewer.paper():.0%} of the screen is white, {before:.0%} before: no page is drawn"


def pdf_of(page: Dataset) -> bytes:
    """Return the PDF in an Encapsulated PDF, without its padding."""
    return bytes(page.EncapsulatedDocument[: page.EncapsulatedDocumentLength])


def key_slice_number(report: Dataset) -> int:
    """Return the Instance Number of the slice with the outline."""
    (region,) = (item for item in _items(report) if item.ValueType == "SCOORD")
    uid = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    return _NUMBERS[str(uid)]


_NUMBERS: dict[str, int] = {}


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _items(child)


def _named(item: Dataset, meaning: str) -> bool:
    return bool(item.ConceptNameCodeSequence[0].CodeMeaning == meaning)


def _store(source: Path, written: dict[str, Dataset]) -> dict[str, str]:
    """Store a study and its documents in Orthanc; return the documents' Orthanc names by modality."""
    for path in files_in([source]):
        if path.suffix == ".dcm":
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            _NUMBERS[str(dataset.SOPInstanceUID)] = int(dataset.get("InstanceNumber") or 0)
            site.store(path)
    return {modality: site.store(Path(str(dataset.filename))) for modality, dataset in written.items()}


def main() -> int:
    """Check everything, and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    data = os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the real data")
    parser.add_argument("--pictures", type=Path, default=ROOT / "runs" / "viewers", help="where pictures go")
    options = parser.parse_args()
    if missing := peers.missing():
        raise SystemExit(f"Install first: apt-get install {' '.join(missing)}")
    ohif = peers.fetch()
    site.enter_namespace()
    options.pictures.mkdir(parents=True, exist_ok=True)
    faults = []
    with tempfile.TemporaryDirectory() as folder, site.serving(ohif, Path(folder) / "orthanc"), browser() as chromium:
        for name, source in STUDIES.items():
            for what, found in _seen(chromium, options.data / source, Path(folder) / name, options.pictures, name):
                print(f"{name}, {what}: {found or 'well'}", flush=True)
                faults += [found] if found else []
    print(f"pictures: {options.pictures}")
    return 1 if faults else 0


def _seen(chromium: Any, source: Path, out: Path, pictures: Path, name: str) -> Iterator[tuple[str, str]]:
    written = documents(source, out)
    stored = _store(source, written)
    study = str(written["SR"].StudyInstanceUID)
    yield "frames", "; ".join(frames_are_served(written["SEG"], stored["SEG"]))
    looks: dict[str, Callable[[Viewer, Path], Iterator[str]]] = {
        "SR": lambda viewer, picture: report_is_readable(viewer, written["SR"], picture),
        "SEG": segmentation_is_laid_over,
        "PDF": lambda viewer, picture: page_opens(viewer, written["DOC"], picture),
    }
    if name == _DRAWN_ON:
        contour = pydicom.dcmread(confirmed_contour(source, out / "contour"))
        site.store(Path(str(contour.filename)))
        looks["contour"] = lambda viewer, picture: segmentation_is_laid_over(viewer, picture, contour.SeriesNumber)
    for what, look in looks.items():
        viewer = Viewer(chromium, study)
        try:
            yield what, "; ".join(look(viewer, pictures / f"{name}-{what}.png"))
        except Exception as error:  # Playwright raises various errors if something does not appear
            viewer.picture(pictures / f"{name}-{what}.png")
            yield what, f"{type(error).__name__}: {str(error).splitlines()[0]}"
        viewer.close()


if __name__ == "__main__":
    sys.exit(main())
