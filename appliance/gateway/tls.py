"""TLS in both directions: what is offered, whose certificates are believed. Nothing falls back to less."""

from __future__ import annotations

import ssl

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.settings import ClientTls, ServerTls


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Make the context of a door.

    Raises
    ------
    Unavailable
        Certificate, key or authorities cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.clients is not None:
            context.load_verify_locations(tls.clients)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise Unavailable(
            f"The certificate {tls.certificate}, its key or the authorities cannot be used: {_why(error)}."
        ) from error
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Make the context of a route: the other side's certificate and name are checked, always.

    Raises
    ------
    Unavailable
        As :func:`server_context`.
    """
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None and tls.key is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise Unavailable(f"The certificates of a route cannot be used: {_why(error)}.") from error
    return context


def _why(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or type(error).__name__)
