"""Whether inbox and outbox are still the folders that they were.

A share that is not mounted leaves an empty folder at its mount point. Reports that are written there are delivered to
nobody, and studies that lay in it are not gone.
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
    """Knows one folder again, within a run and, by a file in the state folder, over a restart.

    Over a restart numbers of devices may change, and an operator may have put another folder there, so a folder is
    taken for another only where a share or disk of its own is no longer mounted.

    Parameters
    ----------
    name, folder
        ``inbox`` or ``outbox``, and where it lies.
    state
        The state folder.
    strict
        Whether, within a run, every other folder is refused; else only one where nothing is mounted any more.
    """

    def __init__(self, name: str, folder: Path, state: Path, *, strict: bool) -> None:
        self._name, self._folder, self._state, self._strict = name, folder, state, strict
        self._known = remembered(name, folder, state)
        self._was_seen = False  # in this run
        self._is_other = False

    def prove(self) -> None:
        """Return where it is the folder that it was.

        Raises
        ------
        Unavailable
            When it is another, or cannot be opened.
        """
        try:
            now = place_of(self._folder, self._known if self._was_seen else None)
        except OSError as error:
            raise Unavailable(f"The {self._name} cannot be opened: {error.strerror}.") from error
        was_other, self._is_other = self._is_other, self._is_another(now)
        if self._strict and self._is_other != was_other:  # of the inbox, whoever waits for it says so
            about = {"file_system": now.kind, "known": self._known and self._known.kind}
            if self._is_other:
                logger.warning("outbox_replaced", extra=about)
            else:
                logger.info("outbox_back", extra=about)
        if self._is_other:
            raise Unavailable(
                f"The {self._name} is not the folder that it was; is its disk or share mounted? It is waited for. "
                f"If another one is meant, remove {_file_of(self._name)} from the state folder and restart the daemon."
            )
        if now != self._known or not self._was_seen:
            self._known, self._was_seen = now, True
            with contextlib.suppress(OSError):  # it is needed at the next start at the soonest
                _remember(self._name, self._folder, self._state, now)

    def is_replaced(self) -> bool:
        """Whether it is another folder now; one that cannot be opened is not."""
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
    """Return which folder a daemon last knew as that; None where there was none, or it lay at another path."""
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
