"""What people ask of the gateway from beside it: how the queue stands, to try again, whether a destination answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lungstage.appliance.contract.errors import LungstageError, Unavailable
from lungstage.appliance.gateway.destinations import destination_of
from lungstage.appliance.gateway.destinations.destination import AwayError
from lungstage.appliance.gateway.queue import Delivery, Queue
from lungstage.appliance.gateway.settings import GatewaySettings

QUEUE = "queue.sqlite"
"""In the gateway's state folder."""


class NoSuchDestinationError(LungstageError):
    """No route leads there."""


def queue_of(settings: GatewaySettings) -> Queue:
    """Open the queue of a gateway, which may be running.

    Raises
    ------
    Unavailable
        There is none.
    """
    path = settings.state / QUEUE
    if not path.is_file():
        raise Unavailable(f"There is no queue in {settings.state}; the gateway makes it when it starts.")
    return Queue(path)


def row(delivery: Delivery) -> dict[str, Any]:
    """Tell a delivery under its keys; the document's UIDs and no name."""
    document = delivery.document
    return {
        "id": delivery.id, "state": delivery.state, "kind": document.kind, "to": delivery.destination,
        "study": document.study_instance_uid, "document": document.sop_instance_uid, "attempts": delivery.attempts,
        "changed": datetime.fromtimestamp(delivery.changed_at, UTC).isoformat(timespec="seconds"), "why": delivery.why,
    }  # fmt: skip


def prove(settings: GatewaySettings, name: str) -> str:
    """Try whether a destination can be reached.

    Parameters
    ----------
    settings
        The gateway's.
    name
        Its name or address.

    Raises
    ------
    NoSuchDestinationError
        No route leads there.
    Unavailable
        It cannot be reached.
    """
    route = next((route for route in settings.route if name in (route.name, route.to)), None)
    if route is None:
        known = ", ".join(dict.fromkeys(route.label for route in settings.route)) or "none"
        raise NoSuchDestinationError(f"There is no destination {name!r}; the routes lead to: {known}.")
    try:
        return destination_of(route, settings).prove()
    except AwayError as error:
        raise Unavailable(f"{route.label} cannot be used: {error}.") from error
