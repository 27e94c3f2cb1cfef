"""Check that inbox and outbox are still the same folders.

If a share is not mounted, an empty folder remains at its mount point. Reports written there would reach no reader, and
the share's studies would seem to be deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from lungstage.appliance.config.disks import Place, place_of
from lungstage.appliance.config.logs import logger
from lungstage.appliance.contract.errors import Unavailable


class FolderGuard:
    """Recognises one folder, during a run and, by a file in the state folder, after a restart.

    During a restart device numbers may change, and an operator may have chosen another folder. So after a restart a
    folder counts as another only if the share or disk that was mounted there no longer is.

    Parameters
    ----------
    name, folder
        ``inbox`` or ``outbox``, and its path.
    state
        The state folder.
    strict
        Whether to refuse every other folder during a run. If not, only an unmounted one is refused.
    """

    def __init__(self, name: str, folder: Path, state: Path, *, strict: bool) -> None:
        self._name, self._folder, self._state, self._strict = name, folder, state, strict
        self._known = remembered(name, folder, state)
        self._was_seen = False  # in this run
        self._is_other = False

    def prove(self) -> None:
        """Return if the folder is still the same.

        Raises
        ------
        Unavailable
            It is another folder, or cannot be opened.
        """
        try:
            now = place_of(self._folder, self._known if self._was_seen else None)
        except OSError as error:
            raise Unavailable(f"The {self._name} cannot be opened: {error.strerror}.") from error
        was_other, self._is_other = self._is_other, self._is_another(now)
        if self._strict and self._is_other != was_other:  # for the inbox, the loop logs the error below
            about = {"file_system": now.kind, "known": self._known and self._known.kind}
            if self._is_other:
                logger.warning("outbox_replaced", extra=about)
            else:
                logger.info("outbox_back", extra=about)
        if self._is_other:
            raise Unavailable(
                f"The {self._name} is not the same folder as before. Mount its disk or share again: the daemon then "
                f"continues. To use the new folder instead, stop the daemon, delete {_file_of(self._name)} in the "
                "state folder, and start the daemon."
            )
        if now != self._known or not self._was_seen:
            self._known, self._was_seen = now, True
            with contextlib.suppress(OSError):  # only the next start needs this file
                _remember(self._name, self._folder, self._state, now)

    def is_replaced(self) -> bool:
        """Whether another folder is in its place now; a folder that cannot be opened does not count."""
        with contextlib.suppress(Unavailable):
            self.prove()
        return self._is_other

    def _is_another(self, now: Place) -> bool:
        if self._known is None:
            return False
        if self._strict and self._was_seen:
            return not self._known.is_same(now)
        return self._known.is_unmounted_at(now)


def remembered(name: str, folder: Path, state: Path) -> Place | None:
    """Return the folder that a daemon last used under this name; None if there was none, or it had another path."""
    try:
        known = json.loads((state / _file_of(name)).read_text(encoding="utf-8"))
        return Place(**known["place"]) if known["folder"] == str(folder) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(name: str, folder: Path, state: Path, place: Place) -> None:
    temporary = state / f".{_file_of(name)}.part"
    temporary.write_text(json.dumps({"folder": str(folder), "place": asdict(place)}), encoding="utf-8")
    os.replace(temporary, state / _file_of(name))


def _file_of(name: str) -> str:
    return f"{name}-place.json"
