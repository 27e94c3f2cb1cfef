"""``lungstage commission`` as a site would run it, with generated patients and the shipped bundle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.commissioning import acceptance, protocol, sheet
from lungstage.appliance.commissioning.ibsi_phantom import check_digital_phantom
from lungstage.appliance.commissioning.plan import IbsiFiles, PlanError, Thresholds
from lungstage.appliance.commissioning.protocol import Report
from lungstage.appliance.commissioning.verdict import Check, Verdict
from lungstage.appliance.daemon.demo import DemoResult
from tests.support.commands import called
from tests.support.made_up_site import make_site

COMMISSION = (sys.executable, "-m", "lungstage.appliance.cli.main", "commission")


def commission(*arguments: object, status: int) -> subprocess.CompletedProcess[str]:
    done = called("commission", *arguments)
    assert done.returncode == status, done.stderr + done.stdout
    return done


@pytest.fixture
def known_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no daemon for the phantom: the first run has already sent it through one."""
    monkeypatch.setattr(protocol, "check_phantom", lambda *_: Check("phantom", Verdict.PASS, "Known."))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("site") / "plan", patients=4)


@pytest.fixture(scope="module")
def first(site: Path) -> dict[str, Any]:
    """The report of the first run, made in a separate process. Its sheets lie beside the plan."""
    done = subprocess.run(
        [*COMMISSION, str(site), "--json"], capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 3, done.stderr + done.stdout
    return dict(json.loads(done.stdout))


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in report["checks"]}


def only_cases(site: Path, folder: Path) -> Path:
    """A plan of the reference cases only, with their recorded results."""
    for name in ("cases.csv", "expected.json"):
        shutil.copy(site / name, folder)
    text = (site / "cases.csv").read_text().replace("studies/", f"{site}/studies/")
    (folder / "cases.csv").write_text(text)
    (folder / "plan.toml").write_text(
        "".join(line for line in (site / "plan.toml").open() if not line.startswith(("pairs", "patients")))
    )
    return folder


def test_first_run(site: Path, first: dict[str, Any]) -> None:
    found = verdicts(first)
    assert list(found)[-3:] == [
        "repeatability of the answer",
        "the site's patients",
        "features beside the training cohort",
    ]
    assert {name: found[name] for name in [*list(found)[:5], "the site's patients"]} == {
        "bundle": "pass",
        "phantom": "pass",
        "IBSI digital phantom": "note",
        "reference cases": "note",
        "test–retest pairs": "warn",  # four pairs are too few
        "the site's patients": "warn",
    }
    rows = {check["name"]: check["rows"] for check in first["checks"]}
    assert len(rows["repeatability of the features"]) == len(rows["features beside the training cohort"]) == 15
    # The phantom has one shape in four sizes, so this feature does not differ between patients and its check fails.
    (round_one,) = (row for row in rows["repeatability of the features"] if row["feature"] == "shape_Sphericity")
    assert round_one["verdict"] == "fail"
    assert first["verdict"] == "fail"
    assert set(first["files"]) == {"plan", "cases", "pairs", "patients", "expected"}
    answers = {
        row["case"]: row["answer"] for row in next(c for c in first["checks"] if "reference" in c["name"])["rows"]
    }
    assert answers["knee"] == "outside_intended_use"
    assert answers["torn"] == "slices_missing"
    assert json.loads((site / "expected.json").read_text())["environment"] == first["environment"]


@pytest.mark.usefixtures("first", "known_phantom")
def test_later_runs_give_the_same_to_the_last_bit(site: Path, tmp_path: Path) -> None:
    done = commission(only_cases(site, tmp_path), status=0)
    assert "pass  reference cases: 4 of 4 cases" in done.stdout
    report = json.loads(next((tmp_path / "reports").glob("*.json")).read_text())
    assert report["verdict"] == "pass", "a check that is not in the plan does not lower the verdict"
    rows = next(c for c in report["checks"] if "reference" in c["name"])["rows"]
    assert {row["why"] for row in rows} == {"identical to the last bit"}


@pytest.mark.usefixtures("first", "known_phantom")
def test_a_broken_constancy_fails(site: Path, tmp_path: Path) -> None:
    folder = only_cases(site, tmp_path)
    expected = json.loads((folder / "expected.json").read_text())
    expected["cases"]["large"]["features"]["original_shape_MeshVolume"] *= 1 + 1e-8
    (folder / "expected.json").write_text(json.dumps(expected))
    done = commission(folder, status=3)
    assert "fail  reference cases: 3 of 4 cases" in done.stdout
    assert "\nfail: " in done.stdout
    commission(folder, "--record", "--out", tmp_path / "again", status=0)
    recorded = json.loads((folder / "expected.json").read_text())["cases"]
    assert recorded == json.loads((site / "expected.json").read_text())["cases"]


def test_no_sheet_names_a_patient_or_a_place(site: Path, first: dict[str, Any]) -> None:
    sheets = sorted((site / "reports").iterdir())
    assert [path.suffix for path in sheets] == [".html", ".json", ".md"]
    for text in (*(path.read_text() for path in sheets), (site / "expected.json").read_text()):
        assert "Phantom^Generated" not in text
        assert "LUNGSTAGE-PHANTOM" not in text
        assert str(site) not in text
        assert not re.search(r"\b1\.2\.826\.|\b2\.25\.", text), "no UID"


