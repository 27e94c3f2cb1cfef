"""The report says what the records say, loads nothing, and contains no unescaped text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from typer.testing import CliRunner

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import ALL_FEATURES, Endpoint
from lungstage.appliance.report.vocabulary import CONCEPTS
from lungstage.training import cli
from lungstage.training.reporting import checklists, report
from lungstage.training.reporting.facts import ALWAYS, known
from lungstage.training.reporting.figures.canvas import METRIC_LABELS, estimate, wrapped
from lungstage.training.run import differences
from tests.training.records import Record, evaluation_record, followed, run_record, write_run

FEW = ALL_FEATURES[:8]
FEW_METHODS = ("gl_rfe_dnn", "anova_dnn", "volume")
ABLATION = {"with": "gl_rfe_dnn_covariates", "without": "gl_rfe_dnn", "alone": "covariates_lr"}
FIGURES = (
    "correlation-all", "correlation-selected", "distributions", "elimination", "number-of-features", "stability",
    "frequencies", "forest", "roc", "calibration", "decision-curve", "conformal", "ablation-figure", "leakage-figure",
)  # fmt: skip
SECTIONS = (
    "summary", "cohort", "features", "selection", "performance", "verdicts", "covariates", "leakage", "settings",
    "tripod-ai", "metrics-checklist",
)  # fmt: skip
EMPTY_ELEMENTS = {"meta", "br", "image", "path", "use", "rect"}
HOSTILE = (
    "<script>alert(1)</script>&\"'`x` $\\frac{1}{0}$ {{7*7}} {% raw %} </svg></style>"
    "<img src=http://evil.example/x onerror=alert(1)> \u202e\x00\ud800"
)


class Page(HTMLParser):
    """What a browser reads from a page: elements with attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text_of: dict[str, str] = {}  # all text inside an element, by its id
        self.styles: list[str] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in EMPTY_ELEMENTS:
            self._open.append((tag, attributes.get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "style":
            self.styles.append(data)
        for _, identifier in self._open:
            if identifier:
                self.text_of[identifier] = self.text_of.get(identifier, "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def outside_references(page: Page) -> list[str]:
    """Everything that makes a browser load, run or send something."""
    found = [tag for tag, _ in page.elements if tag in {"script", "link", "iframe", "object", "embed", "form", "base"}]
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name.startswith("on"):
                found.append(f"{tag} {name}")
            if name.split(":")[-1] in {"src", "href", "srcset", "poster", "data", "action", "background"}:
                inside = value.startswith("#") or (tag == "image" and value.startswith("data:image/png;base64,"))
                found += [] if inside else [f"{tag} {name}={value}"]
            found += [f"{tag} {name}={value}" for target in re.findall(r"url\((.)", value) if target != "#"]
            found += [value] if name == "http-equiv" and value.lower() == "refresh" else []
    return found + [style for style in page.styles if "url(" in style or "@import" in style]


@pytest.fixture(scope="module")
def run() -> Record:
    return run_record()


@pytest.fixture(scope="module")
def evaluation() -> Record:
    return evaluation_record()


@pytest.fixture(scope="module")
def html(run: Record, evaluation: Record) -> str:
    return report.render(run, evaluation)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_section_and_figure_is_there_and_reached_from_the_contents(page: Page) -> None:
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {*SECTIONS, *FIGURES} <= set(identifiers)
    targets = [attributes["href"][1:] for attributes in page.all("a")]
    assert set(targets) == {*SECTIONS, *FIGURES}
    used = {attributes["href"][1:] for tag, attributes in page.elements if tag == "use"}
    used |= set(re.findall(r"url\(#([^)]+)\)", " ".join(" ".join(a.values()) for _, a in page.elements)))
    assert used <= set(identifiers)  # clip paths and markers belong to the same figure


def test_every_figure_says_what_is_drawn_and_what_it_finds(page: Page) -> None:
    drawings = page.all("svg")
    assert len(drawings) == len(FIGURES)
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert len(drawing["aria-label"]) > 20
        assert re.search(r"\d", page.text_of[drawing["aria-describedby"]])
    assert len(page.all("figcaption")) == len(FIGURES)


def test_no_label_of_a_figure_is_cut_off(html: str) -> None:
    seen = 0
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        width = float(re.findall(r'viewBox="0 0 ([\d.]+)', drawing)[0])
        for style, x, turned, text in re.findall(
            r'<text style="([^"]*)" x="([^"]*)" y="[^"]*" transform="rotate\((-?[\d.]+) [^"]*">(.*?)</text>', drawing
        ):
            if float(turned) == 0:
                size = float(re.findall(r"([\d.]+)px", style)[0])
                font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if "700" in style else "normal")
                wide = text_to_path.get_text_width_height_descent(unescape(text), font, ismath=False)[0]
                anchor = re.findall(r"text-anchor: (\w+)", style)
                left = float(x) - wide * {"middle": 0.5, "end": 1.0}.get(anchor[0] if anchor else "start", 0.0)
                assert left >= -0.5, text
                assert left + wide <= width + 0.5, text
                seen += 1
    assert seen > 500


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert outside_references(page) == []
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


@pytest.mark.parametrize(
    "planted",
    [
        '<img src="http://example.org/x.png">', '<link rel="stylesheet" href="x.css">', "<script>1</script>",
        '<a href="https://example.org">x</a>', '<p style="background: url(x.png)">', "<style>@import 'x'</style>",
        '<use xlink:href="other.svg#x"/>', '<p onclick="x()">',
    ],
)  # fmt: skip
def test_the_search_for_outside_references_finds_them(planted: str) -> None:
    assert outside_references(Page(f"<body>{planted}</body>"))


def test_the_metrics_shown_are_those_of_the_record(html: str, evaluation: Record) -> None:
    shown = 0
    for table in re.findall(r'<table id="metrics-\d">.*?</table>', html, flags=re.DOTALL):
        head, *rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)
        labels = re.findall(r'class="number">(.*?)</th>', head)
        assert len(rows) == len(evaluation["methods"])
        for row in rows:
            (label,) = re.findall(r'<th scope="row">(.*?)</th>', row)
            (method,) = (one for one in evaluation["methods"].values() if one["label"] == label)
            for name, cell in zip(labels, re.findall(r"<td.*?</td>", row, flags=re.DOTALL), strict=True):
                keys = [key for key, known_as in METRIC_LABELS.items() if known_as == name]
                entry = method["metrics"][keys[0]] if keys else method["stability"]
                figures = re.findall(r'<data value="(.*?)">(.*?)</data>', cell)
                expected = [entry[key] for key in ("value", "low", "high")] if entry else []
                assert [float(exact) for exact, _ in figures] == expected
                assert [text for _, text in figures] == [f"{value:.3f}" for value in expected]
                shown += len(figures)
    assert shown > 24 * len(METRIC_LABELS) * 3


def test_captions_and_summary_state_the_records_figures(page: Page, run: Record, evaluation: Record) -> None:
    own = evaluation["methods"]["gl_rfe_dnn"]
    assert estimate(own["metrics"]["auc"]) in page.text_of["forest-caption"]
    assert estimate(own["metrics"]["calibration_slope"], 2) in page.text_of["calibration-caption"]
    assert f"{100 * own['conformal']['indeterminate']:.1f} %" in page.text_of["conformal-caption"]
    matrix = np.abs(np.array(run["correlation"]["spearman"]))
    strong = int((matrix[np.triu_indices(len(matrix), 1)] >= 0.9).sum())
    assert f"|ρ| is 0.9 or more in {strong} pairs" in page.text_of["correlation-all-caption"]
    above = sum(one["difference"]["auc"]["low"] > 0 for one in evaluation["methods"].values() if one["difference"])
    assert f"above 0 against {above} of {len(evaluation['methods']) - 1} methods" in page.text_of["forest-caption"]
    last = next(passed["removed"][-1] for passed in reversed(run["selection"]["rounds"]) if passed["removed"])
    assert last.removeprefix("original_").replace("_", " ", 1) in page.text_of["elimination-caption"]


def test_the_rows_left_out_and_every_warning_are_told(html: str, run: Record, evaluation: Record) -> None:
    for entry in run["cut_rows"].values():
        cell = f'<td class="number">{entry["rows"]}</td><td class="number"><data value="{entry["auc"]["value"]}">'
        assert cell in html
    for warning in (*run["warnings"], *evaluation["warnings"]):
        assert f"<li>{warning}</li>" in html


def test_every_selected_feature_stands_with_its_codes(html: str, run: Record) -> None:
    for name in run["selection"]["features"]:
        (row,) = re.findall(rf"<tr><td>\d+</td><th scope=\"row\"><code>{name}</code>.*?</tr>", html, flags=re.DOTALL)
        assert f"<td>{CONCEPTS[name].ibsi or 'none'}</td>" in row
        assert f"{100 * run['stability_selection']['frequency'].get(name, 0):.0f} %" in row


def test_it_says_what_it_is_and_that_the_claim_is_the_authors(html: str) -> None:
    words = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "Research use only. Not a medical device" in words
    assert words.count("90.22 %") == 1
    assert "The method's authors claim an accuracy of 90.22 % on a cohort that is not public" in words
    assert "It was not reproduced here" in words
    assert "WRONG ON PURPOSE" in words
    assert evaluation_record(only=FEW_METHODS)["interval"] in words


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    endpoint = Endpoint(f"stage{HOSTILE}", f"early{HOSTILE}", f"advanced{HOSTILE}")
    features = (*FEW[:4], f"original_glcm_{HOSTILE}", "original_glcm_\N{CJK UNIFIED IDEOGRAPH-4E2D}")
    run, evaluation = run_record(features, endpoint, k=5), evaluation_record(features, endpoint, FEW_METHODS)
    run["cohort"] |= {"name": HOSTILE, "source": HOSTILE, "notes": [HOSTILE], "licence": HOSTILE}
    run["extraction"] = run["versions"] = {HOSTILE: HOSTILE}
    for record in (run, evaluation):
        record["table"] |= {"name": HOSTILE, "excluded": {HOSTILE: 35}}
    evaluation |= {"cohort": HOSTILE, "interval": HOSTILE, "warnings": [HOSTILE]}
    evaluation["settings"][HOSTILE] = HOSTILE
    evaluation["leakage"]["warning"] = HOSTILE
    for method in evaluation["methods"].values():
        method["label"] += HOSTILE
    for one in (*evaluation["leakage"]["variants"], *evaluation["verdicts"]):
        one |= {"label": HOSTILE, "what_is_wrong": HOSTILE, "sentence": HOSTILE}
    text = report.write(write_run(tmp_path / "RUN", run, evaluation)).read_text(encoding="utf-8")
    seen = Page(text)
    assert outside_references(seen) == []
    assert not {"script", "img"} & {tag for tag, _ in seen.elements}
    assert len(seen.all("svg")) == len(FIGURES) - 1  # no covariates
    assert "{{7*7}}" in text
    assert "49" not in seen.text_of["contents"]
    assert not re.search("[\x00\ud800\u202e]", text)
    title = text[text.index("<h1>") : text.index("</h1>")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in title


def test_the_same_run_gives_the_same_bytes_whatever_the_machine(tmp_path: Path) -> None:
    run, evaluation = run_record(FEW, k=5), evaluation_record(FEW, only=(*FEW_METHODS, *ABLATION.values()))
    evaluation["covariate_ablation"] = ABLATION
    html = report.render(run, evaluation)
    folder = write_run(tmp_path / "RUN", run, evaluation)
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: black\n")
    code = (
        "import sys; from pathlib import Path; from lungstage.training.reporting import report;"
        " report.write(Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path), "TZ": "Asia/Tokyo", "LC_ALL": "C"},
    )
    assert {f'id="{figure}"' for figure in FIGURES} <= set(re.findall(r'id="[\w-]+"', html))
    assert (folder / "report.html").read_bytes() == html.encode()  # the order of keys does not matter either


def test_a_run_without_an_evaluation_says_which_command_makes_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "RUN", run_record(FEW, k=5), None)
    done = CliRunner().invoke(cli.app, ["report", str(folder)])
    assert done.exit_code == 0, done.output
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<code>lungstage-train evaluate TABLE -o RUN</code>" in text
    assert {f"{key}-caption" for key in FIGURES[:5]} == {a["id"] for a in Page(text).all("figcaption")}


def test_an_evaluation_without_a_model_says_which_command_makes_it() -> None:
    text = report.render(None, evaluation_record(FEW, only=FEW_METHODS))
    assert "<code>lungstage-train fit TABLE -o RUN</code>" in text
    assert 'id="forest-caption"' in text
    assert 'id="elimination-caption"' not in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "neither run.json nor evaluation.json"),
        ("{", "evaluation.json is not JSON"),
        ("[1]", "schema version None"),
        (json.dumps({"schema_version": 1}), "lungstage-train evaluate` writes a new one"),
        (
            json.dumps({"schema_version": 2, "settings": {}}),
            "is incomplete. These keys are missing: procedure_sha256, seed, table",
        ),
    ],
)
def test_what_is_no_run_is_refused_and_an_earlier_page_stays(tmp_path: Path, content: str | None, says: str) -> None:
    (tmp_path / "report.html").write_text("earlier")
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(Refused, match=re.escape(says)):
        report.write(tmp_path)
    assert (tmp_path / "report.html").read_text() == "earlier"
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"procedure_sha256": "00"}, "of different settings"),
        ({"endpoint": {"name": "x", "negative": "early", "positive": "advanced"}}, "different endpoints"),
        ({"table": {"sha256": "00", "name": "x", "rows": 1, "used": 1, "excluded": {}, "positives": 1}}, "tables"),
        ({"covariates": [{"name": "age", "levels": []}]}, "different covariates"),
        ({"repeatability": {"minimum": 0.75}}, "different repeatability filters"),
    ],
)
def test_records_that_do_not_belong_together_are_told_apart(change: dict[str, Any], says: str) -> None:
    run, evaluation = run_record(FEW, k=5), evaluation_record(FEW, only=FEW_METHODS)
    assert differences(run, evaluation) == []
    assert any(says in sentence for sentence in differences(run | change, evaluation))


