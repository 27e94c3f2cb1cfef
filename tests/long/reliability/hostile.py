"""The result for every hostile test file, and for studies that only look like a lung CT.

``python -m tests.long.reliability.hostile`` (``make hostile``) writes its table into docs/reliability.md; a test checks
it. Each file is one study. The table shows what it is, as read by pydicom, and the result of ``lungstage stage``.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pydicom
import pynetdicom  # noqa: F401 - it adds names of further UIDs to pydicom, for this process
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.staging.one_shot import Options, stage_paths
from tests.conftest import ROOT
from tests.long.benchmarks.extraction import table
from tests.long.reliability import page
from tests.long.reliability.corpus import data_folder
from tests.support.enhanced import enhanced_rtstruct_study
from tests.support.studies import ROI_SLICES, SQUARE, Study, contour, rtstruct_study, seg_study, structure_set

_MANY = 4  # more files of a folder with the same kind and result share one line
Verdict = tuple[str, str]


# --- generated studies --------------------------------------------------------------------------------------------


def _each(study: Study, **elements: object) -> Study:
    for dataset in study.slices:
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return study


def _drawn_anew(study: Study) -> Study:
    """Draw the region on the changed slices, so that nothing else is wrong."""
    study.rois = [structure_set(study.slices, {"GTV-1": [contour(study.slices[k], SQUARE) for k in ROI_SLICES]},
                                study.slices)]  # fmt: skip
    return study


def _tilted() -> Study:
    """Slices of a gantry tilted by 14 degrees: each is shifted against the one before."""
    study = _each(rtstruct_study(), GantryDetectorTilt="14")
    for k, dataset in enumerate(study.slices):
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + 0.75 * k, z]
    return _drawn_anew(study)


def _tilted_unsaid() -> Study:
    study = _tilted()
    for dataset in study.slices:
        del dataset.GantryDetectorTilt
    return study


def _mr_values() -> Study:
    """An MR labelled completely as CT: only its values show it."""
    study = rtstruct_study()
    for dataset in study.slices:
        dataset.RescaleIntercept = 0
        pixels = dataset.pixel_array.astype("<i2")
        dataset.PixelData = (pixels - pixels.min() + 20).tobytes()
    return study


def _intercept_lost() -> Study:
    return _each(rtstruct_study(), RescaleIntercept=0)


def _scout_among_slices() -> Study:
    study = rtstruct_study()
    scout = pydicom.dcmread(io.BytesIO(_bytes(study.slices[0])))
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["scout"])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    study.slices.append(scout)
    return study


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _secondary_capture() -> Study:
    return _each(rtstruct_study(), SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.7"), ConversionType="WSD")


def _mr_class() -> Study:
    return _each(rtstruct_study(), SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.4"))


def _pet() -> Study:
    return _each(rtstruct_study(), SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.128"), Modality="PT")


def _thigh() -> Study:
    return _each(rtstruct_study(), BodyPartExamined="THIGH")


def _derived() -> Study:
    return _each(rtstruct_study(), ImageType=["DERIVED", "SECONDARY", "MPR"])


def _no_lung() -> Study:
    """A study without a body part and without lung next to the region."""
    study = _each(rtstruct_study(), BodyPartExamined="")
    for dataset in study.slices:
        pixels = dataset.pixel_array.copy()
        pixels[pixels < 700] = 1064  # 40 HU
        dataset.PixelData = pixels.astype("<i2").tobytes()
    return study


def _iodine_map() -> Study:
    return _each(rtstruct_study(), RescaleType="MGML")


OWN: dict[str, tuple[Callable[[], Study], Verdict]] = {
    "sound: contours": (rtstruct_study, ("staged", "")),
    "sound: segment": (seg_study, ("staged", "")),
    "sound: Enhanced CT": (enhanced_rtstruct_study, ("staged", "")),
    "MR Image Storage with Modality CT": (_mr_class, ("refused", "not_ct")),
    "CT Image Storage with Modality MR": (lambda: _each(rtstruct_study(), Modality="MR"), ("refused", "not_ct")),
    "MR values in a study labelled as CT": (_mr_values, ("refused", "outside_intended_use")),
    "PET": (_pet, ("refused", "not_ct")),
    "Secondary Capture with Modality CT": (_secondary_capture, ("refused", "not_ct")),
    "scout alone": (lambda: _each(rtstruct_study(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
                    ("refused", "not_ct")),
    "scout among the slices": (_scout_among_slices, ("staged", "")),
    "rescale intercept lost": (_intercept_lost, ("refused", "outside_intended_use")),
    "tilted gantry": (_tilted, ("refused", "gantry_tilt")),
    "tilted gantry, not declared": (_tilted_unsaid, ("refused", "gantry_tilt")),
    "two slice thicknesses": (lambda: _each(rtstruct_study(), SliceThickness=["3", "3"]), ("staged", "")),
    "invalid study date": (lambda: _each(seg_study(), StudyDate="20269999"), ("staged", "")),
    "thigh": (_thigh, ("refused", "outside_intended_use")),
    "derived, reformatted": (_derived, ("refused", "outside_intended_use")),
    "no lung, body part unknown": (_no_lung, ("refused", "outside_intended_use")),
    "iodine map (mg/ml)": (_iodine_map, ("refused", "rescale_varies")),
}  # fmt: skip


# --- verdicts ------------------------------------------------------------------------------------------------------


def verdict(path: Path, bundle: Bundle, out: Path) -> tuple[str, str, str]:
    """Return status, code and sentence for a path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = stage_paths([path], bundle, out, Options())
    reason = outcome["reason"] or {"code": "", "message": ""}
    return outcome["status"], reason["code"], reason["message"]


