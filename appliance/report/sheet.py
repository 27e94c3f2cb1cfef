"""A sheet to draw on, in millimetres from its upper left corner: text that fits, lines, boxes and pictures.

The same calls give the same bytes: dates are arguments, and neither the clock nor random numbers are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fontTools.pens.basePen import BasePen
from fpdf import FPDF, FPDF_VERSION
from fpdf.drawing import PaintedPath
from fpdf.enums import PathPaintRule, RenderStyle
from PIL import Image

from lungstage.appliance.report.drawing import Drawing
from lungstage.appliance.report.fonts import Face, own_face, runs
from lungstage.appliance.report.key_views import Outline, Pixels

Colour = tuple[int, int, int]
Align = Literal["left", "right", "centre"]

WIDTH, HEIGHT = 210.0, 297.0

BLACK: Final[Colour] = (17, 17, 17)
WHITE: Final[Colour] = (255, 255, 255)
GREY: Final[Colour] = (96, 96, 96)

_POINT = 25.4 / 72  # mm
_FAMILY = "page"
_SMALLEST = 5.5  # points
_LONGEST_TEXT = 64  # of a Long String


@dataclass(frozen=True, slots=True)
class Style:
    """Style of text.

    Attributes
    ----------
    size
        Size in points.
    bold
        Whether the text is bold.
    colour
        Colour of the letters.
    """

    size: float = 8.5
    bold: bool = False
    colour: Colour = BLACK

    @property
    def leading(self) -> float:
        """Distance from one line to the next in mm."""
        return self.size * 1.28 * _POINT


class Sheet:
    """One page.

    Parameters
    ----------
    title, language, created
        Title, language and creation time of the document.
    width, height
        Size of the sheet in mm.
    """

    def __init__(
        self, title: str, language: str, created: datetime, width: float = WIDTH, height: float = HEIGHT
    ) -> None:
        self._pdf = FPDF(format="A4", unit="mm")
        self._pdf.set_auto_page_break(auto=False)
        self._pdf.set_margin(0)
        self._pdf.c_margin = 0
        self._pdf.set_title(title)
        self._pdf.set_lang(language)
        self._pdf.set_creation_date(created)
        for style in ("", "B"):
            self._pdf.add_font(_FAMILY, style, own_face(style).path)
        self._faces = {own_face(""): None, own_face("B"): None}
        self._pdf.add_page(format=(width, height))
        self._pdf.set_font(_FAMILY, "", 8)

    def drawing(self) -> Drawing:
        """Return the PDF."""
        names = [f"{face.path.name} {face.sha256[:16]}"[-_LONGEST_TEXT:] for face in self._faces]
        return Drawing(bytes(self._pdf.output()), (f"fpdf2 {FPDF_VERSION}", *names))

    def width(self, text: str, style: Style) -> float:
        """Return the width of one line of text in mm."""
        self._choose(style)
        total = 0.0
        for run in runs(text) or ():
            if run.face is None:
                total += float(self._pdf.get_string_width(run.text))
            else:
                total += sum(_advance(run.face, character, style.size) for character in run.text)
        return total

    def text(self, x: float, y: float, text: str, style: Style, align: Align = "left", within: float = WIDTH) -> float:
        """Write one line with its baseline at `y`; a line wider than `within` mm is made smaller, then cut.

        Returns
        -------
        float
            Width of the line in mm.
        """
        text, style = self._fitted(text, style, within)
        width = self.width(text, style)
        x -= {"left": 0.0, "right": width, "centre": width / 2}[align]
        start = x
        self._pdf.set_text_color(*style.colour)
        for run in runs(text) or ():
            self._choose(style)
            if run.face is None:
                self._pdf.text(x, y, run.text)
                x += float(self._pdf.get_string_width(run.text))
            else:
                for character in run.text:
                    self._outlined(x, y, run.face, character, style)
                    x += _advance(run.face, character, style.size)
        return x - start

    def _fitted(self, text: str, style: Style, within: float) -> tuple[str, Style]:
        width = self.width(text, style)
        if width <= within:
            return text, style
        style = Style(max(_SMALLEST, 0.8 * style.size, style.size * within / width), style.bold, style.colour)
        while len(text) > 1 and self.width(text, style) > within:
            text = f"{text[:-2].rstrip()}…"
        return text, style

    def lines(self, text: str, style: Style, within: float) -> list[str]:
        """Break a text into lines of at most `within` mm, between words if possible."""
        lines: list[str] = []
        for word in self._words(text, style, within):
            joined = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(joined, style) <= within:
                lines[-1] = joined
            else:
                lines.append(word)
        return lines

    def _words(self, text: str, style: Style, within: float) -> Iterator[str]:
        """Give the words; a word that is longer than a line comes in pieces."""
        for word in text.split(" "):  # not at non-breaking spaces
            while self.width(word, style) > within and len(word) > 1:
                length = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or self.width(word[:n], style) <= within)
                yield word[:length]
                word = word[length:]
            yield word

    def paragraph(self, x: float, y: float, text: str, style: Style, within: float, most: int = 99) -> float:
        """Write lines from the baseline `y` down, at most `most`; return the baseline of the next line."""
        lines = self.lines(text, style, within)
        if len(lines) > most:
            lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
        for line in lines:
            self.text(x, y, line, style, within=within)
            y += style.leading
        return y

    def box(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        """Fill a rectangle."""
        self._pdf.set_fill_color(*fill)
        self._pdf.rect(x, y, width, height, style=RenderStyle.F)

    def frame(self, x: float, y: float, width: float, height: float, line: Colour, thickness: float = 0.2) -> None:
        """Draw a rectangle's sides."""
        self._pdf.set_draw_color(*line)
        self._pdf.set_line_width(thickness)
        self._pdf.rect(x, y, width, height, style=RenderStyle.D)

    def rule(self, x: float, y: float, end: float, line: Colour = BLACK, thickness: float = 0.2) -> None:
        """Draw a horizontal line."""
        self._pdf.set_draw_color(*line)
        self._pdf.set_line_width(thickness)
        self._pdf.line(x, y, end, y)

    def shape(self, corners: Sequence[tuple[float, float]], fill: Colour) -> None:
        """Fill a polygon."""
        self._pdf.set_fill_color(*fill)
        self._pdf.polygon(corners, style=RenderStyle.F)

    def picture(self, x: float, y: float, side: float, pixels: Pixels) -> None:
        """Draw a square picture of grey levels."""
        self._pdf.image(Image.fromarray(pixels), x, y, side, side)

    def outline(self, x: float, y: float, side: float, outline: Outline, line: Colour, thickness: float) -> None:
        """Draw a closed outline over a picture at the same place."""
        self._pdf.set_draw_color(*line)
        self._pdf.set_line_width(thickness)
        points = [(x + side * min(max(u, 0), 1), y + side * min(max(v, 0), 1)) for u, v in outline]
        self._pdf.polyline(points)

    def upwards(self, x: float, y: float, text: str, style: Style) -> None:
        """Write a line of vertical text with its middle at `y`."""
        with self._pdf.rotation(90, x, y):
            self.text(x, y, text, style, "centre")

    def _choose(self, style: Style) -> None:
        self._pdf.set_font(_FAMILY, "B" if style.bold else "", style.size)

    def _outlined(self, x: float, y: float, face: Face, character: str, style: Style) -> None:
        self._faces[face] = None
        with self._pdf.new_path(paint_rule=PathPaintRule.FILL_NONZERO) as path:
            path.style.fill_color = "#" + bytes(style.colour).hex()
            pen = _Pen(path, (x, y), style.size * _POINT / face.units, face)
            face.outlines[face.glyphs[ord(character)]].draw(pen)


