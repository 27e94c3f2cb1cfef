"""ICC tables of simulated perturbations: their content, left-out patients, and their use by ``fit`` and card."""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import jpeg_ls
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from lungstage.appliance.commissioning.statistics import intraclass_correlations
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.robustness.versions import Surroundings
from lungstage.export.robustness import robustness as section
from lungstage.training.cli import app
from lungstage.training.cohorts.repeatability import rate_features
from lungstage.training.measuring import crops
from lungstage.training.measuring import robustness as rating
from lungstage.training.run import ROBUSTNESS, Run
from tests.conftest import ROOT
from tests.export.conftest import make_run

NAMES = (
    "original_shape_MeshVolume",
    "original_shape_Sphericity",
    "original_firstorder_Mean",
    "original_ngtdm_Busyness",
)
SPEC = ExtractionSpec(NAMES, {"binWidth": 25.0})
OPTIONS = RobustnessOptions(perturbations=9)


def tumour(radius: float, side: int = 44, seed: int = 0) -> Surroundings:
    z, y, x = np.ogrid[:side, :side, :side]
    way = np.sqrt(((z - side / 2) * 1.2) ** 2 + (y - side / 2) ** 2 + (x - side / 2) ** 2)
    hu = np.where(way <= radius + 1, 30.0 + radius, -800) + 20 * np.random.default_rng(seed).standard_normal([side] * 3)
    return Surroundings(hu.astype(np.int16), way <= radius, (1.0, 1.0, 1.0))


def cases(*radii: float) -> list[rating.Case]:
    return [(f"P{k}", lambda k=k, radius=radius: tumour(radius, seed=k)) for k, radius in enumerate(radii)]  # type: ignore[misc]


@pytest.fixture(scope="module")
def rated() -> rating.Rated:
    return rating.rate(cases(7, 9, 11, 13, 1.5), SPEC, OPTIONS)


def test_each_patient_has_as_many_versions_and_who_has_not_is_told(rated: rating.Rated) -> None:
    assert rated.patients == ("P0", "P1", "P2", "P3")
    assert rated.left_out == {"P4": "too_small"}
    assert {what: values.shape for what, values in rated.values.items()} == dict.fromkeys(
        ("contour", "image", "both"), (4, 6, 4)
    )
    assert not rated.grids_moved


def test_iccs_are_those_of_the_versions(rated: rating.Rated) -> None:
    iccs = rating.feature_iccs(rated)
    for what, values in rated.values.items():
        expected = [float(intraclass_correlations(values[:, :, k])[0]) for k in range(4)]
        assert iccs[what].tolist() == pytest.approx(expected)
    assert iccs["image"][0] == pytest.approx(1)  # noise does not move the surface
    assert iccs["contour"][0] < 1


def test_the_table_is_one_that_fit_takes(rated: rating.Rated, tmp_path: Path) -> None:
    content = rating.table(rated)
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert [row["feature"] for row in rows] == list(NAMES)
    assert {row["patients"] for row in rows} == {"4"}
    (tmp_path / "icc.csv").write_bytes(content)
    found = rate_features(tmp_path / "icc.csv", 0.9, NAMES)
    assert found.left_out == {row["feature"]: float(row["icc"]) for row in rows if float(row["icc"]) < 0.9}


def test_the_probability_of_a_bundle_is_rated_and_called_simulated() -> None:
    bundle = load_bundle(ROOT / "models" / "lung1-stage")
    spec = replace(bundle.spec, features=(*bundle.spec.features, "original_firstorder_Mean"))
    rated = rating.rate(cases(7, 9, 12, 14), spec, OPTIONS)
    found = rating.of_model(rated, bundle)
    assert found["simulated"] is True
    assert found["model_sha256"] == bundle.manifest.files["model.onnx"]
    for figure in found["probability"].values():
        assert -1 <= figure["low"] <= figure["high"] <= 1
    assert (found["probability"]["contour"]["aim"], found["probability"]["image"]["aim"]) == (0.88, 0.90)
    assert all(line.startswith("simulated") for line in rating.in_words(found))


