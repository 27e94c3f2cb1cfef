"""The result page as HTML: one file without scripts, links or fonts, for readers without a PACS."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Final

from PIL import Image

from lungstage.appliance.report.caveats import Grade
from lungstage.appliance.report.key_views import KeyView, KeyViews, Pixels
from lungstage.appliance.report.result_page import ResultPage, Row, Scale
from lungstage.appliance.report.translation import Translator

_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;color:#111;max-width:60rem;margin:0 auto;background:#fff}
header{background:#111;color:#fff;padding:.6rem 1rem;display:flex;gap:1rem;align-items:baseline;flex-wrap:wrap}
header strong{font-size:1.4rem;text-transform:uppercase}header span:last-child{margin-left:auto}
main{padding:0 1rem 1rem}h1{font-size:2rem;margin:.6rem 0 .2rem}h2{font-size:1.05rem;margin:1.2rem 0 .3rem}
.patient{border-bottom:1px solid #bbb;padding:.5rem 0}.patient b{margin-right:1rem}.patient span{margin-right:1rem}
.doubt{color:#8c1818;font-weight:bold}.grey{color:#606060}.caveats{border-left:4px solid #8c1818;padding-left:.8rem}
.caveats h2{color:#8c1818;margin-top:.8rem}.caveats ul{margin:0;padding-left:1.2rem}svg{display:block}
figure{margin:0}.views{display:grid;grid-template-columns:repeat(3,1fr);gap:.4rem;max-width:44rem}
figcaption{font-size:.8rem;text-align:center}table{border-collapse:collapse;width:100%}
td,th{padding:.15rem .4rem;border-bottom:1px solid #e4e4e4;font-size:.9rem;text-align:left}
td.value{text-align:right;white-space:nowrap}small{color:#606060}dl{display:grid;grid-template-columns:10rem 1fr}
dt{color:#606060}dd{margin:0}footer{border-top:2px solid #111;padding:.5rem 0}
@media print{body{font-size:10px}h1{font-size:1.5rem}}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page_html(page: ResultPage) -> str:
    """Write a result page as HTML; the same page gives the same text."""
    say = Translator(page.language)
    heading = page.heading
    english = f"<span>{escape(heading.notice_in_english)}</span>" if heading.notice_in_english else ""
    name, *rest = map(escape, heading.patient)
    parts = [
        "<!doctype html>",
        f'<html lang="{page.language}"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">',
        f"<title>{escape(page.title)}</title><style>{_STYLE}</style></head><body>",
        f"<header><strong>{escape(heading.notice)}</strong>{english}",
        f"<span>{escape(heading.not_for_care)}</span></header><main>",
        f'<div class="patient"><b>{name}</b>{"".join(f"<span>{one}</span>" for one in rest)}</div>',
        f"<h1>{escape(page.headline)}</h1>",
        f'<p class="doubt">{escape(page.doubt)}</p>' if page.doubt else "",
        f"<p>{escape(page.probability)}<br><span class='grey'>{escape(page.certainty)}</span></p>",
        f"<p>{escape(page.chance)}</p>" if page.chance else "",
        f"<p>{escape(page.robustness)}</p>" if page.robustness else "",
        f'<p class="doubt">{escape(page.worth)}</p>' if page.worth else "",
        _scale(page.scale, say),
        f'<section class="caveats"><h2>{escape(page.words["heading.caveats"])}</h2>',
        _caveats(page),
        f"</section><h2>{escape(page.words['heading.views'])}</h2>",
        _views(page),
        _descriptors(page),
        f"<h2>{escape(page.words['heading.rows'])}</h2>",
        _table(page),
        f"<h2>{escape(page.words['heading.facts'])}</h2><dl>",
        *(f"<dt>{escape(what)}</dt><dd>{escape(how)}</dd>" for what, how in page.facts),
        f"</dl><footer><b>{escape(page.words['heading.not_for'])}</b> {escape(page.not_for)}</footer>",
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _caveats(page: ResultPage) -> str:
    if not page.caveats:
        return f"<p>{escape(page.words['caveats.none'])}</p>"
    items = (
        f"<li>{'<b>' if one.grade is Grade.MODEL else ''}{escape(one.text)}"
        f"{'</b>' if one.grade is Grade.MODEL else ''}</li>"
        for one in page.caveats
    )
    return f"<ul>{''.join(items)}</ul>"


def _scale(scale: Scale, say: Translator) -> str:
    low, high = (1000 * min(max(share, 0), 1) for share in scale.open_between)
    at = 1000 * scale.probability
    parts = (
        (0.0, low, "#e8e8e8", scale.negative),
        (low, high, "#fff", scale.open),
        (high, 1000.0, "#969696", scale.positive),
    )
    drawn = "".join(
        f'<rect x="{start:.1f}" y="14" width="{end - start:.1f}" height="22" fill="{fill}" stroke="#111"/>'
        f'<text x="{(start + end) / 2:.1f}" y="30" text-anchor="middle">{escape(name)}</text>'
        for start, end, fill, name in parts
        if end > start
    )
    if scale.range is not None:
        start, end = (1000 * share for share in scale.range)
        drawn += f'<rect x="{start:.1f}" y="32" width="{end - start:.1f}" height="4"/>'
    label = escape(say.percent(scale.probability))
    anchor, shift = ("end", -10) if at > 500 else ("start", 10)
    return (
        f'<svg viewBox="0 0 1000 40" font-size="15" role="img" aria-label="{label}">{drawn}'
        f'<path d="M{at - 8:.1f} 2h16l-8 14z"/><rect x="{at - 1.5:.1f}" y="14" width="3" height="22"/>'
        f'<text x="{at + shift:.1f}" y="11" text-anchor="{anchor}" font-weight="bold">{label}</text></svg>'
    )


def _views(page: ResultPage) -> str:
    figures = "".join(
        _figure(page.views, view, view.pictures[row], f"{name}, {window}")
        for row, window in enumerate(page.window_names)
        for view, name in zip(page.views.views, page.view_names, strict=True)
    )
    return f'<div class="views">{figures}</div><p class="grey">{escape(page.empty_note)}</p>'


def _figure(views: KeyViews, view: KeyView, pixels: Pixels, caption: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    lines = "".join(
        f'<polygon points="{" ".join(f"{100 * x:.2f},{100 * y:.2f}" for x, y in outline)}"/>'
        for outline in view.outlines
    )
    bar = 100 * views.scale / views.side
    left, right, top, bottom = view.letters
    letters = "".join(
        f'<text x="{x}" y="{y}" text-anchor="middle">{letter}</text>'
        for letter, x, y in ((left, 3, 51.5), (right, 97, 51.5), (top, 50, 5), (bottom, 50, 98.5))
    )
    marks = f'<path d="M3 96h{bar:.2f}" stroke="#fff" stroke-width="1.2"/><text x="3" y="94">{views.scale} mm</text>'
    return (
        f'<figure><svg viewBox="0 0 100 100"><image href="{source}" width="100" height="100"/>'
        f'<g fill="none" stroke="#111" stroke-width="1">{lines}</g>'
        f'<g fill="none" stroke="#ffc400" stroke-width=".5">{lines}</g>'
        f'<g fill="#fff" stroke="#111" stroke-width=".8" paint-order="stroke" font-size="4.5" font-weight="bold">'
        f"{letters}{marks}</g></svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _descriptors(page: ResultPage) -> str:
    if not page.descriptors:
        return ""
    rows = "".join(f"<dt>{escape(one.badge)}</dt><dd>{escape(one.text)}</dd>" for one in page.descriptors)
    apart = f"<small>{escape(page.words['descriptors.apart'])}</small>"
    return f"<h2>{escape(page.words['heading.descriptors'])} {apart}</h2><dl>{rows}</dl>"


def _table(page: ResultPage) -> str:
    longest = max((abs(row.contribution) for row in page.rows), default=0.0) or 1.0
    rows = "".join(
        f"<tr><td>{escape(row.words)} <small>{escape(row.name)}</small></td>"
        f'<td class="value">{escape(row.value)} <small>{escape(row.unit)}</small></td>'
        f"<td>{_strip(row)}</td><td>{_bar(row.contribution / longest)}</td></tr>"
        for row in page.rows
    )
    negative, positive = map(escape, page.speaks_for)
    value, cohort = escape(page.words["column.value"]), escape(page.words["column.cohort"])
    note = f"<p class='grey'>{escape(page.rows_note)}</p>" if page.rows_note else ""
    return (
        f"<table><tr><th></th><th>{value}</th><th>{cohort}</th><th>{escape(page.words['column.speaks_for'])}: "
        f"← {negative} · {positive} →</th></tr>{rows}</table>{note}"
    )


def _strip(row: Row) -> str:
    if row.share is None:
        return ""
    bands = "".join(
        f'<rect x="{x}" y="3" width="{width}" height="8" fill="{fill}"/>'
        for x, width, fill in ((10, 100, "#e8e8e8"), (15, 90, "#ccc"), (35, 50, "#969696"))
    )
    if 0 <= row.share <= 1:
        mark = f'<rect x="{9 + 100 * row.share:.1f}" y="1" width="2.6" height="12" fill="#111"/>'
    else:
        mark = f'<path d="{"M9 1v12l-8-6z" if row.share < 0 else "M111 1v12l8-6z"}" fill="#8c1818"/>'
    beyond = f"<small>{escape(row.range)}</small>" if row.range else ""
    return f'<svg width="120" height="14">{bands}{mark}</svg>{beyond}'


def _bar(part: float) -> str:
    x, fill = (60.0, "#464646") if part > 0 else (60 + 58 * part, "#d6d6d6")
    return (
        f'<svg width="120" height="14"><rect x="{x:.1f}" y="2" width="{58 * abs(part):.1f}" height="10" fill="{fill}" '
        'stroke="#464646"/><path d="M60 0v14" stroke="#111"/></svg>'
    )
