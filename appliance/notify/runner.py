"""Sends notifications in a separate thread, while no other process does so."""

from __future__ import annotations

import threading

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.notify.notifier import Notifier

_EVERY_SECONDS = 2.0


class Runner:
    """Sends until the block ends.

    Parameters
    ----------
    notifier
        The notifier; None if there is nothing to send.
    """

    def __init__(self, notifier: Notifier | None) -> None:
        self._notifier = notifier
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def __enter__(self) -> None:
        if self._notifier is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._notifier is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        if self._notifier is None:
            return
        try:
            while not self._stop.wait(_EVERY_SECONDS):
                try:
                    self._notifier.step()
                except (Unavailable, OSError) as error:
                    logger.warning("notify_unavailable", extra={"error": type(error).__name__})
                except Exception as error:
                    logger.error("notify_defect", extra=defect(error))
        finally:
            self._notifier.close()
