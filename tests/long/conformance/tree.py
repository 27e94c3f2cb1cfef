"""The content tree of the report as a table: all content items that occur in reports of every kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pydicom import Dataset
from pydicom.uid import UID

from lungstage.appliance.report.descriptor_items import ALGORITHM
from lungstage.appliance.report.vocabulary import CONCEPTS
from tests.long.conformance.attributes import code
from tests.long.conformance.contexts import document
from tests.support.reports import FEATURES

_REPORTS = ("rich", "bare", "single", "enhanced", "other source", "other circumstances")

Signature = tuple[str, str, str]  # relationship, value type, concept
Path = tuple[Signature, ...]

FEATURE = "each feature of the bundle (table of features)"
_FEATURES = {(concept.concept.value, concept.concept.scheme_designator) for concept in CONCEPTS.values()}


def signature(item: Dataset) -> Signature:
    """Identify a content item by its kind, not by its value; all features have the same signature."""
    names = item.get("ConceptNameCodeSequence") or ()
    name = code(names[0]) if names else ""
    children = item.get("ContentSequence") or ()
    if any(child.ValueType == "TEXT" and child.TextValue == ALGORITHM for child in children):
        name += ", of descriptors"
    if _concepts(children) & _METHOD:  # a descriptor, which gives its evidence
        name += "".join(f", {code(child.ConceptCodeSequence[0])}" for child in children if _concepts([child]) & _APART)
    elif item.ValueType == "NUM" and (names[0].CodeValue, names[0].CodingSchemeDesignator) in _FEATURES:
        name = FEATURE
    for template in item.get("ContentTemplateSequence") or ():
        name += f", TID {template.TemplateIdentifier}"
    return item.get("RelationshipType", ""), item.ValueType, name


_METHOD, _APART = {"370129005"}, {"121401", "363698007"}


def _concepts(items: Sequence[Dataset]) -> set[str]:
    return {str(item.ConceptNameCodeSequence[0].CodeValue) for item in items if item.get("ConceptNameCodeSequence")}


def said(item: Dataset) -> str:
    """The value of a content item."""
    kind = item.ValueType
    if kind == "CODE":
        return code(item.ConceptCodeSequence[0])
    if kind == "NUM":
        return f"{item.MeasuredValueSequence[0].NumericValue} {unit(item)}"
    if kind in ("IMAGE", "COMPOSITE"):
        return f"{UID(item.ReferencedSOPSequence[0].ReferencedSOPClassUID).name}: {item.ReferencedSOPSequence[0]}"
    if kind == "SCOORD":
        return f"{item.GraphicType}: {item.GraphicData}"
    keyword = {"TEXT": "TextValue", "UIDREF": "UID", "PNAME": "PersonName", "CONTAINER": "ContinuityOfContent"}[kind]
    return str(item[keyword].value)


def unit(item: Dataset) -> str:
    """The unit of a NUM."""
    return code(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])


def walk(item: Dataset, above: Path = ()) -> Iterator[tuple[Path, Dataset]]:
    """Yield every content item with the signatures of its path."""
    path = (*above, signature(item))
    yield path, item
    for child in item.get("ContentSequence") or ():
        yield from walk(child, path)


def rows(notes: Mapping[str, str]) -> list[list[str]]:
    """One line per kind of content item: depth, number below its parent, and value.

    Parameters
    ----------
    notes
        Notes on values that vary, by the code value of the concept, or by ``VALUETYPE value`` if two items of one
        concept differ.
    """
    order: dict[Path, None] = {}
    items: dict[Path, list[Dataset]] = defaultdict(list)
    counts: dict[Path, list[int]] = defaultdict(list)
    for name in _REPORTS:
        for path, item in walk(document("SR", name)):
            order[path] = None
            items[path].append(item)
    for path, found in items.items():
        for item in found:
            below = [signature(child) for child in item.get("ContentSequence") or ()]
            for one in order:
                if one[:-1] == path:
                    counts[one].append(below.count(one[-1]))
    place = {path: k for k, path in enumerate(order)}
    in_order = sorted(order, key=lambda path: tuple(place[path[: depth + 1]] for depth in range(len(path))))
    return [_row(path, items[path], counts[path], notes) for path in in_order]


def _row(path: Path, items: list[Dataset], counts: list[int], notes: Mapping[str, str]) -> list[str]:
    relationship, kind, concept = path[-1]
    return [
        f"{'&gt;' * (len(path) - 1)}{kind}",
        relationship,
        concept,
        _often(counts),
        _says(kind, concept, items, notes),
    ]


def _often(counts: list[int]) -> str:
    low, high = (min(counts), max(counts)) if counts else (1, 1)
    if high == len(FEATURES):
        return "one per input"
    return str(low) if low == high else f"{low}-{high if high == 1 else 'n'}"


def _says(kind: str, concept: str, items: list[Dataset], notes: Mapping[str, str]) -> str:
    """The value if it is always the same; otherwise the note and the unit."""
    if len(every := {said(item) for item in items}) == 1:
        return every.pop()
    key = concept.removeprefix("(").partition(",")[0]
    parts = [notes.get(f"{kind} {key}", notes.get(key, ""))]
    if kind == "NUM":
        units = {unit(item) for item in items}
        parts += units if len(units) == 1 else ["unit of the feature" if concept == FEATURE else ""]
    return "; ".join(filter(None, parts))


def varying() -> set[str]:
    """Keys of the required notes: for values that vary and are not part of the image's geometry."""
    found: dict[Path, list[Dataset]] = defaultdict(list)
    for name in _REPORTS:
        for path, item in walk(document("SR", name)):
            found[path].append(item)
    return {
        path[-1][2].removeprefix("(").partition(",")[0]
        for path, items in found.items()
        if len({said(item) for item in items}) > 1 and path[-1][0] != "HAS ACQ CONTEXT"
    }
