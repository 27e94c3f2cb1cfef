"""TLS in both directions: offered versions and trusted certificates. There is no fallback to weaker settings."""

from __future__ import annotations

import ssl

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.settings import ClientTls, ServerTls


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Make the TLS context of a listening port.

    Raises
    ------
    Unavailable
        Certificate, key or certificate authorities cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.clients is not None:
            context.load_verify_locations(tls.clients)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # includes ssl.SSLError
        raise Unavailable(
            f"The certificate {tls.certificate}, its key {tls.key} or the file of client authorities cannot be used: "
            f"{_why(error)}. Check these files in tls of the settings."
        ) from error
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Make the TLS context of a route: certificate and name of the other side are always checked.

    Raises
    ------
    Unavailable
        As for :func:`server_context`.
    """
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None and tls.key is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise Unavailable(
            f"the certificate, key or ca file of this route cannot be used: {_why(error)}; check tls of the route"
        ) from error
    return context


def _why(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or type(error).__name__)
