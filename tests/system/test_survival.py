"""With the shipped survival bundle, no text that a person reads mentions the stage.

Both shipped bundles also run on one inbox: two daemons, each with its own state folder and outbox.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pydicom
import pytest
from pydicom.uid import generate_uid
from typer.testing import CliRunner, Result

from lungstage.appliance.cli.main import app
from lungstage.appliance.cli.one_shot import in_words
from lungstage.appliance.contract.documents import LANGUAGES, Language
from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.staging import phantom
from lungstage.training.cohorts.cohort import read_cohort
from lungstage.training.cohorts.endpoint import STAGE, Target
from tests.conftest import ROOT
from tests.support.pages import pdf_in, text_of
from tests.support.serving import process
from tests.system.test_run import Appliance, running

_OWN_VARIABLES = [name for name in os.environ if name.startswith("LUNGSTAGE_")]
STAGE_BUNDLE, SURVIVAL_BUNDLE = ROOT / "models" / "lung1-stage", ROOT / "models" / "lung1-survival"
FOLLOWED = Target(target="survival_days", event="death_observed", horizon_days=730)

# In the page's languages; a command, a status word and the product's name are allowed.
STAGING = re.compile(
    r"\bstag(e|es|ed|ing)\b|\b\w*stadi(um|en|ums)\b|\bstades?\b|\bstadifi\w+|\bT?NM?[- ]?stag|"
    r"\b(early|advanced|früh\w*|fortgeschritten\w*|précoces?|avancée?s?)\b",
    re.IGNORECASE,
)
ALLOWED = re.compile(
    r"`?lungstage stage\b|\bstatus\W+staged\b|\"staged\"|\"(stage|probability_advanced)\": null|lung1-stage\b|"
    r"\"(stages_absent|prevalence_advanced|(early|advanced)_(min_probability|coverage)|probability_advanced)\"",
)


def spoken_of(text: str) -> list[str]:
    """Return the places where a text mentions the stage, with the text around them."""
    text = ALLOWED.sub(" ", text)
    return [text[max(0, found.start() - 60) : found.end() + 60] for found in STAGING.finditer(text)]


def texts_of(dataset: pydicom.Dataset) -> str:
    """Return every text value of a dataset, including code meanings."""

    def every(item: pydicom.Dataset) -> Iterable[str]:
        for element in item:
            if element.VR == "SQ":
                for child in element.value:
                    yield from every(child)
            elif element.VR not in ("OB", "OW", "UI", "OF", "OD", "UN"):
                yield str(element.value)

    return "\n".join(every(dataset))


def test_what_is_looked_for_is_found() -> None:
    for told in (
        "Predicted: advanced",
        "the stage",
        "Not staged",
        "frühes Stadium",
        "un stade avancé",
        "TNM stage III",
    ):
        assert spoken_of(f"{told} here"), told
    for said in ("lungstage 0.2.0", "`lungstage stage STUDY`", '"stage": null', "death within 2 years"):
        assert not spoken_of(said), said


def lungstage(*arguments: object) -> Result:
    """Run a command without starting a process."""
    return CliRunner().invoke(app, [*map(str, arguments)], env=dict.fromkeys(_OWN_VARIABLES))


@dataclass
class House:
    """Two daemons on one inbox, and the log of the survival daemon after its end."""

    stage: Appliance
    survival: Appliance
    log: str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    root, other = tmp_path_factory.mktemp("stage"), tmp_path_factory.mktemp("survival")
    (root / "inbox").mkdir()
    with (
        running(root, STAGE_BUNDLE) as stage,
        running(other, SURVIVAL_BUNDLE, "--inbox", root / "inbox") as survival,
    ):
        phantom.write_study(stage.inbox / "study")
        _unfit(stage.inbox / "unfit")
        for one in (stage, survival):
            one.until(lambda one=one: {job["state"] for job in one.jobs()} == {"delivered", "refused"})
        stage.stop()
        log = survival.stop()
    return House(stage, survival, log)


def _unfit(folder: Path) -> None:
    """Write a study that every model refuses, because of its body part."""
    for path in phantom.write_study(folder):
        dataset = pydicom.dcmread(path)
        for element in dataset.iterall():
            if element.VR == "UI" and not str(element.value).startswith("1.2.840.10008."):
                element.value = generate_uid(entropy_srcs=[str(element.value)])
        if dataset.Modality == "CT":
            dataset.BodyPartExamined = "HEAD"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path)


def test_two_daemons_answer_the_same_study_each_in_its_own_words(house: House) -> None:
    for one in (house.stage, house.survival):
        assert len(one.reports()) == 1
        assert sorted(job["state"] for job in one.jobs()) == ["delivered", "refused"]
        (refused,) = (job for job in one.jobs() if job["state"] == "refused")
        assert refused["reason"]["code"] == "outside_intended_use"
    staged, survives = (
        next(job["outcome"] for job in one.jobs() if job["state"] == "delivered")
        for one in (house.stage, house.survival)
    )
    assert staged["endpoint"] is None
    assert staged["stage"] in ("early", "advanced", "indeterminate")
    assert (survives["stage"], survives["probability_advanced"]) == (None, None)
    assert survives["endpoint"]["name"] == "survival at 2 years"
    first, second = (one.reports()[0].name for one in (house.stage, house.survival))
    assert first != second
    uids = {path.name for one in (house.stage, house.survival) for path in (one.root / "outbox").glob("*.dcm")}
    assert len(uids) == sum(len(list((one.root / "outbox").glob("*.dcm"))) for one in (house.stage, house.survival))


def test_no_document_of_the_daemon_speaks_of_the_stage(house: House) -> None:
    documents = sorted((house.survival.root / "outbox").glob("*.dcm"))
    assert {path.name.partition("-")[0] for path in documents} >= {"SR", "PDF"}
    for path in documents:
        dataset = pydicom.dcmread(path)
        assert spoken_of(texts_of(dataset)) == [], path.name
        if path.name.startswith("PDF"):
            told = text_of(pdf_in(path.read_bytes()))
            assert "death within 2 years" in told
            assert spoken_of(told) == []
    report = texts_of(pydicom.dcmread(house.survival.reports()[0]))
    assert "Predicted survival at 2 years (radiomics model, research)" in report
    assert "Model probability of death within 2 years (research)" in report
    assert "SURVIVAL-2Y" in report
    assert "It is not a prognosis." in report


def test_neither_log_nor_command_speaks_of_it(house: House) -> None:
    assert spoken_of(house.log.replace("staged", "")) == [], "only the status word staged is allowed"
    state = house.survival.root / "state"
    for command in (("jobs",), ("show", house.survival.jobs()[0]["id"]), ("audit", "verify")):
        said = lungstage(*command, "--state", state)
        assert spoken_of(said.stdout.replace("staged", "") + said.stderr) == [], command
    (answered,) = [job for job in house.survival.jobs() if job["state"] == "delivered"]
    assert "death within" in lungstage("show", answered["id"], "--state", state).stdout


def test_no_page_of_the_browser_speaks_of_it(house: House, tmp_path: Path) -> None:
    root = house.survival.root
    folders = [f"--inbox={house.stage.inbox}", f"--outbox={root / 'outbox'}", f"--state={root / 'state'}"]
    words = {"en": "death within 2 years", "de": "Tod innerhalb von 2 Jahren", "fr": "décès dans les 2 ans"}
    with process("page", *folders, "--bind=127.0.0.1:0", log=tmp_path / "page.log"):
        found = re.search(r"open (http\S+)", (tmp_path / "page.log").read_text())
        assert found
        base = found[1].partition("/login")[0]
        with httpx.Client(follow_redirects=True, timeout=60) as browser:
            assert browser.get(found[1]).status_code == 200
            for language, word in words.items():
                browser.headers["Accept-Language"] = language
                worklist = browser.get(f"{base}/").text
                studies = sorted(set(re.findall(r'href="(/stud[^"]*)"', worklist)))
                assert len(studies) == 2
                pages = [_shown(page) for page in (worklist, *(browser.get(f"{base}{path}").text for path in studies))]
                assert any(word in page for page in pages), language
                for page in pages:
                    assert spoken_of(page) == [], language


def _shown(page: str) -> str:
    """Return the text of a page that a browser shows."""
    return html.unescape(re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", page))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phantom.write_study(folder := tmp_path_factory.mktemp("study"))
    return folder


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_command_gives_every_document_in_the_words_of_survival(
    language: Language, study: Path, tmp_path: Path
) -> None:
    asked = ("stage", study, "--bundle", "lung1-survival", "--out", tmp_path / "out", "--language", language)
    done = lungstage(*asked, "--format", "sr,pdf,sc,html", "--perturbations", 5, "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    horizon = Horizon(2, "year").endpoint
    assert (answer["stage"], answer["probability_advanced"]) == (None, None)
    assert answer["endpoint"]["name"] == horizon.name
    assert answer["answer"] in (horizon.negative, horizon.positive, "indeterminate")
    assert answer["probability"] == answer["endpoint"]["probability"]
    assert spoken_of(done.stdout.replace(str(tmp_path), "")) == []
    assert spoken_of(_shown(Path(answer["documents"]["html"]).read_text(encoding="utf-8"))) == []
    assert spoken_of(text_of(pdf_in(Path(answer["documents"]["pdf"]).read_bytes()))) == []
    said = in_words(answer)
    assert "probability of death within 2 years" in said
    assert spoken_of(said.replace(str(tmp_path), "")) == []


def test_a_refusal_is_no_answer_and_speaks_of_no_stage(tmp_path: Path) -> None:
    _unfit(tmp_path / "study")
    asked = ("stage", tmp_path / "study", "--bundle", "lung1-survival", "--out", tmp_path / "out", "--json")
    done = lungstage(*asked, "--refusal-page", "--format", "pdf")
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["status"] == "refused"
    assert spoken_of(answer["reason"]["message"]) == []
    told = text_of(pdf_in(Path(answer["documents"]["pdf"]).read_bytes()))
    assert "No answer" in told
    assert spoken_of(told) == []


def test_its_card_and_its_manifest_speak_of_none() -> None:
    card = (SURVIVAL_BUNDLE / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert spoken_of(card) == []
    for told in ("Kaplan-Meier", "C-index", "log-rank", "lost to follow-up", "volume alone", "Hosny"):
        assert told in card, told
    assert spoken_of((SURVIVAL_BUNDLE / "manifest.json").read_text(encoding="utf-8")) == []
    said = lungstage("verify", "lung1-survival").stdout
    assert spoken_of(said) == []
    assert "lung1-survival" in said


@pytest.mark.parametrize(("folder", "target"), [(STAGE_BUNDLE, STAGE), (SURVIVAL_BUNDLE, FOLLOWED)])
def test_a_shipped_bundle_is_of_the_table_that_it_names(folder: Path, target: Target, shared_data: Path) -> None:
    cohort = read_cohort(shared_data / "lung1" / "features.csv", target=target)
    manifest = load_bundle(folder).manifest
    assert manifest.endpoint.endpoint == cohort.endpoint
    assert manifest.provenance.table_sha256 == cohort.sha256
    assert manifest.provenance.rows == len(cohort.labels)
    assert manifest.provenance.prevalence_advanced == cohort.prevalence
    assert manifest.out_of_fold is not None
    assert manifest.out_of_fold.positives == cohort.labels.sum()