def test_a_damaged_bundle_ends_it(tmp_path: Path) -> None:
    bundle = shutil.copytree(Path("models/lung1-stage").resolve(), tmp_path / "bundle")
    (bundle / "MODEL_CARD.md").write_text("other")
    (tmp_path / "plan.toml").write_text('bundle = "bundle"\n')
    report = json.loads(commission(tmp_path, "--json", status=3).stdout)
    assert verdicts(report) == {"bundle": "fail"}
    assert "bundle_hash_mismatch" in report["checks"][0]["finding"]


@pytest.mark.usefixtures("known_phantom")
def test_what_is_wrong_with_plan_list_or_path_is_told_by_status(tmp_path: Path) -> None:
    bundle = Path("models/lung1-stage").resolve()
    assert "cannot be read" in commission(tmp_path, status=2).stderr
    (tmp_path / "plan.toml").write_text(f'bundle = "{bundle}"\ncases = "cases.csv"\n')
    assert "cases.csv" in commission(tmp_path, status=4).stderr
    (tmp_path / "cases.csv").write_text("case\nx\n")
    assert "[table_invalid]" in commission(tmp_path, status=3).stderr
    (tmp_path / "cases.csv").write_text("case,path\nx,nowhere\n")
    assert "nowhere" in commission(tmp_path, status=4).stderr
    assert not (tmp_path / "reports").exists()
    assert not (tmp_path / "expected.json").exists()


# --- the acceptance set -------------------------------------------------------------------------------------------


def ibsi_files(data: Path) -> dict[str, Path]:
    folder = data / "ibsi/digital_phantom/nifti"
    values = data / "ibsi/reference_values/ibsi_1_dig_phantom.csv"
    return {"image": folder / "image/phantom.nii.gz", "mask": folder / "mask/mask.nii.gz", "values": values}


def test_ibsi_digital_phantom(shared_data: Path) -> None:
    check = check_digital_phantom(IbsiFiles(**ibsi_files(shared_data)))
    assert check.verdict is Verdict.PASS
    assert check.finding.startswith("101 of 101 features")


def test_ibsi_digital_phantom_notices_what_does_not_agree(shared_data: Path, tmp_path: Path) -> None:
    files = ibsi_files(shared_data)
    text = files["values"].read_text()
    assert "\n556;4;morph_volume" in text
    (tmp_path / "values.csv").write_text(text.replace("\n556;4;morph_volume", "\n561;4;morph_volume"))
    check = check_digital_phantom(IbsiFiles(**files | {"values": tmp_path / "values.csv"}))
    assert check.verdict is Verdict.FAIL
    assert [row["feature"] for row in check.rows] == ["shape_MeshVolume"]


def test_ibsi_files_that_are_others(shared_data: Path, tmp_path: Path) -> None:
    files = ibsi_files(shared_data)
    for wrong in (tmp_path / "none", files["values"].with_name("ibsi_1_chest_config_a.csv"), files["image"]):
        with pytest.raises(PlanError):
            check_digital_phantom(IbsiFiles(**files | {"values": wrong}))
    with pytest.raises(PlanError):
        check_digital_phantom(IbsiFiles(**files | {"mask": files["values"]}))


def test_a_daemon_that_measures_otherwise_than_the_golden_case(
    shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bundle = acceptance.check_bundle(shipped_bundle)
    assert bundle is not None
    for factor, verdict in ((1.0, Verdict.PASS), (1 + 5e-9, Verdict.FAIL)):
        features = {name: value * factor for name, value in bundle.manifest.golden.features.items()}
        monkeypatch.setattr(acceptance, "run_demo", lambda *_, f=features: DemoResult({"features": f}, "title", 1.0))
        assert acceptance.check_phantom(shipped_bundle, bundle).verdict is verdict


# --- the sheet ----------------------------------------------------------------------------------------------------

ROWS = (
    {"case": "<b>|a", "ICC": 0.123456789, "n": 3, "verdict": Verdict.WARN},
    {"case": "b", "ICC": float("nan"), "n": 0, "verdict": Verdict.PASS},
)
REPORT = Report(
    "Ward & <7>", datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC), (Check("one", Verdict.WARN, "It is <so>.", ROWS),),
    {"lungstage": "0"}, Thresholds.model_validate({}), {"plan": "ab"},
)  # fmt: skip


def test_sheet_in_its_three_forms(tmp_path: Path) -> None:
    paths = sheet.write_sheets(REPORT, tmp_path)
    assert [path.name for path in paths] == [f"commissioning-20250304T050607.{kind}" for kind in ("json", "md", "html")]
    content = json.loads(paths[0].read_text())
    assert content["checks"][0]["rows"][0]["ICC"] == 0.123456789, "in full precision"
    assert content["checks"][0]["rows"][1]["ICC"] is None
    markdown, page = paths[1].read_text(), paths[2].read_text()
    assert "| <b>/a | 0.1235 | 3 | warn |" in markdown
    assert "| b | – | 0 | pass |" in markdown
    assert '<td>&lt;b&gt;|a</td><td>0.1235</td><td>3</td><td class="warn">warn</td>' in page
    assert "Ward &amp; &lt;7&gt;" in page
    assert "<script" not in page
    for text in (markdown, page):
        assert all(name in text for name in Thresholds.model_fields)
        assert all(who in text for who in ("done by", "checked by", "accepted for research use by"))
        assert "Research use only" in text
    with pytest.raises(FileExistsError):
        sheet.write_sheets(REPORT, tmp_path)
