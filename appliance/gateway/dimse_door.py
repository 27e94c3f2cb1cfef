"""Reception by DIMSE: C-STORE and C-ECHO, and reports of archives on storage commitment.

pynetdicom implements the protocol. This module adds limits that it lacks: who may connect, how long a handshake may
take, how large a PDU and an object may be. It also deletes incomplete data sets.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, cast

from pynetdicom import AE, _config, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.arrivals import Arrivals
from lungstage.appliance.gateway.contexts import COMMITMENT, RECEIVED, VERIFICATION
from lungstage.appliance.gateway.destinations.archive import take_report
from lungstage.appliance.gateway.destinations.destination import Commitment
from lungstage.appliance.gateway.head import CANNOT_UNDERSTAND, NotTakenError
from lungstage.appliance.gateway.settings import Network, Receive, host_and_port
from lungstage.appliance.gateway.tls import server_context

_PDU: Final = 131072  # bytes, accepted by storescu and most toolkits; a PDU above the offer ends the association
_LONGEST_PDU: Final = 1024 * 1024  # the standard has no limit for an A-ASSOCIATE-RQ
_HANDSHAKE_SECONDS: Final = 10.0
_BACKLOG: Final = 128
_TEMPORARILY_CONGESTED: Final = (0x02, 0x03, 0x01)  # transient, by the service provider (PS3.8, 9.3.4)


class DimseDoor:
    """Listens until it is closed.

    Parameters
    ----------
    settings
        Port, and who may send.
    arrivals
        Writes objects into the inbox.
    answered
        Called with the answers of archives on storage commitment.

    Raises
    ------
    Unavailable
        The port cannot be opened, or the certificate cannot be used.
    """

    def __init__(self, settings: Receive, arrivals: Arrivals, answered: Callable[[Commitment], None]) -> None:
        # For the whole process: data sets are written to the disk as they arrive, in the file system of the inbox.
        _config.STORE_RECV_CHUNKED_DATASET = True
        tempfile.tempdir = str(arrivals.folder)
        entity = _Entity(settings.ae_title)
        entity.maximum_pdu_size = _PDU
        entity.maximum_associations = settings.max_associations
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.calling)
        entity.network_timeout = settings.idle_seconds
        entity.acse_timeout = _HANDSHAKE_SECONDS
        entity.dimse_timeout = settings.idle_seconds
        entity.add_supported_context(VERIFICATION)
        for uid, syntaxes in RECEIVED.items():
            entity.add_supported_context(uid, list(syntaxes))
        entity.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
        self._arrivals, self._entity = arrivals, entity
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_EVENT_REPORT, lambda event: take_report(event, answered)),
            (evt.EVT_REJECTED, _log_rejected),
        ]
        context = None if settings.tls is None else server_context(settings.tls)
        host, port = host_and_port(settings.bind)
        try:
            address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
            server = entity.make_server(
                cast(Any, address), evt_handlers=handlers, ssl_context=context, server_class=_Server,
                request_handler=_Handler,
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(
                f"Port {port} of {host} cannot be opened: {error.strerror}. Correct bind in [receive], or stop the "
                "program that uses this port."
            ) from error
        self._server = cast(_Server, server)
        self._server.addresses, self._server.arrivals = settings.addresses, arrivals
        self._server.longest_object = settings.max_object_mb * 1024**2
        entity.servers.append(self._server)
        self._thread = threading.Thread(target=self._server.serve_forever, name="dimse", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Accept no more associations, and end the existing ones."""
        with contextlib.suppress(OSError, ValueError):
            self._entity.shutdown()

    def _store(self, event: Event) -> int:
        association = event.assoc
        try:
            path = event.dataset_path
            self._arrivals.take(Path(path), id(association), str(association.requestor.ae_title))
        except NotTakenError as error:
            logger.warning("object_refused", extra={"status": f"{error.status:04X}", "why": error.why})
            return error.status
        except Exception as error:
            logger.error("gateway_defect", extra=defect(error))
            return CANNOT_UNDERSTAND
        return 0x0000


class _Entity(AE):
    @property
    def servers(self) -> list[ThreadedAssociationServer]:
        """The servers that :meth:`shutdown` ends."""
        return self._servers


