"""The gateway's peers: senders, and an archive that can make errors on request."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from lungstage.appliance.gateway.contexts import COMMITMENT, COMMITMENT_INSTANCE, SENT, VERIFICATION
from lungstage.appliance.gateway.destinations.archive import FIND


def associate(port: int, classes: Iterable[str], **options: Any) -> Association:
    """Ask the gateway for an association; it may not be established."""
    entity = AE(options.pop("calling", "CT1"))
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    syntaxes = options.pop("syntaxes", [ExplicitVRLittleEndian])
    for uid in classes:
        entity.add_requested_context(uid, syntaxes)
    return entity.associate("127.0.0.1", port, ae_title=options.pop("called", "LUNGSTAGE"), **options)


def send(port: int, datasets: Iterable[Dataset], **options: Any) -> list[int]:
    """C-STORE datasets over one association; return the statuses."""
    datasets = list(datasets)
    association = associate(port, {dataset.SOPClassUID for dataset in datasets}, **options)
    assert association.is_established
    statuses = [association.send_c_store(dataset).get("Status", -1) for dataset in datasets]
    association.release()
    return statuses


def stow(port: int, files: Iterable[bytes], path: str = "/studies", **options: Any) -> tuple[int, dict[str, Any]]:
    """POST files; return status and answer."""
    boundary = secrets.token_hex(8)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
    return post(port, body, f'multipart/related; type="application/dicom"; boundary={boundary}', path, **options)


def post(
    port: int, body: bytes, kind: str, path: str = "/studies", token: str | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, dict[str, Any]]:  # fmt: skip
    """POST a body; return status and answer."""
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    else:
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
    headers = {"Content-Type": kind} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        said = response.read()
    finally:
        connection.close()
    is_json = response.headers.get_content_type() == "application/dicom+json"
    return response.status, json.loads(said) if is_json else {}


@dataclass
class Peer:
    """An archive in a thread. Its attributes control its behaviour and can be changed at any time.

    Attributes
    ----------
    status
        Its answer to a C-STORE, by SOP Instance UID; 0 otherwise.
    breaks_off
        How often it aborts after it has stored and before it answers; counted down.
    forgets
        SOP Instance UIDs that it acknowledges and does not keep.
    calls_back
        Where it reports commitments to, over a new association; None: over the association of the request.
    """

    classes: list[str] = field(default_factory=lambda: [*SENT.values()])
    offers_commitment: bool = True
    can_be_queried: bool = True
    port: int = 0
    status: dict[str, int] = field(default_factory=dict)
    breaks_off: int = 0
    forgets: set[str] = field(default_factory=set)
    calls_back: tuple[str, int] | None = None
    is_silent: bool = False
    ssl_context: ssl.SSLContext | None = None
    kept: dict[str, bytes] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Listen."""
        entity = AE("PACS")
        entity.add_supported_context(VERIFICATION)
        for uid in self.classes:
            entity.add_supported_context(uid, [ExplicitVRLittleEndian])
        if self.can_be_queried:
            entity.add_supported_context(FIND)
        if self.offers_commitment:
            entity.add_supported_context(COMMITMENT)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find), (evt.EVT_N_ACTION, self._action),
        ]  # fmt: skip
        self._server = entity.make_server(
            ("127.0.0.1", self.port), evt_handlers=handlers, ssl_context=self.ssl_context,
            server_class=ThreadedAssociationServer,
        )  # fmt: skip
        entity._servers.append(self._server)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()  # ends at once
        self.port = int(self._server.socket.getsockname()[1])

    def stop(self) -> None:
        """Stop; the stored objects are kept."""
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()

    def _store(self, event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self.status.get(uid, 0)
        if status and not 0xB000 <= status <= 0xBFFF:
            return status
        self.received[uid] += 1
        self.order.append(uid)
        if uid in self.forgets:
            self.forgets.discard(uid)
        else:
            self.kept[uid] = event.request.DataSet.getvalue()
        if self.breaks_off:
            self.breaks_off -= 1
            event.assoc.abort()
        return status

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        uid = str(event.identifier.SOPInstanceUID)
        self.asked.append(uid)
        if uid in self.kept:
            found = Dataset()
            found.QueryRetrieveLevel, found.SOPInstanceUID = "IMAGE", uid
            found.StudyInstanceUID = event.identifier.StudyInstanceUID
            yield 0xFF00, found

    def _action(self, event: Event) -> tuple[int, Dataset | None]:
        about = event.action_information
        if not self.is_silent:
            threading.Thread(target=self._report, args=(event.assoc, about), daemon=True).start()
        return 0x0000, None

    def _report(self, association: Association, about: Dataset) -> None:
        report = Dataset()
        report.TransactionUID = about.TransactionUID
        kept = [item for item in about.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in self.kept]
        lost = [item for item in about.ReferencedSOPSequence if item.ReferencedSOPInstanceUID not in self.kept]
        if kept:
            report.ReferencedSOPSequence = kept
        for item in lost:
            item.FailureReason = 0x0112
        if lost:
            report.FailedSOPSequence = lost
        time.sleep(0.1)
        if self.calls_back is None:
            association.send_n_event_report(report, 2 if lost else 1, COMMITMENT, COMMITMENT_INSTANCE)
            return
        called, port = self.calls_back
        entity = AE("PACS")
        entity.add_requested_context(COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        from pynetdicom import build_role

        back = entity.associate("127.0.0.1", port, ae_title=called, ext_neg=[build_role(COMMITMENT, scp_role=True)])
        assert back.is_established
        back.send_n_event_report(report, 2 if lost else 1, COMMITMENT, COMMITMENT_INSTANCE)
        back.release()


@contextmanager
def peer(**options: Any) -> Iterator[Peer]:
    """Run an archive until the block ends."""
    one = Peer(**options)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that is free at the moment."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(dataset: Dataset, path: Path) -> bytes:
    """Write a dataset as a file; return its bytes."""
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes()
