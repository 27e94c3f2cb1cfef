"""Endpoint: two classes read from a column, or an event within a horizon read from survival columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint
from lungstage.appliance.model.manifest import EndpointEntry
from lungstage.training.cohorts.table import Table, is_missing, refuse

MAX_UNCLASSIFIED: Final = 0.1
"""Largest share of rows censored before the horizon without a warning."""

_EARLY: Final = frozenset({"I", "IA", "IA1", "IA2", "IA3", "IB", "II", "IIA", "IIB"})
_ADVANCED: Final = frozenset({"III", "IIIA", "IIIB", "IIIC"})
"""Stages of TNM's 7th and 8th edition. IV is in neither group: no model here has seen it. 0 is not invasive."""

Word = Annotated[str, Field(min_length=1)]


class Target(BaseModel):
    """Column of a feature table that is predicted, and how its cells become two classes."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    target: Word = Field(
        default="stage",
        description="Column that is predicted. With `horizon_days`: the days until event or last follow-up.",
    )
    positive: Word | None = Field(
        default=None,
        description="Value whose probability the model states. With `horizon_days`: only the name of that class.",
    )
    negative: Word | None = Field(
        default=None,
        description="Value of the other class. Default: the other value, if the column has exactly two. With "
        "`horizon_days`: only a name.",
    )
    name: Word | None = Field(
        default=None,
        description="Name of the endpoint. Default: the column's name; with `horizon_days`, made from event and days.",
    )
    horizon_days: float | None = Field(
        default=None, gt=0, le=36525, description="Predict whether the event occurs within this many days."
    )
    event: Word | None = Field(
        default=None,
        description="Column that says whether the event was observed (1, True) or the row is censored (0, False).",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.horizon_days is None) != (self.event is None):
            raise ValueError("horizon_days and event belong together: give both or neither")
        if self.event is None and self.positive is None and not self.is_stage_group:
            raise ValueError(
                f"positive is missing: name the value of {self.target!r} that is the positive class. For a column of "
                f"stages from I to IIIC give {STAGE_GROUP.positive!r}"
            )
        if self.positive is not None and self.positive == self.negative:
            raise ValueError("positive and negative must differ")
        if self.event == self.target:
            raise ValueError("event and target must be two columns")
        return self

    @property
    def is_stage_group(self) -> bool:
        """Whether the default endpoint is predicted: stage, early or advanced."""
        return self.target == STAGE_GROUP.name and self.event is None and self.positive in (None, STAGE_GROUP.positive)

    @property
    def is_of_stages(self) -> bool:
        """Whether a column of stages from I to IIIC can be read as its classes: early or advanced."""
        return self.event is None and (self.positive, self.negative) in (
            (None, None), (STAGE_GROUP.positive, None), (STAGE_GROUP.positive, STAGE_GROUP.negative),
        )  # fmt: skip

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that the classes come from."""
        return (self.target,) if self.event is None else (self.target, self.event)

    @property
    def derived_name(self) -> str:
        """Name of the endpoint if none is given."""
        if self.event is None:
            return self.target
        return self._event_within if self.survival is None else self.survival.endpoint.name

    def is_called(self, name: str) -> bool:
        """Whether a model with this endpoint name predicts it.

        Earlier releases called survival "death within N days".
        """
        return name == self.derived_name or (self.event is not None and name == self._event_within)

    @property
    def survival(self) -> Horizon | None:
        """Horizon of survival; None if the event is not death or the horizon is not a whole number of days."""
        assert self.event is None or self.horizon_days is not None
        is_death = self.event is not None and self._event_word == "death"
        return Horizon.of_days(self.horizon_days or 0.0) if is_death else None

    @property
    def _event_within(self) -> str:
        return f"{self._event_word} within {self.horizon_days:g} days"

    @property
    def _event_word(self) -> str:
        return (self.event or "").removesuffix("_observed").replace("_", " ")


