"""Secrets stand in files or in the environment, and are read when they are used: never in settings, never in a log."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance.contract.errors import Unavailable

_LONGEST = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is: ``file:/etc/lungstage/token`` or ``env:LUNGSTAGE_TOKEN``."""

    place: str

    def read(self) -> str:
        """Return it; white space around it is none of it.

        Raises
        ------
        Unavailable
            It is not there, or empty.
        """
        kind, _, where = self.place.partition(":")
        try:
            if kind == "env":
                text = os.environ.get(where, "")
            else:
                with Path(where).open("rb") as file:
                    text = file.read(_LONGEST).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"The secret {self.place} cannot be read ({type(error).__name__}).") from error
        if not text.strip():
            raise Unavailable(f"The secret {self.place} is empty or not there.")
        return text.strip()


def secret_of(text: str) -> Secret:
    """Read where a secret is; one that stands there itself is refused."""
    kind, colon, where = text.partition(":")
    if not colon or not where or kind not in ("file", "env") or (kind == "file" and not Path(where).is_absolute()):
        raise ValueError(
            "a secret is named, not written here: file:/absolute/path, or env:NAME for a variable of the environment"
        )
    return Secret(text)
