"""A study that is still being sent: the mark by which whoever receives it says so to the daemon.

A mark is a small file in a folder of the inbox that the daemon does not look into for studies. It names the folder that
the study's files are put into, and is renewed as long as an association is open. It means nothing once it is old or was
written before the machine was started anew, so a receiver that was killed keeps no study waiting. Ages are told by a
clock that nobody sets.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

FOLDER: Final = ".arriving"
"""In the inbox, where marks lie, and files that are not whole yet."""

SUFFIX: Final = ".mark"
"""Of a mark's name."""

RENEWED_SECONDS: Final = 5.0
"""How often a mark is renewed."""

VOID_SECONDS: Final = 30.0
"""Age from which on a mark means nothing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says.

    Attributes
    ----------
    folder
        Name of the folder of the inbox that files are being put into.
    boot
        Of the machine, when the mark was written.
    at
        When, in seconds since that boot.
    """

    folder: str
    boot: str
    at: float

    def holds(self, boot: str, now: float) -> bool:
        """Whether it still means something, in this boot and so many seconds after it."""
        return self.boot == boot and 0.0 <= now - self.at <= VOID_SECONDS

    def as_text(self) -> str:
        """Write it down."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """Read one; None where it is none."""
        try:
            said = json.loads(text)
            folder, boot, at = said["folder"], said["boot"], said["at"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return None
        is_name = isinstance(folder, str) and folder not in ("", ".", "..") and "/" not in folder
        if not (is_name and isinstance(boot, str) and isinstance(at, int | float)):
            return None
        return cls(folder, boot, float(at))
