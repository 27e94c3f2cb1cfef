"""The robustness of an answer, from files to report. The answer's probability never depends on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pypdfium2
import pytest

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS, Robustness, RobustnessOptions, Unknown
from lungstage.appliance.contract.spec import Stage
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.model.answering import AnswerRule
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.model.inference import Predictor
from lungstage.appliance.model.manifest import Decision
from lungstage.appliance.radiomics import extract
from lungstage.appliance.radiomics.grid import MeasurableRoi
from lungstage.appliance.report.caveats import recognise
from lungstage.appliance.report.readback import read_back
from lungstage.appliance.robustness.versions import Surroundings, perturb
from lungstage.appliance.staging import phantom, pipeline
from lungstage.appliance.staging.contouring import Taken, take_over
from lungstage.appliance.staging.one_shot import Options, scan, stage_paths
from tests.conftest import ROOT
from tests.support.studies import SQUARE, rtstruct_study

FEW = RobustnessOptions(perturbations=12)
REPORT = DocumentOptions(formats=("sr",))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(ROOT / "models" / "lung1-stage")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    phantom.write_study(folder)
    return folder


@pytest.fixture(scope="module")
def whole(study: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The phantom's answer, with all slices present."""
    return stage_paths([study], bundle, tmp_path_factory.mktemp("out"), Options(robustness=FEW))


