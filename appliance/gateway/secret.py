"""Secrets: stored in files or environment variables, and read when they are used. Never in settings or logs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance.contract.errors import Unavailable

_LONGEST = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Secret:
    """The place of a secret: ``file:/etc/lungstage/token`` or ``env:LUNGSTAGE_TOKEN``."""

    place: str

    def read(self) -> str:
        """Return the secret without white space around it.

        Raises
        ------
        Unavailable
            It is missing or empty.
        """
        kind, _, where = self.place.partition(":")
        try:
            if kind == "env":
                text = os.environ.get(where, "")
            else:
                with Path(where).open("rb") as file:
                    text = file.read(_LONGEST).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"The secret {self.place} cannot be read ({type(error).__name__}). Check its path, and give the "
                "gateway's user the right to read it."
            ) from error
        if not text.strip():
            raise Unavailable(f"The secret {self.place} is empty or missing. Write the secret there.")
        return text.strip()


def secret_of(text: str) -> Secret:
    """Read the place of a secret; a secret itself is refused."""
    kind, colon, where = text.partition(":")
    if not colon or not where or kind not in ("file", "env") or (kind == "file" and not Path(where).is_absolute()):
        raise ValueError(
            "write where the secret is stored, not the secret itself: file:/absolute/path, or env:NAME for an"
            " environment variable"
        )
    return Secret(text)