def test_the_checklists_are_whole() -> None:
    numbers = [item.number for item in checklists.TRIPOD_AI]
    assert len(numbers) == len(set(numbers)) == 52
    assert sorted({int(re.sub(r"\D", "", number)) for number in numbers}) == list(range(1, 28))
    assert [item.number for item in checklists.METRICS] == [str(i) for i in range(1, 31)]
    assert len({item.section for item in checklists.METRICS}) == 9
    assert sum(item.weight or 0.0 for item in checklists.METRICS) == pytest.approx(1.0, abs=0.005)


def test_checklists_are_answered_from_the_run_and_left_open_where_it_does_not_know(
    run: Record, evaluation: Record
) -> None:
    items = (*checklists.TRIPOD_AI, *checklists.METRICS)
    facts = known(run, evaluation)
    assert {topic for item in items for topic in item.topics} == set(facts)
    by_number = {one.item.number: one for one in checklists.answer(checklists.TRIPOD_AI, facts)}
    assert "195 rows in features.csv; left out: 35 (roi_touches_crop_edge); used: 160" in by_number["20a"].text
    assert by_number["20a"].standing is checklists.Standing.ANSWERED
    for number in ("1", "17", "18a", "18b", "18d", "19"):  # only the authors can know
        assert by_number[number].text == "not contained in the run; the authors must fill it in"
    for one in checklists.answer(items, {}):
        assert one.standing is checklists.Standing.OPEN
    for one in checklists.answer(items, known(run, None)):  # what only an evaluation can answer is open
        if one.item.topics and not set(one.item.topics) & set(known(run, None)):
            assert one.standing is checklists.Standing.OPEN
    assert set(known(None, None)) == set(ALWAYS)


