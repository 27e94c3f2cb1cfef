"""Descriptors from files to answer, report, page and browser. For known shapes the values are derived by hand."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.descriptors import definitions
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.replay.differences import of_accounts
from lungstage.appliance.report.preflight import faults_of
from lungstage.appliance.report.readback import Account, read_back
from lungstage.appliance.staging import descriptors, pipeline
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.staging.one_shot import scan
from tests.appliance.descriptors.shapes import TISSUE, ball, places, ramp
from tests.conftest import ROOT
from tests.support.pages import pdf_in, text_of
from tests.support.reports import dciodvfy_errors, pixelmed_errors, run_tool, tid1500reader
from tests.support.studies import seg_study

Mask = npt.NDArray[np.bool_]
NOW = datetime(2026, 3, 4, tzinfo=UTC)
SPACING = (2.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The shipped bundle without limits of the domain, as generated tumours lie outside it."""
    found = load_bundle(ROOT / "models" / "lung1-stage")
    use = found.manifest.intended_use
    far = {name: 1e9 for name in type(use).model_fields if "distance" in name}
    return dataclasses.replace(
        found, manifest=found.manifest.model_copy(update={"intended_use": use.model_copy(update=far)})
    )


@dataclasses.dataclass(frozen=True)
class Made:
    """An answer, the content of its report, and the text of its page."""

    outcome: dict[str, Any]
    report: Account
    dataset: Dataset
    sr: bytes
    page: str
    html: str

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = self.outcome["descriptors"]
        return found


def _stage(folder: Path, bundle: Bundle, describes: bool = True, language: Any = "en") -> Made:
    (case,) = assemble(scan([folder]).headers)
    plan = pipeline.prepare(case, bundle, settled=True)
    options = DocumentOptions(("sr", "pdf", "html"), language)
    made = pipeline.stage(plan, bundle, created=NOW, site=Site(), documents=options, describes=describes)
    by_kind = {document.kind: document.content for document in made.documents}
    report = read_back(Path("SR.dcm"), by_kind["sr"])
    html = by_kind["html"].decode()
    return Made(made.outcome, report.account, report.dataset, by_kind["sr"], text_of(pdf_in(by_kind["pdf"])), html)


def _volume(hu: npt.NDArray[Any], spacing: tuple[float, float, float]) -> hd.Volume:
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing[::-1])[:, ::-1]
    return hd.Volume(hu.astype(np.int16), affine, coordinate_system="PATIENT", frame_of_reference_uid="1.2.826.0.1.77")


