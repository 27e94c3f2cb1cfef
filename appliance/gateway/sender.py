"""Sends the queued documents of one destination. Each destination has its own thread, so none waits for another."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Final

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.destinations.destination import (
    AwayError,
    Commitment,
    Destination,
    DoesNotWantError,
    Session,
)
from lungstage.appliance.gateway.outbox import UnreadableError, read_document
from lungstage.appliance.gateway.queue import Delivery, Queue
from lungstage.appliance.gateway.settings import GatewaySettings
from lungstage.appliance.report.preflight import faults_in

_LOOK_SECONDS: Final = 1.0
_REFUSED_SECONDS: Final = 3600.0  # until a refused document is offered again


class Sender:
    """Sends the documents of one destination until it is stopped.

    Parameters
    ----------
    destination
        The destination.
    queue
        The queue of deliveries.
    outbox
        Folder of the documents.
    settings
        The gateway's settings.
    """

    def __init__(
        self,
        destination: Destination,
        queue: Queue,
        outbox: Path,
        settings: GatewaySettings,
    ) -> None:
        self._destination, self._queue, self._outbox, self._settings = destination, queue, outbox, settings
        self._bell, self._stopping = threading.Event(), threading.Event()
        self._failures = 0
        self._to = destination.route.to
        self._thread = threading.Thread(target=self._run, name=f"send {destination.route.label}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ring(self) -> None:
        """Signal that there may be a document to send; this does not shorten a pause after a failure."""
        self._bell.set()

    def stop(self) -> None:
        """Stop after the present document."""
        self._stopping.set()
        self._bell.set()

    def join(self, seconds: float) -> None:
        """Wait until the thread ends."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.work()
            except AwayError as error:
                self._fail(str(error))
            except (Unavailable, OSError) as error:
                self._fail(type(error).__name__)
            except Exception as error:
                logger.error("gateway_defect", extra=defect(error))
                self._fail("internal error; please report it")
            else:
                self._failures = 0
                self._bell.wait(_LOOK_SECONDS)
                self._bell.clear()

    def _fail(self, why: str) -> None:
        pause = self._pause(self._failures)
        self._failures += 1
        logger.warning("destination_away", extra={"to": self._destination.route.label, "why": why, "seconds": pause})
        self._stopping.wait(pause)

    def _pause(self, failures: int) -> float:
        return min(self._settings.retry_seconds * 2.0 ** min(failures, 30), self._settings.retry_max_seconds)

    def work(self) -> None:
        """Send all documents that are due over one connection, and ask for storage commitment.

        Raises
        ------
        AwayError
            The destination does not answer; everything waits.
        Unavailable
            The queue cannot be used.
        """
        delivery = self._queue.next(self._to)
        patience = self._settings.commitment_seconds
        if delivery is None and not self._queue.to_commit(self._to, patience):
            return
        with self._destination.session(self._committed) as session:
            while delivery is not None and not self._stopping.is_set():
                self._send(session, delivery)
                delivery = self._queue.next(self._to)
            self._ask(session, patience)

    def _send(self, session: Session, delivery: Delivery) -> None:
        document, path = delivery.document, self._outbox / delivery.document.name
        later = self._pause(delivery.attempts)
        try:
            content = read_document(path)
        except (OSError, UnreadableError):
            self._queue.waits(
                delivery, later, "the file is missing in the outbox, or cannot be read", unsure=delivery.unsure
            )
            logger.error("document_missing", extra={"delivery": delivery.id, "document": document.sop_instance_uid})
            return
        if document.kind == "sr" and (faults := faults_in(content)):
            why = f"the report breaks the rule {faults[0].rule}; lungstage check-report shows details"
            self._queue.refused(delivery, _REFUSED_SECONDS, why)
            logger.error("report_not_sent", extra={"delivery": delivery.id, "rule": faults[0].rule})
            return
        if delivery.unsure and session.has(document):
            self._took(session, delivery, committed=False, why="it had the document already")
            return
        self._queue.begin(delivery)
        try:
            answer = session.send(document, path)
        except DoesNotWantError as error:
            self._queue.refused(delivery, _REFUSED_SECONDS, str(error))
            told = {"delivery": delivery.id, "to": self._destination.route.label, "why": str(error)}
            logger.error("document_refused", extra=told)
            return
        except AwayError as error:
            self._queue.waits(delivery, 0.0, str(error), unsure=True)
            raise
        if answer.remark:
            logger.warning("document_remarked", extra={"delivery": delivery.id, "why": answer.remark})
        self._took(session, delivery, committed=answer.committed, why=answer.remark)

    def _took(self, session: Session, delivery: Delivery, *, committed: bool, why: str) -> None:
        if session.offers_commitment and not committed:
            self._queue.stored(delivery, why)
            return
        self._queue.delivered(delivery, committed=committed, why=why)
        told = {"delivery": delivery.id, "document": delivery.document.sop_instance_uid}
        logger.info("document_delivered", extra={**told, "to": self._destination.route.label})

    def _ask(self, session: Session, patience: float) -> None:
        """Ask for storage commitment of all documents that were taken without an answer on it."""
        deliveries = self._queue.to_commit(self._to, patience)
        if not deliveries:
            return
        if not session.offers_commitment:  # it did when the documents were sent
            for delivery in deliveries:
                self._queue.delivered(delivery, committed=False, why="it no longer offers storage commitment")
            return
        transaction = f"2.25.{uuid.uuid4().int}"  # PS3.5, B.2
        self._queue.asked(deliveries, transaction, patience)
        try:
            session.ask_commitment(transaction, [delivery.document for delivery in deliveries])
        except DoesNotWantError as error:
            logger.warning("commitment_refused", extra={"to": self._destination.route.label, "why": str(error)})

    def _committed(self, commitment: Commitment) -> None:
        take_commitment(self._queue, commitment, self._settings.retry_seconds)


def take_commitment(queue: Queue, commitment: Commitment, pause: float) -> None:
    """Record an answer on storage commitment, from any connection."""
    count = queue.committed(commitment.transaction, commitment.kept, commitment.lost, pause)
    level = logger.warning if commitment.lost else logger.info
    level("commitment", extra={"kept": len(commitment.kept), "lost": len(commitment.lost), "deliveries": count})