@pytest.fixture
def staged(study: Path, bundle: Bundle, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(
        options: RobustnessOptions = FEW, of: Bundle = bundle, paths: Path = study, name: str = "out"
    ) -> dict[str, Any]:
        return stage_paths([paths], of, tmp_path / name, Options(robustness=options, documents=REPORT))

    return run


def decided_at(bundle: Bundle, threshold: float) -> Bundle:
    """A bundle that answers early up to a probability and nothing above it, for any patients."""
    decision = Decision(alpha=0.2, early_min_probability=1 - threshold, advanced_min_probability=1.0)
    manifest = bundle.manifest.model_copy(update={"decision": decision, "out_of_fold": None})
    predictor = Predictor(
        (ROOT / "models" / "lung1-stage" / "model.onnx").read_bytes(), manifest.features, decision, ()
    )
    return replace(bundle, manifest=manifest, predictor=predictor)


def test_nothing_else_depends_on_it(staged: Callable[..., dict[str, Any]], whole: dict[str, Any]) -> None:
    off, on = staged(NO_ROBUSTNESS), whole
    for key in set(on) - {"robustness", "warnings", "seconds", "sr", "documents"}:
        assert on[key] == off[key], key
    assert off["robustness"] is None
    reports = [read_back(Path(answer["sr"])).account for answer in (off, on)]
    assert (reports[0].slices, reports[0].features) == (reports[1].slices, reports[1].features)
    assert not any("perturb" in text for text in (*reports[0].parameters, *reports[0].warnings))
    assert reports[0].robustness == {}


def test_json_report_and_page_say_the_same(whole: dict[str, Any]) -> None:
    answer = whole
    found, account = answer["robustness"], read_back(Path(answer["sr"])).account
    low, high = found["range"]
    assert low <= answer["probability"] <= high
    assert low < high
    assert (found["perturbations"], found["asked"], found["unknown"]) == (12, 12, None)
    assert account.robustness == {
        "PROBABILITYLOW": pytest.approx(100 * low),
        "PROBABILITYHIGH": pytest.approx(100 * high),
        "AGREEMENT": pytest.approx(100 * found["agreement"]),
        "VERSIONS": 12,
    }
    known = {name: value for name, value in found["features"].items() if value is not None}
    assert known.keys() <= answer["features"].keys()
    assert account.variations == {name: pytest.approx(100 * value) for name, value in known.items()}
    assert account.options == FEW
    dataset = pydicom.dcmread(answer["sr"])
    result = next(i for i in dataset.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "RESULT")
    sentences = [item.TextValue for item in result.ContentSequence]
    assert any("With 12 small changes of contour and image, the probability lies between" in text for text in sentences)
    pdf = bytes(pydicom.dcmread(answer["documents"]["pdf"]).EncapsulatedDocument)
    pages = pypdfium2.PdfDocument(pdf)
    assert len(pages) == 1
    assert "With 12 small changes" in pages[0].get_textpage().get_text_range()


def test_units_and_codes_of_the_report(whole: dict[str, Any]) -> None:
    dataset = pydicom.dcmread(whole["sr"])
    units: dict[str, str] = {}

    def walk(item: pydicom.Dataset) -> None:
        for child in item.get("ContentSequence", ()):
            if child.ValueType == "NUM" and child.get("MeasuredValueSequence"):
                name = child.ConceptNameCodeSequence[0]
                unit = child.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
                if name.CodingSchemeDesignator == "99LUNGSTAGE":
                    assert len(name.CodeMeaning) <= 64
                    units[name.CodeValue] = unit
            walk(child)

    walk(dataset)
    wanted = {"PROBABILITYLOW": "%", "PROBABILITYHIGH": "%", "AGREEMENT": "%", "VERSIONS": "1", "VARIATION": "%"}
    assert {name: units[name] for name in wanted} == wanted
    declared = {item.CodingSchemeDesignator for item in dataset.CodingSchemeIdentificationSequence}
    assert "99LUNGSTAGE" in declared


def test_an_answer_at_the_edge_warns_or_is_withheld(
    staged: Callable[..., dict[str, Any]], whole: dict[str, Any], bundle: Bundle
) -> None:
    p = whole["probability"]
    edge, clear = decided_at(bundle, p + 1e-9), decided_at(bundle, max(p - 0.3, 0.001))
    warned = staged(of=edge, name="warned")
    assert (warned["answer"], warned["robustness"]["code"]) == ("early", "answer_not_robust")
    assert warned["robustness"]["agreement"] < 0.9
    (told,) = [text for text in warned["warnings"] if recognise(text)[0] == "not_robust"]
    assert f"of {warned['robustness']['perturbations']} versions" in told

    withheld = staged(replace(FEW, not_robust="indeterminate"), of=edge, name="withheld")
    assert (withheld["answer"], withheld["predictive_value"]) == ("indeterminate", None)
    assert withheld["robustness"] | {"withheld": False} == warned["robustness"]
    assert withheld["probability"] == warned["probability"]
    account = read_back(Path(withheld["sr"])).account
    assert account.answer == "indeterminate"
    assert account.options.not_robust == "indeterminate"
    assert not any("conformal" in notice for notice in account.notices)
    assert [code for code in (recognise(text)[0] for text in withheld["warnings"]) if code] == ["not_robust_withheld"]

    sure = staged(replace(FEW, not_robust="indeterminate"), of=clear, name="sure")
    assert (sure["answer"], sure["robustness"]["robust"], sure["robustness"]["code"]) == ("indeterminate", True, None)


def test_on_a_semi_automatic_contour_an_answer_that_is_not_robust_is_withheld_whatever_the_site_sets(
    staged: Callable[..., dict[str, Any]], whole: dict[str, Any], bundle: Bundle, study: Path, tmp_path: Path
) -> None:
    folder = with_confirmed_contour(study, tmp_path)
    answer = staged(of=decided_at(bundle, whole["probability"] + 1e-9), paths=folder, name="assisted")
    assert answer["probability"] == whole["probability"]
    assert (answer["answer"], answer["robustness"]["withheld"]) == ("indeterminate", True)
    assert "semi-automatically" in answer["warnings"][0]


def with_confirmed_contour(study: Path, tmp_path: Path) -> Path:
    """The study with a copy of its contour that a person confirmed."""
    (seg,) = [path for path in study.rglob("*") if path.is_file() and pydicom.dcmread(path).Modality == "SEG"]
    made = take_over([study], Taken(seg, confirmed_by="Weber^Anna"), tmp_path / "made")
    folder = Path(shutil.copytree(study, tmp_path / "both"))
    shutil.copy(made["seg"], folder)
    return folder


@pytest.mark.parametrize("is_off", [True, False])
def test_on_a_semi_automatic_contour_an_answer_of_unknown_robustness_is_withheld(
    staged: Callable[..., dict[str, Any]],
    whole: dict[str, Any],
    bundle: Bundle,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_off: bool,
) -> None:
    folder, clear = with_confirmed_contour(study, tmp_path), decided_at(bundle, whole["probability"] + 0.3)
    options = NO_ROBUSTNESS if is_off else FEW
    if not is_off:
        monkeypatch.setattr(pipeline, "try_out", lambda *_: Robustness(asked=12, unknown=Unknown.TOO_FEW))
    assert staged(options, of=clear, name="expert")["answer"] == "early"
    answer = staged(options, of=clear, paths=folder, name="assisted")
    assert (answer["answer"], answer["predictive_value"]) == ("indeterminate", None)
    assert (answer["robustness"]["withheld"], answer["robustness"]["robust"]) == (True, None)
    codes = [recognise(text)[0] for text in answer["warnings"]]
    assert codes[:4] == [
        "assisted", "assisted_not_validated", "robustness_off" if is_off else "robustness_too_few", "must_be_robust",
    ]  # fmt: skip
    account = read_back(Path(answer["sr"])).account
    assert (account.answer, account.options) == ("indeterminate", options)
    assert not any("conformal" in notice for notice in account.notices)


@pytest.mark.parametrize("radius", [9.0, 14.0, 20.0])
def test_on_generated_tumours_the_gate_fires_at_the_edge_and_not_elsewhere(bundle: Bundle, radius: float) -> None:
    """For any size, an answer depends on the contour if the threshold is near its probability, and not if it is far."""
    around, roi = generated(radius)
    values = extract.compute(roi, bundle.spec).values
    rows = perturb(around, roi, bundle.spec, RobustnessOptions()).values
    p, versions = (bundle.predictor.run(x).probability_advanced for x in (values[None], rows))

    def agreement(threshold: float) -> float:
        rule = AnswerRule(
            Decision(alpha=0.2, early_min_probability=1 - threshold, advanced_min_probability=1.0), 0.5, 0.01
        )
        own = rule.answer(float(p[0]))[0]
        return float(np.mean([rule.answer(v)[0] is own for v in versions.tolist()]))

    assert agreement(float(np.median(versions))) < 0.9
    assert agreement(float(versions.max()) + 0.1) == 1
    assert agreement(max(float(versions.min()) - 0.1, 1e-6)) == 1


def generated(radius: float) -> tuple[Surroundings, MeasurableRoi]:
    spacing, shape = (3.0, 0.9, 0.9), (24, 80, 80)
    random = np.random.default_rng(int(radius))
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    way = np.sqrt(
        ((z - 11.5) * spacing[0]) ** 2 + ((y - 40) * spacing[1] * 1.15) ** 2 + ((x - 40) * spacing[2]) ** 2
    ) + 1.5 * np.cos(0.35 * y) * np.cos(0.3 * x)
    hu = np.where(way <= radius + 1, 30, -800) + 25 * random.standard_normal(shape)
    image = hu.astype(np.int16)
    affine = np.diag([0.9, 0.9, 3.0, 1.0])[:, [2, 1, 0, 3]]
    volume = hd.Volume(image, affine, coordinate_system="PATIENT")
    spec = load_bundle(ROOT / "models" / "lung1-stage").spec
    return Surroundings(image, way <= radius, spacing), extract.place_on_grid(volume, way <= radius, spec)


class TestSlicesBeyond:
    """The margin is unchanged; only perturbed versions use slices beyond it."""

    def test_are_listed_apart_from_the_reference_volume(
        self, staged: Callable[..., dict[str, Any]], whole: dict[str, Any]
    ) -> None:
        answer = whole
        account = read_back(Path(answer["sr"])).account
        # The phantom's slices are 2 mm apart and contours reach 4.2 mm further. This needs two slices and one for
        # interpolation; one of the three is the margin.
        assert (len(account.before), len(account.behind)) == (2, 2)
        assert "slices_beyond=2+2" in account.parameters
        plain = read_back(Path(staged(NO_ROBUSTNESS, name="plain")["sr"])).account
        assert plain.slices == account.slices
        assert not {*account.before, *account.behind} & {*account.slices}

    def test_that_are_not_there_hold_nothing_and_are_told(
        self, staged: Callable[..., dict[str, Any]], whole: dict[str, Any], study: Path, tmp_path: Path
    ) -> None:
        account = read_back(Path(whole["sr"])).account
        beyond = {*account.before, *account.behind}
        bare = tmp_path / "bare"
        shutil.copytree(study, bare)
        here = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in bare.iterdir()}
        kept = {*account.slices, account.roi}
        for uid, path in here.items():
            if uid not in kept:
                path.unlink()
        assert beyond
        answer = staged(paths=bare, name="bare")
        assert answer["status"] == "staged"
        assert (answer["features"], answer["probability"]) == (whole["features"], whole["probability"])
        left_out = answer["robustness"]["left_out"]["slices"]
        assert left_out + answer["robustness"]["perturbations"] == 12
        assert (
            f"{left_out} of 12 perturbed versions were left out: they reach beyond the slices that were received."
            in (answer["warnings"])
        )
        assert read_back(Path(answer["sr"])).account.before == ()

    def test_that_came_later_are_left_out_of_a_plan_that_was_fixed(self, study: Path, bundle: Bundle) -> None:
        (case,) = assemble(scan([study]).headers)
        plan = pipeline.prepare(case, bundle, settled=True, beyond_mm=FEW.reach_mm)
        bare = pipeline.prepare(case, bundle, settled=True)
        assert (len(plan.beyond), bare.beyond) == (4, ())
        assert plan.fingerprint == bare.fingerprint
        assert plan.instances == bare.instances
        assert plan.with_beyond(plan.beyond).beyond == plan.beyond
        assert plan.with_beyond(()).beyond == ()
        first, second, third, fourth = plan.beyond
        assert plan.with_beyond({second, third}).beyond == (second, third)
        assert plan.with_beyond({first, fourth}).beyond == (), "slices beyond must have no gap"

    def test_that_cannot_be_read_are_as_good_as_missing(
        self, staged: Callable[..., dict[str, Any]], whole: dict[str, Any], study: Path, tmp_path: Path
    ) -> None:
        account = read_back(Path(whole["sr"])).account
        spoilt = tmp_path / "spoilt"
        shutil.copytree(study, spoilt)
        for path in spoilt.iterdir():
            dataset = pydicom.dcmread(path)
            if dataset.SOPInstanceUID in account.behind:
                dataset.HighBit = 3
                dataset.save_as(path)
        answer = staged(paths=spoilt, name="spoilt")
        assert (answer["status"], answer["features"]) == ("staged", whole["features"])
        found = read_back(Path(answer["sr"])).account
        assert (found.before, found.behind) == (account.before, ())

    def test_of_another_grid_are_left_alone(
        self, staged: Callable[..., dict[str, Any]], whole: dict[str, Any], study: Path, tmp_path: Path
    ) -> None:
        account = read_back(Path(whole["sr"])).account
        other = tmp_path / "other"
        shutil.copytree(study, other)
        for path in other.iterdir():
            dataset = pydicom.dcmread(path)
            if dataset.SOPInstanceUID == account.before[0]:
                dataset.RescaleSlope = 2
                dataset.save_as(path)
        answer = staged(paths=other, name="other")
        assert answer["status"] == "staged"
        assert read_back(Path(answer["sr"])).account.before == ()


