"""Marks of studies that are still being received. The receiver writes them, and the daemon reads them.

A mark is a small file in one folder of the inbox. The daemon does not search this folder for studies. The mark names
the folder that receives the study's files, and is renewed as long as an association is open. A mark is no longer valid
if it is old, or if it was written before the machine was last started. So a receiver that was killed does not make a
study wait. Ages are measured by a clock that cannot be set.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

FOLDER: Final = ".arriving"
"""Folder in the inbox for marks and for files that are not complete yet."""

SUFFIX: Final = ".mark"
"""Suffix of a mark's file name."""

RENEWED_SECONDS: Final = 5.0
"""Interval at which a mark is renewed."""

VOID_SECONDS: Final = 30.0
"""Age from which a mark is no longer valid."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The content of a mark.

    Attributes
    ----------
    folder
        Name of the folder of the inbox that receives the files.
    boot
        Identifier of the machine's boot during which the mark was written.
    at
        Time of writing, in seconds since that boot.
    """

    folder: str
    boot: str
    at: float

    def holds(self, boot: str, now: float) -> bool:
        """Whether the mark is still valid in this boot, `now` seconds after the boot."""
        return self.boot == boot and 0.0 <= now - self.at <= VOID_SECONDS

    def as_text(self) -> str:
        """Return the mark as text."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """Read a mark; None if the text is not a mark."""
        try:
            said = json.loads(text)
            folder, boot, at = said["folder"], said["boot"], said["at"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return None
        is_name = isinstance(folder, str) and folder not in ("", ".", "..") and "/" not in folder
        if not (is_name and isinstance(boot, str) and isinstance(at, int | float)):
            return None
        return cls(folder, boot, float(at))
