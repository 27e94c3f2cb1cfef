"""Survival at a given time: besides the stage, the only endpoint with its own words and codes."""

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
        Number and unit of time; a year has 365 days.
    """

    count: int
    unit: Literal["day", "year"]

    @classmethod
    def of_days(cls, days: float) -> Horizon | None:
        """Return whole years if possible, else days; None if the number of days is not whole."""
        if days % 365 == 0:
            return cls(int(days // 365), "year")
        return cls(int(days), "day") if days % 1 == 0 else None

    @classmethod
    def of(cls, endpoint: Endpoint) -> Horizon | None:
        """Read the horizon of an endpoint; None if it is not survival in the words of :attr:`endpoint`."""
        horizon = cls.of_name(endpoint.name)
        return horizon if horizon is not None and horizon.endpoint == endpoint else None

    @classmethod
    def of_name(cls, name: str) -> Horizon | None:
        """Read the horizon from an endpoint's name."""
        found = _NAME.fullmatch(name)
        horizon = found and cls(int(found[1]), cast(Literal["day", "year"], found[2]))
        return horizon if horizon and horizon.endpoint.name == name else None

    @property
    def days(self) -> int:
        """The horizon in days."""
        return self.count * _DAYS[self.unit]

    @property
    def endpoint(self) -> Endpoint:
        """Survival beyond this time, or death within it."""
        return Endpoint(f"survival at {self}", f"survival beyond {self}", f"death within {self}")

    @property
    def code(self) -> str:
        """The horizon as part of a code value, e.g. ``2Y``."""
        return f"{self.count}{self.unit[0].upper()}"

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' * (self.count > 1)}"