def test_a_region_on_one_slice_or_of_few_voxels_gets_a_plain_word(bundle: Bundle, tmp_path: Path) -> None:
    wide = bundle.manifest.intended_use.model_copy(
        update={
            "domain_distance_max": 1e9,
            "neighbour_distance_max": 1e9,
            "slice_thickness_mm": (0.1, 10.0),
            "pixel_spacing_mm": (0.1, 5.0),
        }
    )
    lenient = replace(bundle, manifest=bundle.manifest.model_copy(update={"intended_use": wide}))
    small = ((12.5, 14.5), (12.5, 18.5), (16.5, 18.5), (16.5, 14.5))  # 16 pixels
    for name, polygon, on, code in (
        ("one", SQUARE, range(5, 6), "robustness_one_slice"),
        ("few", small, range(5, 7), "robustness_few_voxels"),
    ):
        rtstruct_study(lambda _, polygon=polygon: [polygon], on=on).write(tmp_path / name)
        answer = stage_paths(
            [tmp_path / name], lenient, tmp_path / f"{name}-out", Options(robustness=FEW, documents=REPORT)
        )
        assert answer["status"] == "staged", answer["reason"]
        found = answer["robustness"]
        assert (found["range"], found["agreement"], found["code"]) == (None, None, None)
        assert code in {recognise(text)[0] for text in answer["warnings"]}
        account = read_back(Path(answer["sr"])).account
        assert account.robustness == {}
        assert answer["answer"] in (*map(str, Stage),)
