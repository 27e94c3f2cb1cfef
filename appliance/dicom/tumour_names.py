"""Interpretation of a region's name by whole words: whether it means the primary tumour.

All words of a name count. A name is accepted only if all of its words are known. One excluding word (a node, an organ,
a margin, "old", "not") takes precedence over all others. An unknown word leaves the name open, and a person is asked.
docs/regions.md explains the rule with examples.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

# Words that the name of a primary tumour may contain.
_NOUNS = frozenset({"tumor", "tumour", "neoplasm", "lesion", "nodule", "mass"})
_SIDES = frozenset({"l", "r", "lt", "rt", "left", "right"})
_PRIMARY = frozenset({"p", "prim", "primary"})
_BESIDE = """
    gtv t gross malignant volume vol roi contour manual ct cect
    lung pulmonary lobe upper middle lower lul lll rul rml rll lingula
"""
_KNOWN = frozenset({*_BESIDE.split(), *_NOUNS, *_SIDES, *_PRIMARY})

# Excluding words: a single one means that the region is something else.
_NODES = """
    n ln lns lnn nd nds node nodes nodal lymph lymphnode lymphnodes lymphatic ganglion ganglia adenopathy
    lymphadenopathy station hilar hilum hilus hila mediastinal mediastinum paratracheal subcarinal infracarinal
    supraclav supraclavicular infraclavicular scv sclav scf axilla axillary pn np tn nt ptn
"""
_SEVERAL = "all sum total tot combined combination comb combo union merged both composite boolean bool plus and und et"
_WITHDRAWN = """
    rejected reject old older former previous prev prior not no non none never dont donot dnu unused delete deleted del
    ignore ignored discard discarded obsolete outdated wrong invalid incorrect bad error draft tmp temp temporary test
    dummy trash archive archived backup bak copy unapproved
"""
_NO_TUMOUR = """
    benign free without wo negative neg exclude excluded excluding hamartoma granuloma cyst scar fibrosis normal healthy
    resected postop
"""
_MADE_OF_IT = """
    ctv ptv itv igtv ictv iptv prv treated ring rings shell margin margins expansion expanded exp minus less sub
    subtract avoid avoidance oar opt optim boost bed cavity edema oedema necrosis necrotic atelectasis effusion halo rim
    mm cm mip
"""
_ELSEWHERE = """
    m met mets metastasis metastases metastatic secondary secondaries satellite satellites thyroid adrenal adrenals
    brain cerebral cerebellum cerebellar skull liver hepatic kidney kidneys renal spleen pancreas pancreatic stomach
    gastric bowel colon rectum rectal bladder prostate uterus ovary breast breasts mamma mammary parotid masseter tongue
    larynx pharynx neck thymus thymic pleura pleural pericardium pericardial heart cardiac aorta aortic trachea tracheal
    carina esophagus esophageal oesophagus oesophageal spine spinal cord canal vertebra vertebral vertebrae sacrum bone
    bones rib ribs sternum scapula humerus femur pelvis pelvic iliac acetabulum chestwall wall skin muscle abdomen
    abdominal retroperitoneal eye orbit optic nerve plexus body external couch artery vein vessel vessels diaphragm