class _Server(ThreadedAssociationServer):
    """Accepts connections by address; a slow handshake does not delay other connections."""

    daemon_threads = True
    request_queue_size = _BACKLOG
    addresses: Sequence[Network] = ()
    arrivals: Arrivals
    longest_object: int

    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None
        return self.socket.accept()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if len(self.active_associations) >= self.ae.maximum_associations + _BACKLOG:
            return False  # too many connections even to reject them
        if not self.addresses:
            return True
        client = ipaddress.ip_address(str(client_address[0]).partition("%")[0])
        client = getattr(client, "ipv4_mapped", None) or client
        allowed = any(client in network for network in self.addresses)
        if not allowed:
            logger.warning("address_refused", extra={"address": str(client)})
        return allowed

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            try:
                request.settimeout(_HANDSHAKE_SECONDS)
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except OSError as error:
                logger.warning(
                    "tls_refused", extra={"why": str(getattr(error, "reason", None) or type(error).__name__)}
                )
                self.shutdown_request(request)
                return
        request.settimeout(_HANDSHAKE_SECONDS)
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; an association closes its own connection."""
        with contextlib.suppress(OSError):
            request.close()


class _Handler(RequestHandler):
    """Makes an association with the limits of this module."""

    server: _Server

    def _create_association(self) -> Association:
        association = _Association(self.ae, "acceptor")
        association._server = self.server
        association.name = f"AcceptorThread@{id(association)}"  # pynetdicom counts associations by this name
        association.acse = _Negotiation(association)
        association.dimse = _Messages(association)
        association.set_socket(_Socket(association, client_socket=self.request))
        acceptor, entity = association.acceptor, self.ae
        acceptor.maximum_length, acceptor.ae_title = entity.maximum_pdu_size, self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = entity.implementation_class_uid
        acceptor.implementation_version_name = entity.implementation_version_name
        acceptor.supported_contexts = deepcopy(self.server.contexts)
        association.requestor.address_info = self.remote
        for event, handlers in self.server._handlers.items():
            if event.is_intervention:
                if handlers:
                    association.bind(event, *cast(Any, handlers))
            else:
                for handler, arguments in cast(Any, handlers):
                    association.bind(event, handler, arguments)
        return association


class _Association(Association):
    """At its end, in every case, closes the marks of its studies and deletes an incomplete object."""

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:  # in the thread that stores objects, so no more objects can arrive
            message = self.dimse.message
            if message is not None and message._data_set_path is not None:
                logger.warning("object_cut_short")
                with contextlib.suppress(OSError):
                    Path(cast(Any, message._data_set_path)).unlink(missing_ok=True)
            cast(_Server, self._server).arrivals.marks.close(id(self))
            with contextlib.suppress(OSError):
                if self.dul.socket is not None:
                    self.dul.socket.close()


def _log_rejected(event: evt.Event) -> None:
    logger.warning("association_rejected", extra={"address": event.assoc.requestor.address})


class _Negotiation(ACSE):
    """Rejects an association while the inbox's disk is nearly full; gives an accepted one the longer idle time."""

    def _negotiate_as_acceptor(self) -> None:
        if cast(_Server, self.assoc._server).arrivals.has_room():
            super()._negotiate_as_acceptor()
            connection = self.assoc.dul.socket
            if connection is not None and connection.socket is not None:
                with contextlib.suppress(OSError):  # a rejected sender may have closed it already
                    connection.socket.settimeout(self.assoc.ae.network_timeout)
            return
        logger.error("no_room")
        self.send_reject(*_TEMPORARILY_CONGESTED)
        evt.trigger(self.assoc, evt.EVT_REJECTED, {})
        self.assoc.kill()


class _Messages(DIMSEServiceProvider):
    """Aborts an association if an object exceeds the size limit."""

    _received = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        self._received += sum(len(data) for _, data in primitive.presentation_data_value_list)
        if self._received > cast(_Server, self.assoc._server).longest_object:
            logger.warning("object_too_large")
            self.assoc.abort(block=False)
            return
        super().receive_primitive(primitive)
        if self.message is None:
            self._received = 0


class _Socket(AssociationSocket):
    """Reads in large pieces, and refuses a PDU above the limit."""

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > _LONGEST_PDU:
            raise OSError("a PDU is longer than the limit")
        content = bytearray(nr_bytes)
        view, at = memoryview(content), 0
        assert self.socket is not None
        while at < nr_bytes:
            count = self.socket.recv_into(view[at:])
            if not count:
                view.release()
                return content[:at]
            at += count
        view.release()
        return content