def test_labels_break_between_words_and_inside_joined_names() -> None:
    name = "glszm SmallAreaHighGrayLevelEmphasis"
    lines = wrapped(name, 18).splitlines()
    assert max(map(len, lines)) <= 20
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert wrapped("volume alone", 30) == "volume alone"


def test_survival_has_its_section_its_claim_and_no_word_of_the_stage() -> None:
    endpoint = Horizon(2, "year").endpoint
    evaluation = followed(evaluation_record(FEW, endpoint, only=FEW_METHODS))
    page = Page(html := report.render(None, evaluation))
    record = evaluation["survival"]
    told = page.text_of["survival-calibration"] + page.text_of["kaplan-meier"]
    strata = record["methods"]["gl_rfe_dnn"]["strata"]
    assert estimate(strata["low"]["at_horizon"]) in told
    assert f"log-rank z {strata['log_rank']['z']:.2f}" in told
    assert f"{record['lost']} were lost to follow-up before day 730" in html
    assert estimate(record["methods"]["volume"]["concordance"]).split()[0] in html
    assert "Hosny et al. claim" in html
    assert "2606.04453" not in html
    assert "50.0 %</data> death within 2 years (Kaplan-Meier; " in html
    shown = re.sub(r"(?s)<(style).*?</\1>|<[^>]*>", " ", html)
    assert not re.search(r"\bstag(e|es|ed|ing)\b", shown, re.IGNORECASE)