def what_it_is(path: Path) -> str:
    """SOP Class and transfer syntax, as far as pydicom can read them; no value that could identify a person."""
    has_preamble = path.open("rb").read(132)[128:] == b"DICM"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if not has_preamble:
            sop_class = UID(dataset.get("SOPClassUID") or "").name
            return f"{sop_class}, without a preamble" if sop_class else "not DICOM"
        syntax = UID(dataset.file_meta.get("TransferSyntaxUID", "") or "").name
        sop_class = UID(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "").name
    except Exception as error:
        return f"unreadable to pydicom ({type(error).__name__})" if has_preamble else "not DICOM"
    return f"{sop_class or 'no SOP Class'}, {syntax or 'no transfer syntax'}"


def own_verdicts(bundle: Bundle) -> dict[str, tuple[str, str, str]]:
    """Verdict of each generated study."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (make, _)) in enumerate(OWN.items()):
            study = make().write(Path(folder, str(number)))
            found[name] = verdict(study, bundle, Path(folder, "out"))
    return found


def hostile_verdicts(bundle: Bundle, folder: Path) -> list[tuple[str, str, str, str, str]]:
    """(file, what it is, status, code, sentence) of every file, in order."""
    rows = []
    with tempfile.TemporaryDirectory() as out:
        for path in sorted((folder / "hostile").rglob("*")):
            if path.is_file():
                name = str(path.relative_to(folder / "hostile"))
                rows.append((name, what_it_is(path), *verdict(path, bundle, Path(out))))
    return rows


def gathered(rows: list[tuple[str, str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """One line for many files of a folder that are alike; otherwise one for each."""
    groups: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for name, what, status, code, _ in rows:
        groups[os.path.dirname(name), what, status, code].append(name)
    lines = []
    for (folder, what, status, code), names in groups.items():
        shown = names if len(names) <= _MANY else [f"{folder}/… ({len(names)} files)"]
        lines += [(name, what, status, code) for name in shown]
    return sorted(lines)


def parts(bundle: Bundle, folder: Path | None) -> list[str]:
    """The section of docs/reliability.md."""
    own = [[name, status, _code(code), message] for name, (status, code, message) in own_verdicts(bundle).items()]
    told = [
        "Generated studies. Each is a chest with a contour; beside the sound ones, one property is changed in each:",
        table(["study", "status", "code", "sentence"], own),
    ]
    if folder is not None:
        rows = hostile_verdicts(bundle, folder)
        lines = [[f"`{name}`", what, status, _code(code)] for name, what, status, code in gathered(rows)]
        told += [
            f"The {len(rows)} files of the test collections of pydicom, rt-utils, dcmjs and pynetdicom, each "
            "alone. An object that is neither an image nor a region gives `no_dicom`.",
            table(["file", "what it is", "status", "code"], lines),
        ]
    return told


def _code(code: str) -> str:
    return f"`{code}`" if code else ""


def main() -> None:
    page.write("hostile", parts(load_bundle(ROOT / "models" / "lung1-stage", self_test=False), data_folder()))


if __name__ == "__main__":
    main()
