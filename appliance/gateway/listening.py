"""A port that is opened, or a sentence on why it cannot be."""

from __future__ import annotations

import socket

from lungstage.appliance.contract.errors import Unavailable


def listen(host: str, port: int, named_by: str) -> socket.socket:
    """Bind a port.

    Raises
    ------
    Unavailable
        It cannot be.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise Unavailable(f"Port {port} of {host} cannot be opened: {error.strerror}. {named_by} names it.") from error
    return listening
