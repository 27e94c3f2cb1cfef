"""Common parts of all figures: colours, fonts, sizes, and the conversion from matplotlib to inline SVG.

The SVG contains no date, no random identifiers and no external content, so the same data give the same bytes. Text
stays text, so it can be selected and scaled. matplotlib computes the layout with its DejaVu Sans; the fonts that a
browser may use instead are not wider. Names are never parsed as mathematical text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from lungstage.appliance.report.vocabulary import CONCEPTS, HOUNSFIELD

# Okabe and Ito's palette: distinguishable with every common colour vision deficiency, and in grey by lightness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#6B6B6B"

DIVERGING: Final = LinearSegmentedColormap.from_list("blue to vermillion", [BLUE, "#FFFFFF", VERMILLION])
SEQUENTIAL: Final = LinearSegmentedColormap.from_list("white to blue", ["#E3EEF6", SKY, BLUE, "#00334F"])

METRIC_LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "auc": "AUC",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_precision": "precision (macro)",
        "macro_recall": "recall (macro)",
        "macro_f1": "F1 (macro)",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
        "brier": "Brier score",
        "calibration_slope": "calibration slope",
        "ece": "expected calibration error",
    }
)
"""Metrics in the order of a table, with their names for readers."""

WIDTH: Final = 9.0  # inches; scaled to about 80 % on an A4 page and 150 % on a screen
_LONGEST_LABEL = 44

_STYLE: Final[Mapping[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lungstage",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_SUPERSCRIPT = str.maketrans("23", "²³")
_BREAKS = re.compile(r"(?<=\s)|(?<=[a-z])(?=[A-Z])")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure of a report.

    Attributes
    ----------
    key
        Its anchor in the page.
    title
        Its title.
    alt
        Description of the drawing, for readers who cannot see it.
    caption
        Caption with numbers from the data.
    svg
        An ``<svg>`` element without namespace; its identifiers start with `key`.
    """

    key: str
    title: str
    alt: str
    caption: str
    svg: str


@contextmanager
def canvas(height: float, width: float = WIDTH) -> Iterator[Figure]:
    """Yield an empty figure in the report's style; `height` and `width` in inches."""
    with matplotlib.style.context(["default", dict(_STYLE)]):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)  # the layout must use this canvas's text measurements
        yield figure


def picture(figure: Figure, key: str, title: str, alt: str, caption: str) -> Picture:
    """Convert `figure` to inline SVG; call it within its :func:`canvas`."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a glyph missing from DejaVu Sans: the browser has a font for it
        # The same as savefig, but without its additional drawing.
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None})  # type: ignore[no-untyped-call]
    root = ElementTree.fromstring(written.getvalue())  # noqa: S314 - matplotlib has just written it
    for unwanted in (*root.findall(f"{_SVG}metadata"), *root.findall(f"{_SVG}defs[{_SVG}style]")):
        root.remove(unwanted)  # the creator's name, and a style that would apply to the whole page
    elements = list(root.iter())
    named = {target for element in elements for target in _targets(element)}
    for element in elements:
        element.tag = element.tag.removeprefix(_SVG)
        attributes = {name.removeprefix(_XLINK): value for name, value in element.attrib.items()}
        if attributes.get("id") not in named:
            attributes.pop("id", None)
        element.attrib.clear()
        element.attrib.update({name: _prefixed(name, value, key) for name, value in attributes.items()})
    share = float(root.attrib.pop("width").removesuffix("pt")) / 72 / WIDTH
    for superfluous in ("height", "version"):
        root.attrib.pop(superfluous)
    # One scale for every figure: figures grow with the window up to a limit; a narrow window scrolls.
    size = f"width: {100 * share:.0f}%; min-width: {40 * share:.0f}rem; max-width: {1000 * share:.0f}px"
    root.attrib.update({"role": "img", "aria-label": alt, "aria-describedby": f"{key}-caption", "style": size})
    return Picture(key, title, alt, caption, ElementTree.tostring(root, encoding="unicode"))


def _targets(element: ElementTree.Element) -> Iterator[str]:
    for name, value in element.attrib.items():
        if name.endswith("href") and value.startswith("#"):
            yield value[1:]
        yield from _REFERENCE.findall(value)


def _prefixed(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "href" and value.startswith("#"):
        return f"#{key}-{value[1:]}"
    return _REFERENCE.sub(rf"url(#{key}-\1)", value)


def short(feature: str) -> str:
    """Shorten a PyRadiomics name; it stays unambiguous."""
    return clipped(feature.removeprefix("original_").replace("_", " "))


def unit_of(feature: str) -> str:
    """Write a feature's unit for readers; empty if it has none or is unknown."""
    unit = CONCEPTS[feature].unit if feature in CONCEPTS else "1"
    return "" if unit == "1" else unit.replace(HOUNSFIELD, "HU").replace(".", "·").translate(_SUPERSCRIPT)


def clipped(text: str, length: int = _LONGEST_LABEL) -> str:
    """Shorten a label that is too long for a figure."""
    return text if len(text) <= length else text[: length - 1] + "…"


def wrapped(text: str, width: int) -> str:
    """Break a label into lines of about `width`, between words and before the capitals of a joined name."""
    lines = [""]
    for part in _BREAKS.split(text):
        if lines[-1].strip() and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def estimate(entry: Mapping[str, float | None], digits: int = 3) -> str:
    """Write a value with its interval. An undefined one, such as a slope of constant predictions, is a dash."""
    value, low, high = ("–" if entry[key] is None else f"{entry[key]:.{digits}f}" for key in ("value", "low", "high"))
    return value if value == "–" else f"{value} ({low} to {high})"


def whiskers(
    axes: Axes, entry: Mapping[str, float], y: float, colour: str, *, marker: str = "o", fill: str | None = None
) -> None:
    """Draw a value and its interval along x at height `y`."""
    axes.plot([entry["low"], entry["high"]], [y, y], color=colour, zorder=2)
    axes.plot(entry["value"], y, color=colour, marker=marker, markersize=5.5, markerfacecolor=fill or colour, zorder=3)