STAGE: Final = Target()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The classes of the rows of a table.

    Attributes
    ----------
    labels
        (n,) bool, True for the positive class; False where `unclassified`.
    unclassified
        (n,) bool, rows whose class is not known.
    endpoint
        Names of the two classes.
    reason
        Why a row is unclassified; None for an endpoint without censoring.
    days, observed
        (n,) days until event or last follow-up, and whether the event was observed; None without a horizon.
    """

    labels: npt.NDArray[np.bool_]
    unclassified: npt.NDArray[np.bool_]
    endpoint: Endpoint
    reason: str | None
    days: npt.NDArray[np.float64] | None = None
    observed: npt.NDArray[np.bool_] | None = None


def read_outcome(table: Table, target: Target) -> Outcome:
    """Read the class of each row.

    Raises
    ------
    Refused
        ``table_invalid``: a column is missing (the message names the nearest one), or a value is neither class (the
        message names column, line and patient).
    """
    return _binary(table, target) if target.event is None else _survival(table, target)


def _binary(table: Table, target: Target) -> Outcome:
    cells = table.column(target.target)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            table.refuse(target.target, row, "the outcome is missing; remove rows without an outcome from the table")
    if target.is_of_stages and not {*cells} & {STAGE_GROUP.negative, STAGE_GROUP.positive}:
        stages = [_stage_of(cell) for cell in cells]
        if _EARLY.union(_ADVANCED).intersection(stages):
            return _staged(table, target, stages)
    positive, negative = target.positive or STAGE_GROUP.positive, target.negative
    if negative is None:
        negative = STAGE_GROUP.negative if target.is_stage_group else _other_value(table, target.target, positive)
    for row, cell in enumerate(cells):
        if cell not in (negative, positive):
            table.refuse(target.target, row, f"{cell!r} is neither {negative} nor {positive}")
    labels = np.array([cell == positive for cell in cells], dtype=np.bool_)
    endpoint = _endpoint(target.name or target.derived_name, negative, positive)
    return Outcome(labels, np.zeros(len(cells), dtype=np.bool_), endpoint, None)


def _stage_of(cell: str) -> str:
    """Return a stage in capitals, without blanks and the word "stage": "Stage iiia" gives "IIIA"."""
    return cell.upper().removeprefix("STAGE").strip()


def _staged(table: Table, target: Target, stages: Sequence[str]) -> Outcome:
    """Read stages from I to IIIC: I and II are early, III is advanced."""
    for row, stage in enumerate(stages):
        if stage not in _EARLY | _ADVANCED:
            cell = table.columns[target.target][row]
            table.refuse(target.target, row, f"{cell!r} is no stage from I to IIIC; remove such rows from the table")
    labels = np.array([stage in _ADVANCED for stage in stages], dtype=np.bool_)
    endpoint = _endpoint(target.name or STAGE_GROUP.name, STAGE_GROUP.negative, STAGE_GROUP.positive)
    return Outcome(labels, np.zeros(len(stages), dtype=np.bool_), endpoint, None)


def _endpoint(name: str, negative: str, positive: str) -> Endpoint:
    """Return the endpoint, if a bundle's manifest and a report can hold its names."""
    try:
        return EndpointEntry(name=name, negative=negative, positive=positive).endpoint
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'endpoint'}: {e['msg']}" for e in error.errors())
        refuse(
            f"Endpoint {name!r} with the classes {negative!r} and {positive!r} cannot be written in a report: "
            f"{problems}. Choose other names (options name, positive, negative)."
        )


def _other_value(table: Table, column: str, positive: str) -> str:
    """Return the only value of the column other than `positive`."""
    values = list(dict.fromkeys(table.columns[column]))
    others = [value for value in values if value != positive]
    if len(others) == len(values):
        shown = ", ".join(map(repr, values[:5])) + (" ..." if len(values) > 5 else "")
        refuse(f"Column {column} never contains {positive!r}. Its values are: {shown}. Give one of them as positive.")
    if not others:
        refuse(f"Column {column} contains {positive!r} in every row; a model needs two classes.")
    if len(others) > 1:
        row = table.columns[column].index(others[1])
        why = f"{others[1]!r} is a third value after {positive!r} and {others[0]!r}; a column must have two"
        table.refuse(column, row, why)
    return others[0]


def _survival(table: Table, target: Target) -> Outcome:
    """Read whether the event occurred within the horizon.

    Notes
    -----
    Positive are patients with the event by the horizon. Negative are patients seen without it at the horizon or later.
    Patients lost to follow-up before the horizon are neither. Nothing is trained on them; in metrics the others are
    weighted for them (:mod:`training.cohorts.survival`).
    """
    assert target.event is not None
    assert target.horizon_days is not None
    days, event = table.numbers(target.target), table.flags(target.event)
    for row in np.flatnonzero(~(days >= 0)):
        table.refuse(
            target.target, int(row),
            "the days until event or last follow-up are missing or negative; give them, or remove the row",
        )  # fmt: skip
    horizon, survival = f"{target.horizon_days:g}", target.survival
    negative, positive = ("no", "yes") if survival is None else (survival.endpoint.negative, survival.endpoint.positive)
    return Outcome(
        labels=event & (days <= target.horizon_days),
        unclassified=~event & (days < target.horizon_days),
        endpoint=_endpoint(
            target.name or target.derived_name, target.negative or negative, target.positive or positive
        ),
        reason=f"censored before day {horizon}",
        days=days,
        observed=event,
    )
