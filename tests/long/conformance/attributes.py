"""The attribute tables of a conformance statement (PS3.2), made from documents: module, presence and value source."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom import Dataset
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.tag import Tag

from tests.long.conformance.contexts import Kind, document

Path = tuple[str, ...]

_ELSEWHERE = {"ContentSequence"}  # the content tree has a separate table
_CODE = {"CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"}
_PRESENCE = ("rich", "bare", "single", "enhanced")
_OTHERWISE = ("other circumstances", "other endpoint")
_OTHER_SOURCES = ("other source", "bare", "enhanced")


def code(item: Dataset) -> str:
    """Write a coded entry as the standard does."""
    return f'({item.CodeValue}, {item.CodingSchemeDesignator}, "{item.CodeMeaning}")'


def flatten(dataset: Dataset, above: Path = ()) -> Iterator[tuple[Path, str | None]]:
    """Yield every element by its path, with its value as text; None for a sequence, as its items follow."""
    for element in dataset:
        path = (*above, element.keyword or str(element.tag))
        if element.VR == "SQ" and element.value and set(element.value[0].dir()) <= _CODE:
            yield path, ", ".join(map(code, element.value))
        elif element.VR == "SQ":
            yield path, None if element.value else ""
            if element.keyword not in _ELSEWHERE:
                for item in element.value:
                    yield from flatten(item, path)
        elif element.keyword == "PixelData":
            yield path, hashlib.sha256(element.value).hexdigest()
        elif element.VM > 1:
            yield path, "\\".join(map(str, element.value))
        else:
            yield path, "" if element.is_empty else str(element.value)


@cache
def values(kind: Kind, name: str) -> dict[Path, tuple[str | None, ...]]:
    """All values of each path, over all items of the sequences in the path."""
    found: dict[Path, list[str | None]] = defaultdict(list)
    for path, value in flatten(document(kind, name)):
        found[path].append(value)
    return {path: tuple(every) for path, every in found.items()}


def presence(kind: Kind, path: Path) -> str:
    """Presence as in PS3.2: ALWAYS with a value, VNAP if the value or ANAP if the attribute can be absent; EMPTY."""
    found = [values(kind, name).get(path) for name in _PRESENCE]
    every = {value for one in found for value in one or ()}
    if None in found:
        return "ANAP"
    if every == {""}:
        return "EMPTY"
    return "VNAP" if "" in every else "ALWAYS"


def source(kind: Kind, path: Path) -> str:
    """Source of a value: COPY of the CT, AUTO by the appliance, FIXED; empty if there is no value."""
    said = _said(kind, "rich", path)
    if any(_said(kind, other, path) != said for other in _OTHERWISE):
        return "AUTO"
    if any(_said(kind, other, path) - said for other in _OTHER_SOURCES):
        return "COPY"
    return "FIXED" if said else ""


def _said(kind: Kind, name: str, path: Path) -> set[str]:
    """Values of an attribute at all its places in a document."""
    return {value for value in values(kind, name).get(path, ()) if value}


def fixed_value(kind: Kind, path: Path) -> str:
    """Value of an attribute that is always the same."""
    return ", ".join(dict.fromkeys(value for value in values(kind, "rich")[path] if value))


def modules(kind: Kind) -> dict[str, str]:
    """Module of each top-level attribute by its keyword; the modules are in the order of the IOD."""
    every = get_module_attribute_map()
    owner: dict[str, str] = {}
    for module in get_iod_module_map()[get_sop_class_iod_map()[document(kind, "rich").SOPClassUID]]:
        for attribute in every[module["key"]]:
            if not attribute["path"]:
                owner.setdefault(attribute["keyword"], module["key"])
    return owner


def rows(kind: Kind, notes: Mapping[str, str]) -> list[list[str]]:
    """One line per attribute, in order of the tags; elements of a sequence are indented under it.

    Parameters
    ----------
    kind
        Kind of the document.
    notes
        Notes on values, by the keywords of the path joined with dots.
    """
    owner = modules(kind)
    paths = sorted(
        set().union(*(values(kind, name) for name in _PRESENCE)),
        key=lambda path: tuple(tag_for_keyword(keyword) or 0 for keyword in path),
    )
    lines = []
    for path in paths:
        where, note = source(kind, path), notes.get(".".join(path), "")
        value = fixed_value(kind, path) if where == "FIXED" else ""
        tag = Tag(tag_for_keyword(path[-1]) or 0)
        name = f"{'&gt;' * (len(path) - 1)}{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"
        module = owner[path[0]].replace("-", " ") if len(path) == 1 else ""
        lines.append([name, module, presence(kind, path), where, "; ".join(filter(None, (value, note)))])
    return lines


def made_up_values(kind: Kind) -> set[str]:
    """Paths with values that the appliance makes; the table needs a note on each."""
    every = set().union(*(values(kind, name) for name in _PRESENCE))
    return {".".join(path) for path in every if source(kind, path) == "AUTO"}
