"""A drawn page, the software that drew it, and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

RgbPixels = npt.NDArray[np.uint8]
"""(rows, columns, 3)."""

_DOTS_PER_INCH: Final = 150  # an A4 page then has 1240 x 1754 pixels, about the size of a reading display


@dataclass(frozen=True, slots=True)
class Drawing:
    """A page as PDF.

    Attributes
    ----------
    pdf
        The file.
    made_with
        Drawing library with its version, and each font file with the beginning of its SHA-256.
    """

    pdf: bytes
    made_with: tuple[str, ...]


def picture_of(pdf: bytes) -> RgbPixels:
    """Draw the first page of a PDF as pixels, with PDFium."""
    import pypdfium2  # imported here: it is 8 MB, and most sites use no Secondary Capture

    document = pypdfium2.PdfDocument(pdf)
    try:
        bitmap = document[0].render(scale=_DOTS_PER_INCH / 72, rev_byteorder=True)
        return np.ascontiguousarray(bitmap.to_numpy()[..., :3])
    finally:
        document.close()
