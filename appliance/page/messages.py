"""The page sends the messages of ``[notify]``, unless another process does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.notify.notifier import Notifier
from lungstage.appliance.notify.runner import Runner
from lungstage.appliance.notify.settings import NotifySettings
from lungstage.appliance.page.records import first_file
from lungstage.appliance.page.viewer import Viewer
from lungstage.appliance.state import chain
from lungstage.appliance.state.database import DatabaseReader
from lungstage.appliance.state.file_table import FileRecords
from lungstage.appliance.state.jobs import Jobs


class Messages(Runner):
    """Sends messages in a separate thread until the block ends.

    Parameters
    ----------
    state
        The state folder.
    settings
        What is sent, and how; None if nothing is sent.
    viewer
        Reads the patient of a study, for messages that name the patient.
    """

    def __init__(self, state: Path, settings: NotifySettings | None, viewer: Viewer) -> None:
        self._state, self._viewer = state, viewer
        news = partial(chain.entries_from, state)
        super().__init__(None if settings is None else Notifier(state, settings, news, self._patient_of))

    def _patient_of(self, number: int) -> str:
        """Name the patient of a job; empty if this is not possible now: the message is sent without it."""
        try:
            with DatabaseReader(self._state / "ledger.sqlite") as database:
                job = Jobs(database).get(number)
                path = None if job is None else first_file(FileRecords(database), job)
        except Unavailable:
            return ""
        (patient,) = self._viewer.read([path])
        return ", ".join(filter(None, (patient.name, patient.identifier)))
