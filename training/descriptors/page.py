"""Write the figures as the generated tables of ``docs/descriptors.md``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lungstage.appliance.descriptors.definitions import BY_NAME, DEFINITIONS
from lungstage.training.descriptors.study import QUESTIONS

_PART = re.compile(r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end>\n<!-- end -->)", re.DOTALL)

PARTS: Final = ("development", "test", "both")
AIMS: Final = {"mean_hu": 0.88, "irregularity": 0.83, "radial_spread": 0.80, "margin_sharpness": 0.83}
PUBLISHED: Final = {"mean_hu": "0.812 (consistency)", "margin_sharpness": "0.807 (margin)"}
"""Zero-shot AUROC of a vision-language model on NLST: Zhuang L et al., Journal of Biomedical Informatics 172, 2025."""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(of: Mapping[str, float] | None) -> str:
    return "–" if of is None else f"{of['value']:.2f} ({of['low']:.2f} to {of['high']:.2f})"


def _definitions(_: Mapping[str, Any]) -> str:
    rows = [
        [f"`{d.name}`", d.title, d.unit if d.unit else "class", d.formula, d.source, str(d.worth)] for d in DEFINITIONS
    ]
    return _table(["key", "descriptor", "unit (UCUM)", "formula", "source", "badge"], rows)


def _agreement(figures: Mapping[str, Any]) -> str:
    rows = []
    for question in QUESTIONS:
        for part in PARTS:
            of = figures[part][question.name]
            for size, label in (("all", "all"), ("large", "10 mm and more")):
                one = of[size]
                rows.append([
                    BY_NAME[question.name].title, question.asks, part, label, f"{one['lesions']}",
                    f"{one['patients']}", f"{100 * one['yes']:.0f} %", f"**{_interval(one['descriptor'])}**",
                    _interval(one["reader"]), f"{AIMS[question.name]:.2f}", PUBLISHED.get(question.name, "–"),
                ])  # fmt: skip
    head = [
        "descriptor", "readers say", "patients who were", "lesions", "number", "patients", "yes", "AUROC", "a reader's",
        "aim", "published",
    ]  # fmt: skip
    return _table(head, rows)


def _one_reader(figures: Mapping[str, Any]) -> str:
    rows = []
    for question in QUESTIONS:
        for part in PARTS:
            of = figures[part][question.name].get("one_reader")
            if of is not None:
                rows.append([
                    BY_NAME[question.name].title, part, f"{of['lesions']}", _interval(of["descriptor"]),
                    _interval(of["reader"]),
                ])  # fmt: skip
    return _table(["descriptor", "patients who were", "lesions", "AUROC", "a reader's"], rows)


def _cuts(figures: Mapping[str, Any]) -> str:
    rows = [
        [BY_NAME[q.name].title, cut, *(_interval(figures[part][q.name]["cuts"][cut]) for part in PARTS)]
        for q in QUESTIONS
        for cut in figures["both"][q.name]["cuts"]
    ]
    return _table(["descriptor", "cut", *(f"AUROC, {part}" for part in PARTS)], rows)


def _words(figures: Mapping[str, Any]) -> str:
    rows = []
    for question in QUESTIONS:
        definition, cuts = BY_NAME[question.name], figures["fixed"]["thresholds"][question.name]
        below = " ".join(f"{word} < {cut:.3g} ≤" for word, cut in zip(definition.words, cuts, strict=False))
        accuracy = figures["test"][question.name]["word"]
        rows.append(
            [definition.title, f"{below} {definition.words[-1]}", "–" if accuracy is None else f"{accuracy:.2f}"]
        )
    return _table(["descriptor", "words and thresholds", "balanced accuracy on test patients"], rows)


def _outlines(figures: Mapping[str, Any]) -> str:
    rows = [
        [BY_NAME[name].title, str(of["lesions"]), _interval(of["icc"])]
        for name, of in figures["outlines"]["values"].items()
    ]
    return _table(["descriptor", "lesions", "ICC(1) between readers' outlines"], rows)


def _readers(figures: Mapping[str, Any]) -> str:
    return _table(
        ["rating", "κ, quadratic weights"], [[name, f"{value:.2f}"] for name, value in figures["readers"].items()]
    )


def _crops(figures: Mapping[str, Any]) -> str:
    of = figures["crops"]
    if of is None:
        return "Not measured: the command was not given the crops."
    rows = [["whole tumours of 10 mm and more", str(of["tumours"])], ["fit for words", str(of["fit"])]]
    rows += [[f"unfit: {name}", str(count)] for name, count in of["unfit"].items()]
    rows += [
        [f"{BY_NAME[name].title}: the same word by the planning volume and by HU", f"{100 * share:.0f} %"]
        for name, share in of["same_word"].items()
    ]
    rows += [[f"all four words the same, {name}", f"{100 * share:.0f} %"] for name, share in of["all_the_same"].items()]
    return _table(["planning volumes of NSCLC-Radiomics", "number"], rows)


_TABLES: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "definitions": _definitions, "agreement": _agreement, "one-reader": _one_reader, "cuts": _cuts, "words": _words,
    "outlines": _outlines, "readers": _readers, "crops": _crops,
}  # fmt: skip


def filled(page: str, figures: Mapping[str, Any]) -> str:
    """Return the page with every generated part replaced by tables of the figures."""
    return _PART.sub(lambda part: part["begin"] + _TABLES[part["name"]](figures) + part["end"], page)
