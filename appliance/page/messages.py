"""The page sends the messages of ``[notify]``, as long as no other process does."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.notify.notifier import Notifier
from lungstage.appliance.notify.settings import NotifySettings
from lungstage.appliance.page.records import first_file
from lungstage.appliance.page.viewer import Viewer
from lungstage.appliance.state import chain
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.file_table import FileRecords
from lungstage.appliance.state.jobs import Jobs

_EVERY_SECONDS = 2.0


class Messages:
    """Sends in a thread of its own until the block ends.

    Parameters
    ----------
    state
        The state folder.
    settings
        What is told, and how; None where nothing is.
    viewer
        Reads whose a study is, where messages say so.
    """

    def __init__(self, state: Path, settings: NotifySettings | None, viewer: Viewer) -> None:
        self._state, self._settings, self._viewer = state, settings, viewer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def __enter__(self) -> None:
        if self._settings is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._settings is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        if self._settings is None:
            return
        news = partial(chain.entries_from, self._state)
        notifier = Notifier(self._state, self._settings, news, self._patient_of)
        try:
            while not self._stop.wait(_EVERY_SECONDS):
                try:
                    notifier.step()
                except (Unavailable, OSError) as error:
                    logger.warning("notify_unavailable", extra={"error": type(error).__name__})
                except Exception as error:
                    logger.error("notify_defect", extra=defect(error))
        finally:
            notifier.close()

    def _patient_of(self, number: int) -> str:
        """Name the patient of a job; what cannot be named at the moment is told of all the same."""
        try:
            with DatabaseReader(self._state / "ledger.sqlite") as database:
                job = Jobs(database).get(number)
                path = None if job is None else first_file(FileRecords(database), job)
        except Unavailable:
            return ""
        (patient,) = self._viewer.read([path])
        return ", ".join(filter(None, (patient.name, patient.identifier)))
