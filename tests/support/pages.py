"""Data for tests of the result page: a generated volume and cohort for a generated report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pypdfium2
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from pydicom import Dataset

from lungstage.appliance.report.result_page import PageContext
from tests.support.reports import generated_sources, made_up_context


def affine_of(source: Dataset, step: float = 2.5) -> npt.NDArray[np.float64]:
    """Return the affine from (slice, row, column) to millimetres, for slices after `source`."""
    orientation = np.array(source.ImageOrientationPatient, dtype=float)
    affine = np.eye(4)
    affine[:3, 0] = np.cross(orientation[:3], orientation[3:]) * step
    affine[:3, 1] = orientation[3:] * float(source.PixelSpacing[0])
    affine[:3, 2] = orientation[:3] * float(source.PixelSpacing[1])
    affine[:3, 3] = np.array(source.ImagePositionPatient, dtype=float)
    return affine


def page_context(sources: tuple[Dataset, ...] | None = None, **changes: Any) -> PageContext:
    """A page about the report of :func:`support.reports.made_up_context`, with these changes."""
    sources = generated_sources() if sources is None else sources
    report = made_up_context(sources, **changes)
    hu = np.where(report.mask, 40, -850).astype(np.int16)
    return PageContext(report, hu, affine_of(sources[0]))


def text_of(pdf: bytes) -> str:
    """Return the text that a reader can copy from a PDF of one page, in one line."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        assert len(document) == 1, "the PDF must have one page"
        return " ".join(document[0].get_textpage().get_text_range().replace("\u00a0", " ").split())
    finally:
        document.close()


def pixels_of(pdf: bytes, scale: float = 1.0) -> npt.NDArray[np.uint8]:
    """A PDF's only page in grey levels."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        drawn = np.asarray(document[0].render(scale=scale, grayscale=True).to_numpy())
        return drawn if drawn.ndim == 2 else drawn[..., 0]
    finally:
        document.close()


def pdf_in(content: bytes) -> bytes:
    """The PDF in an Encapsulated PDF."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    return bytes(dataset.EncapsulatedDocument)[: dataset.EncapsulatedDocumentLength]


def font_with(characters: str, path: Path) -> Path:
    """Write a font in which each of these characters is a black square, and with no other characters."""
    pen = TTGlyphPen(None)
    for point in ((100, 0), (900, 0), (900, 800), (100, 800)):
        (pen.moveTo if point == (100, 0) else pen.lineTo)(point)
    pen.closePath()
    square = pen.glyph()
    names = [f"u{ord(character):04X}" for character in characters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(character): name for character, name in zip(characters, names, strict=True)})
    builder.setupGlyf(dict.fromkeys((".notdef", *names), square))
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *names), (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return path
