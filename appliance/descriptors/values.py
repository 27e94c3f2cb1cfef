"""The descriptors of a tumour as frozen values, and as JSON."""

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
        Its definition.
    value
        None if it cannot be computed.
    word
        The word that a reader would use; None if there is no word, or if none can be given.
    percentile
        Percentage of LIDC's lesions with a smaller value; None if not known.
    badge
        What is known of the value's validity; always shown with it.
    reason
        Why value or word is missing, in plain words; None if nothing is missing.
    caveats
        What to consider about the value, in plain sentences.
    agreement
        Agreement with readers; None if it was not compared with them.
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
    """All descriptors of a tumour.

    Attributes
    ----------
    found
        In the order of the definitions.
    unfit
        Why no words are given for the outline, in plain words; empty if they are given.
    source
        The data behind percentiles, words and agreement.
    """

    found: tuple[Descriptor, ...]
    unfit: tuple[str, ...]
    source: str

    def __getitem__(self, name: str) -> Descriptor:
        """Return the descriptor with a name.

        Raises
        ------
        KeyError
            There is no such descriptor.
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
            The value of each descriptor by its name, null if it cannot be computed; then ``words``, ``percentiles``,
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
        """Read the output of :meth:`as_json`; unknown descriptors of other releases are left out."""
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
