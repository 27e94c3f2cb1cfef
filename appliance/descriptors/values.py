"""What was found of a tumour, as frozen values, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lungstage.appliance.descriptors.calibration import Agreement
from lungstage.appliance.descriptors.definitions import DEFINITIONS, Definition

Value = float | int | str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor of one tumour.

    Attributes
    ----------
    definition
        What it is.
    value
        None where it cannot be said.
    word
        What a reader would say; None where there is no word, or none can be said.
    percentile
        How many per cent of LIDC's lesions have less; None where that is not known.
    badge
        What its value is worth; always shown with it.
    reason
        Why value or word cannot be said, in plain words; None where all is said.
    caveats
        What to mind of the value, in plain sentences.
    agreement
        How well it agrees with readers; None where it is not held against them.
    """

    definition: Definition
    value: Value | None
    word: str | None
    percentile: int | None
    badge: str
    reason: str | None
    caveats: tuple[str, ...]
    agreement: Agreement | None = None


@dataclass(frozen=True, slots=True)
class Descriptors:
    """All that was found of a tumour.

    Attributes
    ----------
    found
        In the order of the definitions.
    unfit
        Why the outline bears no words, in plain words; empty where it does.
    source
        What percentiles, words and agreement come from.
    """

    found: tuple[Descriptor, ...]
    unfit: tuple[str, ...]
    source: str

    def __getitem__(self, name: str) -> Descriptor:
        """Return the descriptor of a name.

        Raises
        ------
        KeyError
            There is none.
        """
        for one in self.found:
            if one.definition.name == name:
                return one
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for JSON.

        Returns
        -------
        dict
            The value of each descriptor by its name, null where it cannot be said; then ``words``, ``percentiles``,
            ``badges``, ``agreement``, ``reasons`` and ``caveats`` by the names that have one, ``outline_unfit`` and
            ``source``.
        """
        return {
            **{one.definition.name: one.value for one in self.found},
            "words": {one.definition.name: one.word for one in self.found if one.definition.words},
            "percentiles": {one.definition.name: one.percentile for one in self.found if one.percentile is not None},
            "badges": {one.definition.name: one.badge for one in self.found},
            "agreement": {one.definition.name: asdict(one.agreement) for one in self.found if one.agreement},
            "reasons": {one.definition.name: one.reason for one in self.found if one.reason},
            "caveats": {one.definition.name: list(one.caveats) for one in self.found if one.caveats},
            "outline_unfit": list(self.unfit),
            "source": self.source,
        }

    @classmethod
    def of_json(cls, record: Mapping[str, Any]) -> Descriptors:
        """Read what :meth:`as_json` wrote; a descriptor that another release knew is left out."""
        found = []
        for definition in DEFINITIONS:
            name = definition.name
            if name not in record:
                continue
            agreement = record["agreement"].get(name)
            found.append(
                Descriptor(
                    definition,
                    record[name],
                    record["words"].get(name),
                    record["percentiles"].get(name),
                    record["badges"][name],
                    record["reasons"].get(name),
                    tuple(record["caveats"].get(name, ())),
                    None if agreement is None else Agreement(**agreement),
                )
            )
        return cls(tuple(found), tuple(record["outline_unfit"]), record["source"])