"""
_OTHERWISE = frozenset(" ".join((_NODES, _SEVERAL, _WITHDRAWN, _NO_TUMOUR, _MADE_OF_IT, _ELSEWHERE)).split())

_NEVER = frozenset(
    {
        "CTV", "PTV", "ITV", "TREATED_VOLUME", "IRRAD_VOLUME", "BOLUS", "EXTERNAL", "SUPPORT", "FIXATION", "MARKER",
        "REGISTRATION", "ISOCENTER", "CONTRAST_AGENT", "CAVITY", "BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP",
        "BRACHY_CHNL_SHLD", "DOSE_REGION", "CONTROL", "DOSE_MEASUREMENT",
    }
)  # fmt: skip
_SILENT = frozenset({"", "GTV", "NONE", "UNDEFINED", "UNKNOWN"})  # types that do not exclude a tumour
_JOINING = frozenset(" _-.,:()[]/^")  # signs that separate words and have no meaning
_TOGETHER = frozenset("+&")

_BEFORE_A_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])(?!GTV)")  # iGTV differs from GTV
_BEHIND_GTV = re.compile(r"(?i)(?<![a-z])(gtv)(?=[a-z])")
_PARTS = re.compile(r"[^\W\d_]+|\d+|[\W_]")


class Reading(StrEnum):
    """The meaning of a name."""

    PRIMARY = "primary"
    """It may be the primary tumour."""
    OPEN = "open"
    """It means a tumour, but does not clearly mean the primary one."""
    OTHER = "other"
    """It does not mean a tumour, or it excludes the primary tumour."""


def plain(name: str) -> str:
    """Normalise the blanks, hyphens and letters of a name, which depend on font and keyboard."""
    folded = unicodedata.normalize("NFKC", name)
    signs = {"Pd": "-", "Zs": " ", "Cf": "", "Cc": " "}
    return " ".join("".join(signs.get(unicodedata.category(sign), sign) for sign in folded).split())


def _words(name: str) -> list[str]:
    """Split a name into words, numbers and signs, also before a capital after a small letter, and after "GTV"."""
    return _PARTS.findall(_BEHIND_GTV.sub(r"\1 ", _BEFORE_A_CAPITAL.sub(" ", plain(name))).lower())


def _value(number: str) -> int:
    return int(number[:18])  # Python converts no number of thousands of digits


def speaks_against(name: str) -> bool:
    """Whether a word or sign of the name excludes the primary tumour."""
    parts = _words(name)
    words = [part for part in parts if part not in _JOINING]
    return bool(
        _OTHERWISE & {*words}
        or _TOGETHER & {*words}
        or _names_station(parts)
        or _is_numbered_node(words)
        or _is_lung_less_something(parts)
    )


def _names_station(parts: Sequence[str]) -> bool:
    """Whether it names a nodal station, such as "4R" or "10L"."""
    return any(
        number.isdecimal() and 2 <= _value(number) <= 14 and side in ("l", "r") for number, side in pairwise(parts)
    )


def _is_numbered_node(words: Sequence[str]) -> bool:
    """Whether it is GTV-2 or a higher number: in NSCLC-Radiomics and many other data sets, GTV-1 is the primary."""
    return words[:1] == ["gtv"] and len(words) > 1 and words[1].isdecimal() and _value(words[1]) > 1


def _is_lung_less_something(parts: Sequence[str]) -> bool:
    """Whether it is the lung without the tumour, such as "Lungs-GTV" or "Lung L - tumour"."""
    if "-" not in parts:
        return False
    before = parts[: parts.index("-")]
    return bool({"lung", "lungs"} & {*before}) and not ({"gtv"} | _NOUNS) & {*before}


def names_gtv(name: str) -> bool:
    """Whether it explicitly names a gross tumour volume of any kind: GTV-1, GTVn, gross tumour volume."""
    words = [part for part in _words(name) if part not in _JOINING]
    return words[:1] == ["gtv"] or (words[:1] == ["gross"] and bool(_NOUNS & {*words[1:2]}))


def reading(name: str, interpreted_types: Sequence[str] = ()) -> Reading:
    """Interpret a name together with the RT ROI Interpreted Types of the region.

    Parameters
    ----------
    name
        ROI Name or Segment Label.
    interpreted_types
        In capitals; several if the region has several observations. Planning systems often set types of organs and of
        structures to avoid for tumours too, so an explicit GTV in the name takes precedence over them.
    """
    types = {*interpreted_types}
    if types & _NEVER or (types - _SILENT and not names_gtv(name)) or speaks_against(name):
        return Reading.OTHER
    parts = _words(name)
    words = [part for part in parts if part not in _JOINING]
    named = {word for word in words if not word.isdecimal()}
    if not ({"gtv", "primary"} | _NOUNS | {f"{noun}s" for noun in _NOUNS} | {"masses"}) & named:
        return Reading.OTHER
    is_plain = named <= _KNOWN and _is_plainly_numbered(words) and not _may_be_difference(parts)
    return Reading.PRIMARY if is_plain else Reading.OPEN


def _is_plainly_numbered(words: Sequence[str]) -> bool:
    """Whether its number, if any, is 1 or counts primaries (GTVp2).

    After another letter, a number has another meaning: T10 and L3 are vertebrae, T50 is a phase of breathing.
    """
    places = [place for place, word in enumerate(words) if word.isdecimal()]
    if not places:
        return True
    place = places[0]
    number, before = _value(words[place]), words[place - 1] if place else ""
    if len(places) > 1 or before in _SIDES or words[place + 1 : place + 2] in (["l"], ["r"]):
        return False
    return number == 1 or (before in _PRIMARY and 1 <= number <= 9)


def _may_be_difference(parts: Sequence[str]) -> bool:
    """Whether the order of lung and tumour can mean a subtraction: "GTV-Lung", "Lung GTV"."""
    lung, gtv = (parts.index(word) if word in parts else len(parts) for word in ("lung", "gtv"))
    tumour = min([gtv, *(k for k, part in enumerate(parts) if part in _NOUNS)])
    return (lung < gtv < len(parts)) or (tumour < lung < len(parts) and "-" in parts[tumour:lung])