class TestCard:
    found: ClassVar[dict[str, Any]] = {
        "simulated": True, "model_sha256": "abc", "patients": 9, "left_out": 0, "versions": 20, "grids_moved": False,
        "probability": {
            "contour": {"icc": 0.8, "low": 0.7, "high": 0.9, "aim": 0.88},
            "image": {"icc": 0.95, "low": 0.9, "high": 0.97, "aim": 0.9},
        },
    }  # fmt: skip

    def test_tells_aims_met_and_missed_of_this_model_alone(self) -> None:
        run = replace(make_run(), robustness=self.found)
        told = section(run, "abc")
        assert told.count("simulated") >= 2
        assert "0.800 (0.700 to 0.900) | 0.88, missed" in told
        assert "0.950 (0.900 to 0.970) | 0.90, met" in told
        assert section(run, "another model") == section(make_run(), "abc") == ""

    def test_is_read_back_with_a_run(self, tmp_path: Path) -> None:
        make_run().save(tmp_path)
        assert Run.load(tmp_path).robustness is None
        (tmp_path / ROBUSTNESS).write_text(json.dumps(self.found))
        assert Run.load(tmp_path).robustness == self.found


def write_crops(folder: Path) -> None:
    """Write three crops in the format of the challenge; one is cut."""
    folder.mkdir()
    lines = ["crop,patient_id,voxels,touches_edge"]
    with zipfile.ZipFile(folder / "crops.zip", "w") as archive:
        for number, cut in (("1", 0), ("2", 1), ("3", 0)):
            made = tumour(9 + int(number), 92)
            scan, mask = (one.transpose(2, 1, 0) for one in (made.image, made.mask))
            coded = jpeg_ls.encode_array((scan.astype(np.int32) + 2048).astype(np.uint16).reshape(92 * 92, 92))
            archive.writestr(f"{number}.jls", bytes(coded))
            archive.writestr(f"{number}.mask", zlib.compress(np.packbits(mask).tobytes()))
            lines.append(f"{number},L-{number},{int(mask.sum())},{cut}")
    (folder / "patients.csv").write_text("\n".join(lines) + "\n")


def test_crops_are_read_in_the_appliances_order(tmp_path: Path) -> None:
    write_crops(tmp_path / "crops")
    listed = crops.read_crops(tmp_path / "crops")
    assert [patient for patient, _ in listed] == ["L-1", "L-3"]
    found, made = listed[0][1](), tumour(10, 92)
    assert np.array_equal(found.image, made.image)
    assert np.array_equal(found.mask, made.mask)
    with pytest.raises(Refused, match="no folder of crops"):
        crops.read_crops(tmp_path)


def test_as_a_command_on_nifti_pairs_with_a_bundle_and_its_run(tmp_path: Path) -> None:
    lines = ["ID,Image,Mask"]
    for k, radius in enumerate((8, 10, 12)):
        made = tumour(radius, seed=k)
        for kind, array in (("image", made.image), ("mask", made.mask.astype(np.uint8))):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{k}-{kind}.nii.gz"))
        lines.append(f"P{k},{k}-image.nii.gz,{k}-mask.nii.gz")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    make_run().save(tmp_path / "run")
    done = CliRunner().invoke(
        app,
        [
            "robustness", str(tmp_path / "list.csv"), "-o", str(tmp_path / "icc.csv"), "--perturbations", "6",
            "--bundle", "lung1-stage", "--run", str(tmp_path / "run"),
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "simulated, contour: ICC(2,1) of the probability" in done.stdout
    rows = list(csv.DictReader((tmp_path / "icc.csv").open()))
    assert [row["feature"] for row in rows] == list(ALL_FEATURES)
    assert json.loads((tmp_path / "run" / ROBUSTNESS).read_text())["patients"] == 3


def test_a_list_of_dicom_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("patient_id,path,roi,stage\nA,study,GTV-1,early\n")
    with pytest.raises(Refused, match="reads NIfTI pairs only"):
        rating.read_cases(tmp_path / "list.csv")
