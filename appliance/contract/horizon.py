"""Survival at a time: the one endpoint beside the stage that has words and codes of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, cast

from lungstage.appliance.contract.spec import Endpoint

_NAME: Final = re.compile(r"survival at ([1-9]\d{0,4}) (day|year)s?")
_DAYS: Final = {"day": 1, "year": 365}


@dataclass(frozen=True, slots=True)
class Horizon:
    """The time at which survival is predicted.

    Attributes
    ----------
    count, unit
        How many of what; a year has 365 days.
    """

    count: int
    unit: Literal["day", "year"]

    @classmethod
    def of_days(cls, days: float) -> Horizon | None:
        """Whole years where it is such, else days; None of a part of a day."""
        if days % 365 == 0:
            return cls(int(days // 365), "year")
        return cls(int(days), "day") if days % 1 == 0 else None

    @classmethod
    def of(cls, endpoint: Endpoint) -> Horizon | None:
        """Read the horizon off an endpoint; None where this is not survival in the words of :attr:`endpoint`."""
        horizon = cls.of_name(endpoint.name)
        return horizon if horizon is not None and horizon.endpoint == endpoint else None

    @classmethod
    def of_name(cls, name: str) -> Horizon | None:
        """Read the horizon off an endpoint's name."""
        found = _NAME.fullmatch(name)
        horizon = found and cls(int(found[1]), cast(Literal["day", "year"], found[2]))
        return horizon if horizon and horizon.endpoint.name == name else None

    @property
    def days(self) -> int:
        """In days."""
        return self.count * _DAYS[self.unit]

    @property
    def endpoint(self) -> Endpoint:
        """Survival beyond this time, or death within it."""
        return Endpoint(f"survival at {self}", f"survival beyond {self}", f"death within {self}")

    @property
    def code(self) -> str:
        """The horizon within a code value, e.g. ``2Y``."""
        return f"{self.count}{self.unit[0].upper()}"

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' * (self.count > 1)}"
