"""What was found of a tumour, as frozen values, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lungstage.appliance.descriptors.calibration import Agreement
from lungstage.appliance.descriptors.definitions import Definition

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
            ``badges``, ``reasons`` and ``caveats`` by the names that have one, ``outline_unfit`` and ``source``.
        """
        return {
            **{one.definition.name: one.value for one in self.found},
            "words": {one.definition.name: one.word for one in self.found if one.definition.words},
            "percentiles": {one.definition.name: one.percentile for one in self.found if one.percentile is not None},
            "badges": {one.definition.name: one.badge for one in self.found},
            "reasons": {one.definition.name: one.reason for one in self.found if one.reason},
            "caveats": {one.definition.name: list(one.caveats) for one in self.found if one.caveats},
            "outline_unfit": list(self.unfit),
            "source": self.source,
        }
