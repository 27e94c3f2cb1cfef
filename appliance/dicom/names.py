"""Names of regions in messages. A name is free text, so some names must not appear in ledger and logs.

"GTV-1" does not identify a person; "GTV Smith" does. A message shows names that contain only usual words of
radiotherapy and radiology and numbers of at most two digits. It counts the others. The output of one-shot commands and
the report show all names, because they go to the owner of the data.
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
    """Whether a region's name may be shown: it contains only known words, short numbers and signs.

    Two single letters could be a person's initials, and three numbers a date.
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
    """Whether it is a known word, or two known words written together: SpinalCord, GTVp."""
    return word in _WORDS or any(
        word[:cut] in _WORDS and (word[cut:] in _WORDS or word[cut:] in _LETTERS) for cut in range(3, len(word))
    )


def the_region(name: str) -> str:
    """Subject of a sentence about one region, with its name if that may be shown."""
    return f"Region '{name}'" if may_be_told(name) else "The region"


def named(name: str) -> str:
    """Name of a region within a sentence, if it may be shown."""
    return f"'{name}'" if may_be_told(name) else "the region"


def listed(names: Iterable[str]) -> str:
    """List regions: the names that may be shown, and the number of the others."""
    every = sorted(names)
    shown = [f"'{name}'" for name in every if may_be_told(name)]
    others = len(every) - len(shown)
    if others:
        shown.append(f"{counted(others, 'region')} ({'name' if others == 1 else 'names'} hidden for privacy)")
    return ", ".join(shown) or "none"


def are_missing(count: int) -> str:
    """Predicate for a number of missing things: is missing, are missing."""
    return f"{'is' if count == 1 else 'are'} missing"


def counted(count: int, what: str) -> str:
    """Write a number of things with the noun in singular or plural: 1 slice, 2 slices."""
    return f"{count} {what}{'' if count == 1 else 's'}"
