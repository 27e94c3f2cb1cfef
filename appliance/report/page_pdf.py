"""The result page as PDF: one A4 page, legible in grey and on a poor printer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lungstage.appliance.report.caveats import Grade
from lungstage.appliance.report.descriptor_words import Described
from lungstage.appliance.report.drawing import Drawing
from lungstage.appliance.report.key_views import KeyViews
from lungstage.appliance.report.refusal_page import RefusalPage
from lungstage.appliance.report.result_page import Heading, ResultPage, Row, Scale
from lungstage.appliance.report.sheet import BLACK, GREY, HEIGHT, WHITE, WIDTH, Align, Colour, Sheet, Style
from lungstage.appliance.report.translation import Translator

_LEFT, _RIGHT = 13.0, WIDTH - 13.0
_ALARM: Final[Colour] = (140, 24, 24)
_OUTLINE: Final[Colour] = (255, 196, 0)
_RULE: Final[Colour] = (190, 190, 190)
_FAINT, _PALE, _MIDDLE = (232, 232, 232), (204, 204, 204), (150, 150, 150)

_BODY = Style(8.5)
_SMALL = Style(7, colour=GREY)
_SECTION = Style(10, bold=True)
_MOST_CAVEAT_LINES, _LEAST_CAVEAT_LINES = 8, 4
_OUTWARDS: Final[tuple[Align, Align]] = ("right", "left")  # of text left and right of an axis


def page_pdf(page: ResultPage) -> Drawing:
    """Draw a result page on one sheet; the same page gives the same bytes."""
    sheet = Sheet(page.title, page.language, page.created)
    say = Translator(page.language)
    y = draw_heading(sheet, page.heading)
    y = _answer(sheet, page, y, say)
    bottom = _top_of_foot(sheet, page.not_for)
    room = _Room.of(sheet, page, bottom - y)
    y = _caveats(sheet, page, y, say, room.caveats)
    below = _height_of_descriptors(sheet, page, room.descriptors) + _height_of_rows(page, _LOW_ROW)
    y = _views_and_facts(sheet, page, y, bottom - below)
    y = _descriptors(sheet, page, y, room.descriptors)
    _rows(sheet, page, y, bottom)
    draw_not_for(sheet, page.words["heading.not_for"], page.not_for)
    return sheet.drawing()


@dataclass(frozen=True, slots=True)
class _Room:
    """Number of lines that fit on the page.

    Attributes
    ----------
    caveats, descriptors
        Most lines of all caveats together, and of each level of descriptors.
    """

    caveats: int
    descriptors: int

    @classmethod
    def of(cls, sheet: Sheet, page: ResultPage, height: float) -> _Room:
        """Distribute `height` mm: descriptors lose lines first, then caveats."""
        least = _HEADINGS + len(page.window_names) * (_SMALLEST_VIEW + _GAP) + _height_of_rows(page, _LOWEST_ROW)
        most = min(_lines_of_caveats(sheet, page), _MOST_CAVEAT_LINES)
        fewest = min(most, _LEAST_CAVEAT_LINES)
        for caveats in range(most, fewest - 1, -1):
            for lines in range(_MOST_LINES, _LEAST_LINES - 1, -1):
                taken = _FRAME + caveats * _BODY.leading + _height_of_descriptors(sheet, page, lines)
                if least + taken <= height:
                    return cls(caveats, lines)
        return cls(fewest, _LEAST_LINES)


def key_slice_pdf(page: ResultPage) -> Drawing:
    """Draw the axial key slice in both windows on a small sheet, for readers who see nothing but pictures.

    The lines above it say what such a reader must know: research use, answer, doubt, probability, and whether the
    model's performance is shown.
    """
    side, gap = 86.0, 2.0
    width = 2 * side + gap
    told = [
        (text, size)
        for text, size in ((page.headline, 12), (page.doubt, 10), (page.probability, 10), (page.worth_in_short, 10))
        if text
    ]
    top = 11 + 6.0 * len(told)
    sheet = Sheet(page.title, page.language, page.created, width, side + top)
    sheet.box(0, 0, width, top, BLACK)
    notice = " · ".join(part.upper() for part in (page.heading.notice, page.heading.notice_in_english) if part)
    sheet.text(3, 8, notice, Style(13, bold=True, colour=WHITE), within=width - 6)
    for line, (text, size) in enumerate(told):
        sheet.text(3, 15 + 6.0 * line, text, Style(size, colour=WHITE), within=width - 6)
    for row in range(len(page.window_names)):
        _view(sheet, page.views, 0, row, row * (side + gap), top, side)
    return sheet.drawing()


def refusal_pdf(page: RefusalPage) -> Drawing:
    """Draw the page of a refusal; the same page gives the same bytes."""
    sheet = Sheet(page.title, page.language, page.created)
    y = draw_heading(sheet, page.heading) + 12
    sheet.text(_LEFT, y, page.headline, Style(23, bold=True), within=_RIGHT - _LEFT)
    y = sheet.paragraph(_LEFT, y + 10, page.because, Style(12), _RIGHT - _LEFT, most=16)
    y = sheet.paragraph(_LEFT, y + 3, page.explanation, Style(9, colour=GREY), _RIGHT - _LEFT)
    sheet.rule(_LEFT, y + 1, _RIGHT, _RULE)
    _facts(sheet, page.facts, _LEFT, y + 7)
    draw_not_for(sheet, page.not_for_heading, page.not_for)
    return sheet.drawing()


def draw_heading(sheet: Sheet, heading: Heading) -> float:
    """Draw the top of a page; return where the rest begins."""
    sheet.box(0, 0, WIDTH, 12, BLACK)
    notice = Style(15, bold=True, colour=WHITE)
    x = _LEFT + sheet.text(_LEFT, 8.2, heading.notice.upper(), notice)
    if heading.notice_in_english:
        x += sheet.text(x + 4, 8.2, heading.notice_in_english.upper(), Style(10, colour=WHITE)) + 4
    sheet.text(_RIGHT, 8.2, heading.not_for_care, Style(9, colour=WHITE), "right", within=_RIGHT - x - 6)
    name, *rest = heading.patient
    y = 18.0
    x = _LEFT + sheet.text(_LEFT, y, name, Style(10, bold=True), within=90)
    sheet.text(x + 4, y, "   ".join(rest), Style(9), within=_RIGHT - x - 4)
    sheet.rule(_LEFT, y + 2.4, _RIGHT, _RULE)
    return y + 2.4


_FOOT = 36.0  # width of the heading at the foot in mm


def draw_not_for(sheet: Sheet, heading: str, text: str) -> None:
    """Draw at the foot of the page what it must not be used for."""
    y = _top_of_foot(sheet, text)
    sheet.rule(_LEFT, y, _RIGHT, BLACK, 0.4)
    sheet.text(_LEFT, y + 4.4, heading, Style(8.5, bold=True), within=_FOOT - 2)
    sheet.paragraph(_LEFT + _FOOT, y + 4.4, text, _BODY, _RIGHT - _LEFT - _FOOT)


def _top_of_foot(sheet: Sheet, text: str) -> float:
    lines = sheet.lines(text, _BODY, _RIGHT - _LEFT - _FOOT)
    return HEIGHT - 12.4 - _BODY.leading * (len(lines) - 1)


def _answer(sheet: Sheet, page: ResultPage, y: float, say: Translator) -> float:
    y += 10
    sheet.text(_LEFT, y, page.headline, Style(23, bold=True), within=_RIGHT - _LEFT)
    y += 6.5
    if page.doubt:
        sheet.shape([(_LEFT, y), (_LEFT + 3.6, y), (_LEFT + 1.8, y - 3.3)], _ALARM)
        sheet.text(_LEFT + 1.8, y - 0.45, "!", Style(7.5, bold=True, colour=WHITE), "centre")
        sheet.text(_LEFT + 5, y, page.doubt, Style(11, bold=True, colour=_ALARM), within=_RIGHT - _LEFT - 5)
        y += 6
    y = sheet.paragraph(_LEFT, y, page.probability, Style(11), _RIGHT - _LEFT, most=2)
    y = sheet.paragraph(_LEFT, y, page.certainty, Style(8.5, colour=GREY), _RIGHT - _LEFT, most=2)
    if page.chance:
        y = sheet.paragraph(_LEFT, y, page.chance, Style(8.5), _RIGHT - _LEFT, most=3)
    if page.robustness:
        y = sheet.paragraph(_LEFT, y, page.robustness, Style(8.5), _RIGHT - _LEFT, most=2)
    if page.worth:
        y = sheet.paragraph(_LEFT, y, page.worth, Style(8.5, bold=True, colour=_ALARM), _RIGHT - _LEFT, most=3)
    return _scale(sheet, page.scale, y + 2.4, say)


def _scale(sheet: Sheet, scale: Scale, y: float, say: Translator) -> float:
    """Draw the line from 0 to 100 %, with its three parts and the probability."""
    length, height = _RIGHT - _LEFT, 4.2
    low, high = (min(max(share, 0), 1) for share in scale.open_between)
    parts = ((0.0, low, _FAINT, scale.negative), (low, high, WHITE, scale.open), (high, 1.0, _MIDDLE, scale.positive))
    for start, end, fill, name in parts:
        sheet.box(_LEFT + start * length, y, (end - start) * length, height, fill)
        # Put the name beside the mark if both are in the same part.
        if start < scale.probability < end:
            before = scale.probability - start > end - scale.probability
            start, end = (start, scale.probability) if before else (scale.probability, end)
        if sheet.width(name, Style(8)) < (end - start) * length - 3:
            sheet.text(_LEFT + (start + end) / 2 * length, y + 3.1, name, Style(8), "centre")
    if scale.range is not None:  # along the lower edge
        start, end = scale.range
        sheet.box(_LEFT + start * length, y + height - 0.8, (end - start) * length, 0.8, BLACK)
    sheet.frame(_LEFT, y, length, height, BLACK)
    for share in (low, high):
        if 0 < share < 1:
            x = _LEFT + share * length
            sheet.box(x - 0.1, y, 0.2, height, BLACK)
            sheet.text(x, y + height + 3, say.percent(share), _SMALL, "centre")
    sheet.text(_LEFT, y + height + 3, say.percent(0), _SMALL)
    sheet.text(_RIGHT, y + height + 3, say.percent(1), _SMALL, "right")
    x = _LEFT + scale.probability * length
    sheet.shape([(x - 1.7, y - 2.6), (x + 1.7, y - 2.6), (x, y + 0.5)], BLACK)
    sheet.box(x - 0.3, y, 0.6, height, BLACK)
    left = scale.probability > 0.5
    said, align = say.percent(scale.probability), _OUTWARDS[0 if left else 1]
    sheet.text(x + (-2.3 if left else 2.3), y - 0.6, said, Style(9, bold=True), align)
    return y + height + 3


_FRAME: Final = 10.3  # mm around the caveats
_IN_CAVEATS: Final = _RIGHT - _LEFT - 8


def _lines_of_caveats(sheet: Sheet, page: ResultPage) -> int:
    styles = (Style(8.5, bold=caveat.grade is Grade.MODEL) for caveat in page.caveats)
    told = zip(page.caveats, styles, strict=True)
    return sum(min(2, len(sheet.lines(caveat.text, style, _IN_CAVEATS))) for caveat, style in told) or 1


def _caveats(sheet: Sheet, page: ResultPage, y: float, say: Translator, room: int) -> float:
    top = y + 3.4
    y = top + 4.6
    sheet.text(_LEFT + 4, y, page.words["heading.caveats"], Style(10, bold=True, colour=_ALARM))
    y += 4.5
    within = _IN_CAVEATS
    left = len(page.caveats)
    for caveat in page.caveats:
        style = Style(8.5, bold=caveat.grade is Grade.MODEL)
        lines = min(2, len(sheet.lines(caveat.text, style, within)))
        if lines > room - (left > 1):  # the last line says how many more there are
            sheet.text(_LEFT + 6.5, y, say("caveats.more", count=left), Style(8.5, colour=GREY))
            y += _BODY.leading
            break
        sheet.box(_LEFT + 4, y - 1.6, 1.1, 1.1, _ALARM if caveat.grade is Grade.MODEL else GREY)
        y = sheet.paragraph(_LEFT + 6.5, y, caveat.text, style, within, most=2)
        room, left = room - lines, left - 1
    if not page.caveats:
        y = sheet.paragraph(_LEFT + 4, y, page.words["caveats.none"], _BODY, within)
    bottom = y - 2.2
    sheet.box(_LEFT, top, 1.2, bottom - top, _ALARM)
    return bottom


_LARGEST_VIEW, _SMALLEST_VIEW = 42.6, 21.0
_GAP, _HEADINGS = 1.6, 12.2  # mm between views, and above them


def _views_and_facts(sheet: Sheet, page: ResultPage, y: float, bottom: float) -> float:
    """Draw the views, as large as the room above `bottom` allows, and the facts beside them."""
    gap, margin = _GAP, 4.0
    side = min(max((bottom - y - _HEADINGS) / len(page.window_names) - gap, _SMALLEST_VIEW), _LARGEST_VIEW)
    y += 6.4
    right = _LEFT + margin + 3 * side + 2 * gap
    sheet.text(_LEFT, y, page.words["heading.views"], _SECTION)
    sheet.text(right, y, page.empty_note, _SMALL, "right")
    facts = right + 6
    sheet.text(facts, y, page.words["heading.facts"], _SECTION)
    _facts(sheet, page.facts, facts, y + 5)
    y += 4.4
    for column, name in enumerate(page.view_names):
        sheet.text(_LEFT + margin + column * (side + gap) + side / 2, y, name, Style(7.5), "centre")
    y += 1.4
    for row, window in enumerate(page.window_names):
        top = y + row * (side + gap)
        sheet.upwards(_LEFT + 2.4, top + side / 2, window, Style(7.5))
        for column in range(len(page.views.views)):
            _view(sheet, page.views, column, row, _LEFT + margin + column * (side + gap), top, side)
    return y + len(page.window_names) * (side + gap)


_BADGE: Final = 36.0  # width of the level of evidence in mm
_FINE: Final = Style(7.5)
_MOST_LINES, _LEAST_LINES = 5, 2


def _height_of_descriptors(sheet: Sheet, page: ResultPage, most: int) -> float:
    lines = sum(_lines_of(sheet, one, most) for one in page.descriptors)
    return 7.6 + lines * _FINE.leading if lines else 0.0


def _lines_of(sheet: Sheet, one: Described, most: int) -> int:
    badge = len(sheet.lines(one.badge, _SMALL, _BADGE - 3))
    return max(min(len(sheet.lines(one.text, _FINE, _RIGHT - _LEFT - _BADGE)), most), badge)


def _descriptors(sheet: Sheet, page: ResultPage, y: float, most: int) -> float:
    """Draw the descriptors by level of evidence."""
    if not page.descriptors:
        return y
    y += 6.4
    x = _LEFT + sheet.text(_LEFT, y, page.words["heading.descriptors"], _SECTION) + 3
    sheet.text(x, y, page.words["descriptors.apart"], _SMALL, within=_RIGHT - x)
    y += 4.4
    for one in page.descriptors:
        sheet.paragraph(_LEFT, y, one.badge, _SMALL, _BADGE - 3)
        sheet.paragraph(_LEFT + _BADGE, y, one.text, _FINE, _RIGHT - _LEFT - _BADGE, most=most)
        y += _lines_of(sheet, one, most) * _FINE.leading
    return y - 3.2


def _view(sheet: Sheet, views: KeyViews, column: int, row: int, x: float, y: float, side: float) -> None:
    view = views.views[column]
    sheet.picture(x, y, side, view.pictures[row])
    for colour, thickness in ((BLACK, 0.42), (_OUTLINE, 0.2)):
        for outline in view.outlines:
            sheet.outline(x, y, side, outline, colour, thickness)
    middle, places = side / 2, Style(6, bold=True, colour=WHITE)
    for letter, (across, down) in zip(
        view.letters, ((1.3, middle), (side - 1.3, middle), (middle, 1.3), (middle, side - 1.3)), strict=True
    ):
        sheet.box(x + across - 1.1, y + down - 1.2, 2.2, 2.4, BLACK)
        sheet.text(x + across, y + down + 0.75, letter, places, "centre")
    bar = views.scale / views.side * side
    sheet.box(x, y + side - 4.6, max(bar, 8) + 2.4, 4.6, BLACK)
    sheet.text(x + 1.2, y + side - 2.2, f"{views.scale} mm", places)
    sheet.box(x + 1.2, y + side - 1.4, bar, 0.6, WHITE)


def _facts(sheet: Sheet, facts: tuple[tuple[str, str], ...], x: float, y: float) -> None:
    for name, text in facts:
        sheet.text(x, y, name, _SMALL)
        y = sheet.paragraph(x, y + 3.4, text, Style(8), _RIGHT - x, most=4) + 1.5


_VALUE, _STRIP, _STRIP_END, _BARS = 112.0, 126.0, 158.0, 163.0  # positions of the table's columns in mm
WORDS: Final = 66.0
"""Width in mm for the plain words of an input; its technical name follows."""
_LOWEST_ROW, _LOW_ROW, _HIGHEST_ROW = 3.4, 3.7, 5.2  # mm: smallest, while the views are large, largest


def _height_of_rows(page: ResultPage, step: float) -> float:
    return 8.2 + len(page.rows) * step + (4.0 if page.rows_note else 1.0)


def _rows(sheet: Sheet, page: ResultPage, y: float, bottom: float) -> None:
    y += 6.4
    middle, tiny = (_BARS + _RIGHT) / 2, Style(6, colour=GREY)
    sheet.text(_LEFT, y, page.words["heading.rows"], _SECTION)
    sheet.text(_VALUE, y + 0.4, page.words["column.value"], _SMALL, "right")
    centre, length = (_STRIP + _STRIP_END) / 2, _STRIP_END - _STRIP
    sheet.text(centre, y - 2.2, page.words["column.cohort"], _SMALL, "centre", within=length + 8)
    sheet.text(_STRIP, y + 0.4, page.words["column.lowest"], tiny, within=length / 3)
    sheet.text(centre, y + 0.4, page.words["column.median"], tiny, "centre", within=length / 3)
    sheet.text(_STRIP_END, y + 0.4, page.words["column.highest"], tiny, "right", within=length / 3)
    sheet.text(middle, y - 2.2, page.words["column.speaks_for"], _SMALL, "centre")
    half = middle - _BARS
    for text, way, align in zip(page.speaks_for, (-1, 1), _OUTWARDS, strict=True):
        sheet.shape([(middle + way, y - 1.3), (middle + way, y + 0.3), (middle + 2.3 * way, y - 0.5)], GREY)
        sheet.text(middle + 3 * way, y + 0.4, text, Style(7), align, within=half + 1)
    y += 1.8
    sheet.rule(_LEFT, y, _RIGHT, _RULE)
    room = bottom - y - (4.0 if page.rows_note else 1.0)
    step = min(max(room / max(len(page.rows), 1), _LOWEST_ROW), _HIGHEST_ROW)
    longest = max((abs(row.contribution) for row in page.rows), default=0.0) or 1.0
    for row in page.rows:
        _row(sheet, row, y + step / 2 + 1.1, longest)
        y += step
    sheet.box(middle - 0.1, y - step * len(page.rows), 0.2, step * len(page.rows), BLACK)
    if page.rows_note:
        sheet.text(_LEFT, y + 2.8, page.rows_note, _SMALL)


def _row(sheet: Sheet, row: Row, y: float, longest: float) -> None:
    start = _VALUE - 2 - sheet.text(_VALUE, y, row.value, _BODY, "right", within=16)
    name = _LEFT + 1.8 + sheet.text(_LEFT, y, row.words, _BODY, within=WORDS)
    sheet.text(name, y, row.name, Style(6, colour=GREY), within=start - name)
    sheet.text(_VALUE + 1, y, row.unit, _SMALL, within=_STRIP - _VALUE - 2)
    if row.share is not None:
        _strip(sheet, row, y)
    middle, half = (_BARS + _RIGHT) / 2, (_RIGHT - _BARS) / 2
    length = abs(row.contribution) / longest * half
    if row.contribution > 0:
        sheet.box(middle, y - 2.3, length, 2.6, _GREYS[1])
    else:
        sheet.box(middle - length, y - 2.3, length, 2.6, _GREYS[0])
        sheet.frame(middle - length, y - 2.3, length, 2.6, _GREYS[1], 0.15)


_GREYS: Final[tuple[Colour, Colour]] = ((214, 214, 214), (70, 70, 70))


def _strip(sheet: Sheet, row: Row, y: float) -> None:
    """Draw the position of a value in the cohort: its whole range, its middle nine tenths, its middle half."""
    length, top = _STRIP_END - _STRIP, y - 2.0
    for low, high, fill in ((0.0, 1.0, _FAINT), (0.05, 0.95, _PALE), (0.25, 0.75, _MIDDLE)):
        sheet.box(_STRIP + low * length, top, (high - low) * length, 2.0, fill)
    sheet.box(_STRIP + 0.5 * length - 0.15, top, 0.3, 2.0, WHITE)
    share = row.share or 0.0
    if 0 <= share <= 1:
        x = _STRIP + share * length
        sheet.box(x - 0.75, top - 0.6, 1.5, 3.2, WHITE)
        sheet.box(x - 0.5, top - 0.6, 1.0, 3.2, BLACK)
        return
    end, way = (_STRIP, -1) if share < 0 else (_STRIP_END, 1)
    sheet.shape([(end, top - 0.6), (end, top + 2.6), (end + 2.4 * way, top + 1.0)], _ALARM)
    style = Style(6, bold=True, colour=BLACK)
    width = sheet.width(row.range, style)
    sheet.box((_STRIP + _STRIP_END - width) / 2 - 0.6, top - 0.3, width + 1.2, 2.6, WHITE)
    sheet.text((_STRIP + _STRIP_END) / 2, top + 1.75, row.range, style, "centre", within=length)
