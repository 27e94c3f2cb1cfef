"""The interface of every destination."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance.gateway.queue import Document
from lungstage.appliance.gateway.settings import GatewaySettings, Route


class AwayError(Exception):
    """The destination does not answer, is full or ended the connection: all its documents wait. Says briefly why."""


class DoesNotWantError(Exception):
    """The destination refuses this document; it may accept others. Says briefly why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a destination for a document that it took.

    Attributes
    ----------
    committed
        Whether it confirmed that it keeps the document.
    remark
        A remark, for example a warning status.
    """

    committed: bool
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Commitment:
    """An answer on storage commitment: SOP Instance UIDs that are kept, and those that are not."""

    transaction: str
    kept: tuple[str, ...]
    lost: tuple[str, ...]


class Session(ABC):
    """One connection to a destination."""

    offers_commitment = False
    """Whether it can be asked for storage commitment."""

    @abstractmethod
    def has(self, document: Document) -> bool | None:
        """Whether it has a document already; None if it cannot be asked.

        Raises
        ------
        AwayError
            It ended the connection. All methods may raise this.
        """

    @abstractmethod
    def send(self, document: Document, path: Path) -> Answer:
        """Send a document.

        Raises
        ------
        DoesNotWantError
            It refuses this document.
        """

    def ask_commitment(self, transaction: str, documents: Sequence[Document]) -> None:
        """Ask for storage commitment; the answer is given to the `answered` of :meth:`Destination.session`."""
        raise NotImplementedError


class Destination(ABC):
    """A destination of documents.

    Parameters
    ----------
    route
        Its address and access data.
    settings
        The gateway's settings.
    """

    def __init__(self, route: Route, settings: GatewaySettings) -> None:
        self.route, self.settings = route, settings

    @abstractmethod
    def session(self, answered: Callable[[Commitment], None]) -> AbstractContextManager[Session]:
        """Open a connection; `answered` is called for each answer on storage commitment during the connection.

        Raises
        ------
        AwayError
            It cannot be reached, or refuses the connection.
        """

    @abstractmethod
    def prove(self) -> str:
        """Test whether it can be reached, without sending a document; return its answer as a sentence.

        Raises
        ------
        AwayError
            It cannot be reached.
        """
