"""The gateway's commands for people: show the queue, try a delivery again, test a destination."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lungstage.appliance.contract.errors import LungstageError, Unavailable
from lungstage.appliance.gateway.destinations import destination_of
from lungstage.appliance.gateway.destinations.destination import AwayError
from lungstage.appliance.gateway.queue import Delivery, Queue
from lungstage.appliance.gateway.settings import GatewaySettings

QUEUE = "queue.sqlite"
"""File of the queue, in the gateway's state folder."""


class NoSuchDestinationError(LungstageError):
    """No route has this destination."""


def queue_of(settings: GatewaySettings) -> Queue:
    """Open the queue of a gateway, which may be running.

    Raises
    ------
    Unavailable
        There is no queue.
    """
    path = settings.state / QUEUE
    if not path.is_file():
        raise Unavailable(f"There is no queue in {settings.state}. Start the gateway once: it makes the queue.")
    return Queue(path)


def row(delivery: Delivery) -> dict[str, Any]:
    """Return the fields of a delivery: the document's UIDs, but no names of persons."""
    document = delivery.document
    return {
        "id": delivery.id, "state": delivery.state, "kind": document.kind, "to": delivery.destination,
        "study": document.study_instance_uid, "document": document.sop_instance_uid, "attempts": delivery.attempts,
        "changed": datetime.fromtimestamp(delivery.changed_at, UTC).isoformat(timespec="seconds"), "why": delivery.why,
    }  # fmt: skip


def prove(settings: GatewaySettings, name: str) -> str:
    """Test whether a destination can be reached.

    Parameters
    ----------
    settings
        The gateway's settings.
    name
        Name or address of the destination.

    Raises
    ------
    NoSuchDestinationError
        No route has this destination.
    Unavailable
        It cannot be reached.
    """
    route = next((route for route in settings.route if name in (route.name, route.to)), None)
    if route is None:
        labels = ", ".join(dict.fromkeys(route.label for route in settings.route))
        known = f"Name one of these: {labels}." if labels else "The settings file contains no [[route]]."
        raise NoSuchDestinationError(f"There is no destination {name!r}. {known}")
    try:
        return destination_of(route, settings).prove()
    except AwayError as error:
        raise Unavailable(f"The destination {route.label} cannot be used: {str(error).rstrip('.')}.") from error