@pytest.fixture(scope="module")
def of(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Makes an answer about a region with given HU."""

    def make(hu: npt.NDArray[Any], mask: Mask, spacing: tuple[float, float, float] = SPACING, **how: Any) -> Made:
        folder = tmp_path_factory.mktemp("study")
        seg_study(mask, source=_volume(hu, spacing)).write(folder)
        return _stage(folder, bundle, **how)

    return make


def _ellipsoid(spacing: tuple[float, float, float] = SPACING) -> tuple[npt.NDArray[Any], Mask]:
    """Half axes of 8, 12 and 24 mm along slices, rows and columns."""
    z, y, x = places(32, spacing)
    reach = np.sqrt((z / 8) ** 2 + (y / 12) ** 2 + (x / 24) ** 2)
    return ramp((reach - 1) * 12), reach <= 1


@pytest.fixture(scope="module")
def ellipsoid(of: Callable[..., Made]) -> Made:
    return of(*_ellipsoid())


VOLUME = 4 / 3 * np.pi * 8 * 12 * 24
BY_HAND = {
    "long_axis_mm": (48, 0.7), "short_axis_mm": (24, 0.7), "diameter_3d_mm": (48, 1.2), "volume_mm3": (VOLUME, 150),
    "effective_diameter_mm": (2 * (8 * 12 * 24) ** (1 / 3), 0.2), "radial_spread": (0.23, 0.01), "components": (1, 0),
    "cavity_share": (0, 0), "dense_share": (0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_derived_by_hand_stands_in_answer_and_report(ellipsoid: Made, name: str) -> None:
    expected, within = BY_HAND[name]
    assert ellipsoid.found[name] == pytest.approx(expected, abs=within)
    scale = 100 if name.endswith("_share") else 1
    assert ellipsoid.report.descriptors[name] == pytest.approx(scale * ellipsoid.found[name], rel=1e-12)


def test_words_stand_in_answer_report_page_and_html(ellipsoid: Made) -> None:
    assert ellipsoid.found["words"] == {
        "mean_hu": "solid", "radial_spread": "not round", "irregularity": "smooth",
        "margin_sharpness": ellipsoid.found["words"]["margin_sharpness"],
    }  # fmt: skip
    assert ellipsoid.found["t_size_class"] == "T2b"  # the long axis is 48 mm
    said = ellipsoid.report.descriptors
    assert said["mean_hu, word"] == "solid pulmonary nodule"
    assert (said["radial_spread, word"], said["irregularity, word"]) == ("not round", "smooth")
    assert said["t_size_class"] == "T2b by size alone"
    for text in (ellipsoid.page, ellipsoid.html.replace("\u00a0", " ")):
        for part in (
            f"long axis {ellipsoid.found['long_axis_mm']:.1f} mm", f"short axis {ellipsoid.found['short_axis_mm']:.1f}",
            "T, size class only T2b", "texture: solid", "roundness: not round", "outline: smooth", "cavity share 0 %",
            "exact for this outline", "agrees with readers of CT, not pathology", "computed, not validated",
            "Not used by the model",
        ):  # fmt: skip
            assert part in text


def test_one_text_of_the_report_says_each_with_what_it_is_worth(ellipsoid: Made) -> None:
    (container,) = [item for item in ellipsoid.dataset.ContentSequence if _code(item) == "DESCRIPTORS"]
    first, *told = [item.TextValue for item in container.ContentSequence]
    assert first.startswith("The descriptors are not inputs of the model and do not explain its answer")
    assert len(told) == len(definitions.DEFINITIONS)
    for one, text in zip(definitions.DEFINITIONS, told, strict=True):
        assert text.startswith(f"{one.title}: ")
        assert f"({ellipsoid.found['badges'][one.name]})." in text
        assert text.isascii()
    assert "not determined" in next(text for text in told if text.startswith("long axis of the solid part"))


def _code(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def _groups(dataset: Dataset) -> list[Dataset]:
    (container,) = [item for item in dataset.ContentSequence if _code(item) == "126010"]
    return list(container.ContentSequence)


def test_the_group_is_nothing_of_the_model_s(ellipsoid: Made) -> None:
    """The group of descriptors is of another algorithm and has no content of the model's group."""
    model, _, own = _groups(ellipsoid.dataset)
    assert own.ContentTemplateSequence[0].TemplateIdentifier == "1411"
    values = [
        {_code(item): item.get("TextValue", item.get("UID")) for item in group.ContentSequence}
        for group in (model, own)
    ]
    assert values[0]["111001"] != values[1]["111001"] == "lungstage descriptors"
    assert not {"FEATURE", "PREDICTEDSTAGE"} & {_code(item) for item in own.ContentSequence}
    methods = {
        str(child.ConceptCodeSequence[0].CodeValue)
        for item in own.ContentSequence if item.ValueType == "NUM"
        for child in item.ContentSequence if _code(child) == "370129005"
    }  # fmt: skip
    assert methods == {"EXACT", "READERS", "COMPUTED"}


def test_the_answer_does_not_depend_on_them(of: Callable[..., Made], ellipsoid: Made) -> None:
    without = of(*_ellipsoid(), describes=False)
    assert without.outcome["descriptors"] is None
    assert without.report.descriptors == {}
    assert len(_groups(without.dataset)) == 2
    assert "Descriptors" not in without.page
    for key in ("probability", "answer", "contributions", "features"):
        assert without.outcome[key] == ellipsoid.outcome[key]
    assert without.report.sop_instance_uid != ellipsoid.report.sop_instance_uid


def test_another_definition_makes_another_document(
    of: Callable[..., Made], ellipsoid: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of(*_ellipsoid()).report.sop_instance_uid == ellipsoid.report.sop_instance_uid
    first, *others = definitions.DEFINITIONS
    changed = (dataclasses.replace(first, formula="another"), *others)
    monkeypatch.setattr(descriptors, "DEFINITIONS", changed)
    assert of(*_ellipsoid()).report.sop_instance_uid != ellipsoid.report.sop_instance_uid


def test_replay_names_a_descriptor_that_is_another(ellipsoid: Made) -> None:
    then = ellipsoid.report
    other = dict(then.descriptors) | {"long_axis_mm": 1.0, "mean_hu, word": "part-solid pulmonary nodule"}
    del other["volume_mm3"]
    found = list(of_accounts(then, dataclasses.replace(then, descriptors=other)))
    assert {change.what for change in found} == {"descriptor"}
    assert [change.subject for change in found] == ["long_axis_mm", "volume_mm3", "mean_hu, word"]
    assert found[2].then == "solid pulmonary nodule"


def test_other_software_reads_it(ellipsoid: Made, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(ellipsoid.sr)
    assert faults_of(ellipsoid.dataset) == ()
    _, group = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    (axis,) = group.get_measurements(name=hd.sr.CodedConcept("103339001", "SCT", "Long axis"))
    assert axis.value == pytest.approx(ellipsoid.found["long_axis_mm"])
    dumped = run_tool("dsrdump", str(path)).stdout
    assert "lungstage descriptors" in dumped
    assert "Descriptors of the tumour" in dumped
    read = tid1500reader(path, tmp_path / "meta.json")
    assert read.returncode == 0
    groups = json.loads((tmp_path / "meta.json").read_text())["Measurements"]
    assert any("Long axis" in json.dumps(one) for one in groups)


def test_viewers_that_join_groups_by_their_tumour_find_an_outline(ellipsoid: Made) -> None:
    """OHIF joins groups by their Tracking UID, and does not open a report with joined groups without an outline."""
    inside = [item for group in _groups(ellipsoid.dataset) for item in group.ContentSequence]
    assert len({item.UID for item in inside if _code(item) == "112040"}) == 1
    assert any(item.ValueType == "SCOORD" for item in inside)


def test_dciodvfy_finds_nothing_new(of: Callable[..., Made], ellipsoid: Made, tmp_path: Path) -> None:
    paths = tmp_path / "with.dcm", tmp_path / "without.dcm"
    for path, made in zip(paths, (ellipsoid, of(*_ellipsoid(), describes=False)), strict=True):
        path.write_bytes(made.sr)
    assert dciodvfy_errors(paths[0]) <= dciodvfy_errors(paths[1])


@pytest.mark.slow
def test_pixelmed_finds_no_error_in_the_groups_on_the_volume(ellipsoid: Made, tmp_path: Path) -> None:
    """The groups of model and descriptors only, because PixelMed confuses them with the planar group."""
    report = pydicom.dcmread(io.BytesIO(ellipsoid.sr))
    (container,) = [item for item in report.ContentSequence if _code(item) == "126010"]
    container.ContentSequence = [container.ContentSequence[0], container.ContentSequence[2]]
    report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    assert pixelmed_errors(tmp_path / "sr.dcm") == []


# --- what cannot be said ------------------------------------------------------------------------------------------


def test_thick_slices_have_numbers_and_no_words(of: Callable[..., Made]) -> None:
    made = of(*_ellipsoid((4.0, 1.0, 1.0)), (4.0, 1.0, 1.0))
    assert set(made.found["words"].values()) == {None}
    why = "The slices are 4.0 mm apart; the readers had slices of at most 3 mm."
    assert why in made.found["outline_unfit"]
    assert made.found["long_axis_mm"] == pytest.approx(48, abs=1)
    assert not [name for name in made.report.descriptors if name.endswith("word")]
    assert "Not rated:" in made.page
    assert why in made.page
    assert "texture: not rated (" in made.page
    assert "so the extent across them is coarse." in made.page


def test_a_cavity_leaves_its_walls_out_and_says_so(of: Callable[..., Made]) -> None:
    z, y, x = places(28, SPACING)
    radius = np.sqrt(z**2 + y**2 + x**2)
    hu = np.maximum(ramp(radius - 20), -1000)
    hu[radius < 12] = -980
    made = of(hu, radius <= 20)
    assert made.found["cavity_share"] == pytest.approx((12 / 20) ** 3, abs=0.03)
    assert made.report.descriptors["cavity_share"] == pytest.approx(100 * made.found["cavity_share"])
    # The tissue is a shell that begins 14 mm from the middle; in its last millimetre HU fall to those of lung.
    fall = 445 * (20**2 * 0.5 - 20 / 3 + 1 / 12) / ((20**3 - 14**3) / 3)
    assert made.found["mean_hu"] == pytest.approx(TISSUE - fall, abs=15)
    assert made.found["words"]["mean_hu"] in ("solid", None), "the walls must not make a solid tumour part-solid"
    assert "The cavity and the voxels next to it are left out." in made.page


def test_it_is_said_in_the_reader_s_language(of: Callable[..., Made]) -> None:
    volume, mask = _ellipsoid((4.0, 1.0, 1.0))
    told = {language: of(volume, mask, (4.0, 1.0, 1.0), language=language).page for language in ("de", "fr")}
    assert "Die Schichten liegen 4,0 mm auseinander; die Befunder sahen höchstens 3 mm." in told["de"]
    assert "Nicht bewertet:" in told["de"]
    assert "Les coupes sont distantes de 4,0 mm ; les lecteurs en ont vu de 3 mm au plus." in told["fr"]
    assert "grand axe" in told["fr"]


@pytest.mark.parametrize(
    ("agent", "sequence", "expected"),
    [(None, False, None), ("", False, None), ("OMNIPAQUE", False, True), ("none", False, False), (None, True, True)],
)
def test_contrast_medium_is_what_the_header_says(agent: str | None, sequence: bool, expected: bool | None) -> None:
    header = Dataset()
    if agent is not None:
        header.ContrastBolusAgent = agent
    if sequence:
        header.ContrastBolusAgentSequence = [Dataset()]
    assert descriptors._contrast(header) is expected


def test_a_volume_whose_axes_follow_otherwise_is_described_alike() -> None:
    volume, mask = ball(12)
    straight = descriptors.describe_placed(volume, mask)
    turned = volume.to_patient_orientation("LPF")
    mask_turned = volume.with_array(mask.astype(np.uint8)).to_patient_orientation("LPF").array.astype(bool)
    again = descriptors.describe_placed(turned, mask_turned)
    assert turned.array.shape != volume.array.shape or mask.shape[0] == mask.shape[2]
    for name in ("long_axis_mm", "short_axis_mm", "volume_mm3", "mean_hu", "radial_spread"):
        assert again[name].value == pytest.approx(straight[name].value, rel=1e-6)


# --- real tumours --------------------------------------------------------------------------------------------------

REAL = {"ibsi": ("ibsi/ct_phantom/dicom", 125256), "lung1-001": ("dicom/lung1-001-slab", 54639)}


@pytest.mark.parametrize("patient", REAL)
def test_a_real_tumour_has_the_axes_that_its_own_mask_gives(patient: str, shared_data: Path, bundle: Bundle) -> None:
    folder, voxels = REAL[patient]
    made = _stage(shared_data / folder, bundle)
    (case,) = assemble(scan([shared_data / folder]).headers)
    ((_, slices), *_) = pipeline.prepare(case, bundle, settled=True).regions
    voxel = float(np.prod(slices.spacing))
    assert made.found["volume_mm3"] == pytest.approx(voxels * voxel)
    assert made.found["volume_mm3"] == made.outcome["roi"]["volume_mm3"]
    assert made.found["effective_diameter_mm"] == pytest.approx((6 * voxels * voxel / np.pi) ** (1 / 3))
    # The distance of the farthest voxel centres in a slice; the long axis is longer by one voxel.
    from lungstage.appliance.dicom.raster import rasterise

    mask = rasterise(slices)
    longest = max(_farthest(np.argwhere(plane) * slices.spacing[1:]) for plane in mask if plane.any())
    assert longest - 0.5 <= made.found["long_axis_mm"] <= longest + 2 * max(slices.spacing[1:])
    assert made.report.descriptors["long_axis_mm"] == pytest.approx(made.found["long_axis_mm"])
    assert f"long axis {made.found['long_axis_mm']:.1f} mm" in made.page
    assert faults_of(pydicom.dcmread(io.BytesIO(made.sr))) == ()


def _farthest(points: npt.NDArray[np.float64]) -> float:
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    return float(pdist(points[ConvexHull(points).vertices]).max()) if len(points) > 3 else 0.0
