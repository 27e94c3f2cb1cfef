"""Opening a port, with a clear message if that fails."""

from __future__ import annotations

import socket

from lungstage.appliance.contract.errors import Unavailable


def listen(host: str, port: int, named_by: str) -> socket.socket:
    """Open a port; `named_by` is the setting that gives it.

    Raises
    ------
    Unavailable
        It cannot be opened.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise Unavailable(
            f"Port {port} of {host} cannot be opened: {error.strerror}. Correct {named_by}, or stop the program that "
            "uses this port."
        ) from error
    return listening