class _Pen(BasePen):  # type: ignore[misc]  # fontTools has no types
    """Draws a glyph's outlines as a path of the page. The y axis of a glyph points up, that of the page down."""

    def __init__(self, path: PaintedPath, origin: tuple[float, float], scale: float, face: Face) -> None:
        super().__init__(face.outlines)
        self._path, self._origin, self._scale = path, origin, scale

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        return self._origin[0] + self._scale * point[0], self._origin[1] - self._scale * point[1]

    def _moveTo(self, pt: tuple[float, float]) -> None:  # noqa: N802  (fontTools' names)
        self._path.move_to(*self._at(pt))

    def _lineTo(self, pt: tuple[float, float]) -> None:  # noqa: N802
        self._path.line_to(*self._at(pt))

    def _curveToOne(  # noqa: N802
        self, pt1: tuple[float, float], pt2: tuple[float, float], pt3: tuple[float, float]
    ) -> None:
        self._path.curve_to(*self._at(pt1), *self._at(pt2), *self._at(pt3))

    def _closePath(self) -> None:  # noqa: N802
        self._path.close()


def _advance(face: Face, character: str, size: float) -> float:
    """Return the width in mm of a glyph of a system font."""
    return float(face.outlines[face.glyphs[ord(character)]].width) / face.units * size * _POINT
