"""The page sends the messages of ``[notify]``, as long as no other process does."""

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
        self._state, self._viewer = state, viewer
        news = partial(chain.entries_from, state)
        super().__init__(None if settings is None else Notifier(state, settings, news, self._patient_of))

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
