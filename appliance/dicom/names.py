"""Names of regions: which of them may be told to whoever may read the ledger, for a name is free text.

"GTV-1" says nothing of a person; "GTV Smith" does. Told are names that are made of the trade's own words and of numbers
of at most two digits; of others it is told how many there are. Whoever owns the data is told all of them: a one-shot
command's own output, and the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = frozenset({
    # volumes (ICRU 83, AAPM TG-263)
    "gtv", "ctv", "ptv", "itv", "igtv", "ictv", "prv", "roi", "prim", "primary", "secondary",
    "tumour", "tumor", "neoplasm", "malignant", "lesion", "mass", "nodule", "node", "nodes", "nodal", "lymph", "met",
    "mets", "metastasis", "satellite", "boost", "bed", "edema", "oedema", "necrosis", "atelectasis", "margin", "shell",
    "ring", "minus", "plus", "avoid", "avoidance", "opt", "plan", "total", "all", "contour", "contours", "segment",
    "manual", "auto", "ct", "pet", "mr", "mri", "cbct", "mip", "phase", "old", "new", "final", "copy", "draft", "test",
    # organs and sides
    "left", "right", "lt", "rt", "both", "bilateral", "upper", "middle", "lower", "lobe", "lung", "lungs",
    "heart", "spinal", "spine", "cord", "canal", "esophagus", "oesophagus", "trachea", "bronchus", "bronchi", "carina",
    "bronchial", "tree", "aorta", "vena", "cava", "vessel", "vessels", "great", "brachial", "plexus", "liver", "kidney",
    "kidneys", "stomach", "spleen", "bowel", "duodenum", "pancreas", "thyroid", "larynx", "breast", "rib", "ribs",
    "chestwall", "chest", "wall", "mediastinum", "hilum", "pericardium", "diaphragm", "sternum", "vertebra", "skin",
    "body", "external", "couch", "patient", "outline", "bone", "muscle", "fat", "artery", "pulmonary",
})  # fmt: skip
_LETTERS = frozenset("lrpntm")  # sides, and primary, node, tumour, metastasis
_LONGEST = 64
_PARTS = re.compile(r"[a-z]+|[0-9]+|[^a-z0-9]")
_SIGNS = frozenset(" _.,:;+&/()[]^~*#=-")


def may_be_told(name: str) -> bool:
    """Whether a region's name is made of nothing but known words, short numbers and signs.

    Two single letters could be somebody's initials, and three numbers a date.
    """
    if len(name) > _LONGEST:
        return False
    parts = _PARTS.findall(name.lower())
    numbers = [part for part in parts if part.isdigit()]
    letters = [part for part in parts if part in _LETTERS]
    words = [part for part in parts if part.isalpha() and part not in _LETTERS]
    signs = [part for part in parts if not part.isalnum()]
    return (
        len(numbers) <= 2
        and len(letters) <= 1
        and all(len(number) <= 2 for number in numbers)
        and all(map(_is_known, words))
        and all(sign in _SIGNS for sign in signs)
    )


def _is_known(word: str) -> bool:
    """Whether it is a word of the trade, or two of them written as one: SpinalCord, GTVp."""
    return word in _WORDS or any(
        word[:cut] in _WORDS and (word[cut:] in _WORDS or word[cut:] in _LETTERS) for cut in range(3, len(word))
    )


def the_region(name: str) -> str:
    """Begin a sentence about one region, with its name where that may be told."""
    return f"Region '{name}'" if may_be_told(name) else "The region"


def named(name: str) -> str:
    """Name a region within a sentence, likewise."""
    return f"'{name}'" if may_be_told(name) else "the region"


def listed(names: Iterable[str]) -> str:
    """List the regions there are: those whose names may be told by name, and how many there are besides."""
    every = sorted(names)
    told = [f"'{name}'" for name in every if may_be_told(name)]
    others = len(every) - len(told)
    if others:
        told.append(f"{others} whose {'name is' if others == 1 else 'names are'} not told here")
    return ", ".join(told) or "none"


def are_missing(count: int) -> str:
    """Say of a number of things that they are not there."""
    return f"{'is' if count == 1 else 'are'} missing"


def counted(count: int, what: str) -> str:
    """Write a number of things: 1 slice, 2 slices."""
    return f"{count} {what}{'' if count == 1 else 's'}"
