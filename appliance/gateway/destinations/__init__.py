"""The kinds of destinations: one class for each scheme of an address; it opens sessions."""

from __future__ import annotations

from urllib.parse import urlsplit

from lungstage.appliance.gateway.destinations.archive import Archive
from lungstage.appliance.gateway.destinations.destination import Destination
from lungstage.appliance.gateway.destinations.folder import Folder
from lungstage.appliance.gateway.destinations.web import Web
from lungstage.appliance.gateway.settings import GatewaySettings, Route

__all__ = ["KINDS", "archive", "destination", "destination_of"]

KINDS: dict[str, type[Destination]] = {"dicom": Archive, "https": Web, "http": Web, "file": Folder}


def destination_of(route: Route, settings: GatewaySettings) -> Destination:
    """Make the destination of a route."""
    return KINDS[urlsplit(route.to).scheme](route, settings)
