"""An archive by DIMSE: C-STORE to store, C-FIND to query, storage commitment to confirm (PS3.4, B, C and J)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.contexts import COMMITMENT, COMMITMENT_INSTANCE, SENT, VERIFICATION
from lungstage.appliance.gateway.destinations.destination import (
    Answer,
    AwayError,
    Commitment,
    Destination,
    DoesNotWantError,
    Session,
)
from lungstage.appliance.gateway.queue import Document
from lungstage.appliance.gateway.tls import client_context

FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND."""

_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 1.0  # an association stays open this long for the answer on storage commitment
_DUPLICATE: Final = 0x0111
_FULL: Final = range(0xA700, 0xA800)
_PENDING: Final = (0xFF00, 0xFF01)

# For the whole process: files are sent without decoding, and no PDU is logged.
_config.STORE_SEND_CHUNKED_DATASET = True
_config.LOG_HANDLER_LEVEL = "none"


class Archive(Destination):
    """``dicom://AET@HOST:PORT``; with TLS if the route has a table ``tls``."""

    @contextlib.contextmanager
    def session(self, answered: Callable[[Commitment], None]) -> Iterator[Session]:
        """Open an association; it is released at the end, or aborted after an error."""
        came = threading.Event()

        def take(commitment: Commitment) -> None:
            answered(commitment)
            came.set()

        association = self._associate([*SENT.values()], take)
        try:
            yield _Association(association, came, commitment=self.route.commitment)
        except BaseException:
            association.abort()
            raise
        association.release()

    def prove(self) -> str:
        """Send a C-ECHO, and return what the archive accepts."""
        association = self._associate([*SENT.values()], lambda _: None)
        try:
            status = association.send_c_echo() if _accepts(association, VERIFICATION) else Dataset()
            accepted = [kind.upper() for kind, uid in SENT.items() if _accepts(association, uid)]
            commitment = "offers" if _accepts(association, COMMITMENT) else "does not offer"
            find = "can" if _accepts(association, FIND) else "cannot"
        finally:
            association.release()
        if status.get("Status") != 0:
            raise AwayError("it accepts the association, but does not answer C-ECHO")
        kinds = ", ".join(accepted) or "no kind of document"
        return f"It answers. It accepts {kinds}, {commitment} storage commitment, and {find} be queried."

    def _associate(self, classes: Sequence[str], answered: Callable[[Commitment], None]) -> Association:
        parts = urlsplit(self.route.to)
        entity = AE(self.route.ae_title or self.settings.ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _SECONDS
        entity.add_requested_context(VERIFICATION)
        entity.add_requested_context(FIND, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        for uid in classes:
            entity.add_requested_context(uid, ExplicitVRLittleEndian)
        if self.route.commitment:
            entity.add_requested_context(COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        try:
            tls = None if self.route.tls is None else (client_context(self.route.tls), str(parts.hostname))
        except Unavailable as error:
            raise AwayError(str(error)) from error
        association = entity.associate(
            str(parts.hostname), int(parts.port or 0), ae_title=unquote(parts.username or ""),
            max_pdu=131072, tls_args=tls,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, lambda event: take_report(event, answered))],
        )  # fmt: skip
        if not association.is_established:
            rejected = "it rejects the association; check both AE titles, and that it knows the gateway"
            why = (
                rejected if association.is_rejected else "it cannot be reached, or TLS fails; check host, port and tls"
            )
            raise AwayError(why)
        return association


class _Association(Session):
    def __init__(self, association: Association, came: threading.Event, *, commitment: bool) -> None:
        self._association, self._came = association, came
        self.offers_commitment = commitment and _accepts(association, COMMITMENT)
        self._number = 0

    def _next_number(self) -> int:
        self._number = self._number % 65535 + 1
        return self._number

    def has(self, document: Document) -> bool | None:
        if not _accepts(self._association, FIND):
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SOPInstanceUID = document.study_instance_uid, document.sop_instance_uid
        query.SeriesInstanceUID = ""
        found = False
        with _breaking_off():
            for status, item in self._association.send_c_find(query, FIND, msg_id=self._next_number()):
                code = status.get("Status")
                if code is None:
                    raise AwayError("it ended the connection")
                if code in _PENDING:
                    found |= item is not None and item.get("SOPInstanceUID") == document.sop_instance_uid
                elif code != 0:
                    return None
        return found

    def send(self, document: Document, path: Path) -> Answer:
        if not _accepts(self._association, document.sop_class_uid):
            raise DoesNotWantError("it does not accept this SOP Class")
        with _breaking_off():
            status = self._association.send_c_store(path, msg_id=self._next_number()).get("Status")
        if status is None:
            raise AwayError("it ended the connection")
        if status in _FULL:
            raise AwayError(f"its storage is full (status {status:04X})")
        if status == _DUPLICATE:
            return Answer(committed=False, remark="it has the document already")
        if status and not 0xB000 <= status <= 0xBFFF and status != 0x0001:
            raise DoesNotWantError(f"it answers with status {status:04X}")
        return Answer(committed=False, remark=f"it answers with warning status {status:04X}" if status else "")

    def ask_commitment(self, transaction: str, documents: Sequence[Document]) -> None:
        about = Dataset()
        about.TransactionUID, about.ReferencedSOPSequence = transaction, []
        for document in documents:
            item = Dataset()
            item.ReferencedSOPClassUID = document.sop_class_uid
            item.ReferencedSOPInstanceUID = document.sop_instance_uid
            about.ReferencedSOPSequence.append(item)
        with _breaking_off():
            status, _ = self._association.send_n_action(
                about, 1, COMMITMENT, COMMITMENT_INSTANCE, msg_id=self._next_number()
            )
        if status.get("Status") is None:
            raise AwayError("it ended the connection")
        if status.Status != 0:
            raise DoesNotWantError(f"it answers a storage commitment request with status {status.Status:04X}")
        self._came.wait(_ANSWER_SECONDS)


def take_report(event: Event, answered: Callable[[Commitment], None]) -> tuple[int, None]:
    """Read an N-EVENT-REPORT on storage commitment, from any association."""
    try:
        report = event.event_information
        kept = tuple(str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", ()))
        lost = tuple(str(item.ReferencedSOPInstanceUID) for item in report.get("FailedSOPSequence", ()))
        answered(Commitment(str(report.TransactionUID), kept, lost))
    except Exception:  # bad data, or the queue is not available: the gateway asks again later
        return 0x0110, None
    return 0x0000, None


@contextlib.contextmanager
def _breaking_off() -> Iterator[None]:
    """Convert pynetdicom's errors about an ended association."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise AwayError("it ended the connection") from error


def _accepts(association: Association, uid: str) -> bool:
    return any(context.abstract_syntax == uid for context in association.accepted_contexts)
