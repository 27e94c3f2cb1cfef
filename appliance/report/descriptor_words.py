"""Descriptors in the reader's language, by level of evidence: values with units, and why a value is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from lungstage.appliance.descriptors.definitions import Worth
from lungstage.appliance.descriptors.values import Descriptor, Descriptors
from lungstage.appliance.report import former
from lungstage.appliance.report.translation import Translator

SENTENCES: Final = (
    "small", "one_slice_extent", "one_slice", "parts_axes", "parts", "thick_extent", "thick", "at_edge", "air",
    "bone_left", "bone", "no_edge", "off_edge", "of_solid", "near", "if_solid", "by_3d", "cavity", "contrast",
    "contrast_unknown", "some_edge", "not_part_solid", "ground_glass", "solid_too_small", "no_tissue", "no_fall",
    "little_around",
)  # fmt: skip
"""Codes of the sentences beside a value. A longer sentence stands before a shorter one that it begins with."""

_WORTHS: Final = MappingProxyType(
    {Worth.EXACT: "badge.exact", Worth.READERS: "badge.readers", Worth.COMPUTED: "badge.computed"}
)
_UNITS: Final = MappingProxyType({"[hnsf'U]": "HU", "[hnsf'U]/mm": "HU/mm", "mm": "mm"})
_ALWAYS_ALONE: Final = "components"  # a sentence says so if there are several


@dataclass(frozen=True, slots=True)
class Described:
    """The descriptors of one level of evidence.

    Attributes
    ----------
    badge
        Level of evidence.
    items
        Each descriptor with its value, and its word if it has one.
    remarks
        Sentences: what to keep in mind about a value, and why one is missing.
    """

    badge: str
    items: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it in one paragraph."""
        return " ".join((f"{' · '.join(self.items)}.", *self.remarks))


def described(found: Descriptors | None, say: Translator) -> tuple[Described, ...]:
    """Describe a tumour by level of evidence; empty if no descriptors were computed."""
    if found is None:
        return ()
    told: set[str] = set()
    return tuple(_described(found, worth, told, say) for worth in _WORTHS)


def _described(found: Descriptors, worth: Worth, told: set[str], say: Translator) -> Described:
    """Describe one level of evidence. A sentence in `told` was shown already and is left out."""
    those = [one for one in found.found if one.definition.worth is worth and _is_told(one)]
    remarks = []
    if worth is Worth.READERS and found.unfit:
        remarks = [say("descriptors.no_words"), *(in_words(sentence, say) for sentence in found.unfit)]
    sentences = dict.fromkeys(sentence for one in those for sentence in _remarks(one))
    remarks += [in_words(sentence, say) for sentence in sentences if sentence not in told]
    told |= sentences.keys()
    return Described(say(_WORTHS[worth]), tuple(_item(one, say) for one in those), tuple(remarks))


def _is_told(one: Descriptor) -> bool:
    """Whether the page shows a descriptor: not the number of parts, and not a solid part that was not measured."""
    if one.definition.name == _ALWAYS_ALONE:
        return False
    return one.definition.name != "solid_long_axis_mm" or one.value is not None


def _remarks(one: Descriptor) -> Iterator[str]:
    if one.reason and one.value is None:
        yield one.reason
    yield from one.caveats


def _item(one: Descriptor, say: Translator) -> str:
    title = say(f"descriptor.{one.definition.name}")
    if one.value is None:
        return say("descriptors.unsaid", title=title)
    value = in_unit(one, say)
    if one.agreement is None:
        return say("descriptors.item", title=title, value=value)
    auroc = f"{one.agreement.auroc:.2f}".replace(".", say("number.decimal_mark"))
    word = say("descriptors.no_word") if one.word is None else say(f"descriptor_word.{word_code(one.word)}")
    values = {"title": title, "word": word, "value": value, "auroc": auroc, "lesions": one.agreement.lesions}
    if one.percentile is None:
        return say("descriptors.rated", **values)
    return say("descriptors.rated_more", **values, percentile=one.percentile)


def word_code(word: str) -> str:
    """Return the code of a word in the catalogues."""
    return re.sub(r"\W", "_", word)


def in_unit(one: Descriptor, say: Translator) -> str:
    """Write a value as radiologists do: mm to one decimal, volumes in cm³, shares in %."""
    value, definition = one.value, one.definition
    if not isinstance(value, float):
        return str(value)
    if definition.name.endswith("_share"):
        return say.percent(value)
    if definition.unit == "mm3":
        return f"{say.number(value / 1000)} cm³"
    if definition.unit == "mm":
        written = f"{value:.1f}"
    elif definition.unit in _UNITS:
        written = f"{value:.0f}"
    else:
        return say.number(value, 2)
    return f"{written.replace('.', say('number.decimal_mark')).replace('-', '−')} {_UNITS[definition.unit]}"


def in_words(sentence: str, say: Translator) -> str:
    """Say a sentence of :mod:`descriptors.describe` in the reader's language; as it is where it is not known."""
    for code, pattern in (*_patterns().items(), *_former_patterns()):
        if found := pattern.fullmatch(sentence):
            mark = say("number.decimal_mark")
            return say(f"minded.{code}", **{name: text.replace(".", mark) for name, text in found.groupdict().items()})
    return sentence


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {code: _pattern(Translator("en").template(f"minded.{code}")) for code in SENTENCES}


@cache
def _former_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((code, _pattern(template)) for code, template in former.REMARKS)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{part}>[^,;()]+?)" if k % 2 else re.escape(part) for k, part in enumerate(parts)))
