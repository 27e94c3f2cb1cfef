"""Sends notifications about events of the audit log; only the process that holds the state folder's lease sends."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Protocol

from lungstage.appliance.config.logs import logger
from lungstage.appliance.notify.channels import NotSentError, send_email, send_webhook
from lungstage.appliance.notify.queue import Place, Queue, Queued
from lungstage.appliance.notify.settings import FOLDER, Kind, NotifySettings

LEASE: Final = "lease"

_KINDS: Final[Mapping[str, Kind]] = {
    "job_held": "held",
    "job_refused": "refused",
    "job_alerted": "alert",
    "job_delivered": "delivered",
    "canary_alarm": "canary_alarm",
}
"""Events of the audit log, and their names in the settings."""

_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3600.0  # seconds before a message is tried again
_GIVE_UP = 7 * 86400.0  # seconds after which an unsent message is dropped
_MOST_TOGETHER = 100
_HOUR = 3600.0


class Entry(Protocol):
    """An entry of the audit log (:class:`state.audit.Entry`)."""

    @property
    def event(self) -> str:
        """Name of the event."""

    @property
    def time(self) -> str:
        """Time of the event."""

    @property
    def repeats(self) -> int | None:
        """Number of the entry that it repeats."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """Details of the event."""


class News(Protocol):
    """Reads the audit log from a position, or from its end (:func:`state.chain.entries_from`)."""

    def __call__(self, place: Place | None) -> Iterable[tuple[Entry | None, Place]]: ...  # noqa: D102


class Notifier:
    """Reads new events and sends the messages that are due, one step at a time.

    Parameters
    ----------
    state
        The state folder.
    settings
        The settings of notifications.
    news
        Reads the audit log.
    patient_of
        Returns the patient of a job; called only if the settings ask for it, when a message is sent.
    clock
        The time of day in seconds.
    """

    def __init__(
        self,
        state: Path,
        settings: NotifySettings,
        news: News,
        patient_of: Callable[[int], str] = lambda _: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._settings, self._news = state / FOLDER, settings, news
        self._patient_of, self._clock = patient_of, clock
        self._lease: IO[bytes] | None = None
        self._queue: Queue | None = None

    def step(self) -> bool:
        """Read and send; False if another process holds the lease.

        Raises
        ------
        Unavailable
            Queue or audit log cannot be used at the moment.
        OSError
            The folder cannot be used.
        """
        if self._lease is None and not self._take_lease():
            return False
        if self._queue is None:
            self._queue = Queue(self._folder / "queue.sqlite")
        self._read(self._queue)
        for channel in self._settings.channels:
            self._send(self._queue, channel)
        return True

    def close(self) -> None:
        """Release the lease."""
        if self._queue is not None:
            self._queue.close()
        if self._lease is not None:
            self._lease.close()
        self._queue = self._lease = None

    def _take_lease(self) -> bool:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        file = (self._folder / LEASE).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._lease = file
        return True

    def _read(self, queue: Queue) -> None:
        begun = queue.place()
        place = begun
        events: list[dict[str, Any]] = []
        for entry, place in self._news(begun):  # noqa: B007  (the last place is where the next reading begins)
            if entry is not None:
                events += self._events_of(entry)
        if place is not None and place != begun:
            now = self._clock()
            queue.put(events, self._settings.channels, place, now)
            queue.forget(now - _GIVE_UP)

    def _events_of(self, entry: Entry) -> Iterator[dict[str, Any]]:
        kind = _KINDS.get(entry.event)
        if kind is None or kind not in self._settings.events or entry.repeats is not None:
            return
        told: dict[str, Any] = {"event": kind, "at": entry.time, "job": entry.fields.get("job")}
        if reason := entry.fields.get("reason"):
            told |= {"reason": reason["message"], "code": reason["code"]}
        if self._settings.patient and told["job"] is not None:
            told["study"] = entry.fields.get("study")
        yield told

    def _named(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add the patient if the settings ask for it: the name is read at sending and is never in the queue."""
        if not self._settings.patient or event["job"] is None:
            return event
        return {**event, "patient": self._patient_of(event["job"])}

    def _send(self, queue: Queue, channel: str) -> None:
        """Send the due messages of a channel, one by one; together if the settings say so or too many are due."""
        waiting, now = queue.waiting(channel, _MOST_TOGETHER), self._clock()
        old = [message for message in waiting if now - message.queued_at > _GIVE_UP]
        if old:
            logger.warning("notification_dropped", extra={"channel": channel, "count": len(old)})
            queue.dropped(old, now)
        due = [message for message in waiting if message.due_at <= now and message not in old]
        left = self._settings.per_hour - queue.sent_since(channel, now - _HOUR)
        if not due or left <= 0:
            return
        begun = next((message.batch for message in due if message.is_begun), None)
        if begun is not None:
            self._try(queue, channel, [message for message in due if message.batch == begun])
            return
        if self._settings.digest_seconds:
            if now - due[0].queued_at >= self._settings.digest_seconds:
                self._try(queue, channel, due)
            return
        single, together = (due, []) if len(due) <= left else (due[: left - 1], due[left - 1 :])
        for message in single:
            if not self._try(queue, channel, [message]):
                return
        if together:
            self._try(queue, channel, together)

    def _try(self, queue: Queue, channel: str, messages: list[Queued]) -> bool:
        batch, events = queue.batch_of(messages), [self._named(message.event) for message in messages]
        try:
            if channel == "email" and self._settings.email is not None:
                send_email(self._settings.email, batch, events)
            elif self._settings.webhook is not None:
                send_webhook(self._settings.webhook, batch, events)
        except NotSentError as error:
            pause = min(_FIRST_PAUSE * 2 ** min(messages[0].attempts, 20), _LONGEST_PAUSE)
            logger.warning("notification_waits", extra={"channel": channel, "why": str(error), "seconds": pause})
            queue.failed(messages, self._clock() + pause)
            return False
        queue.sent(messages, self._clock())
        return True
