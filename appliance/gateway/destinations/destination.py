"""What every destination can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lungstage.appliance.gateway.queue import Document
from lungstage.appliance.gateway.settings import GatewaySettings, Route


class AwayError(Exception):
    """The destination does not answer, is full or broke off: everything that goes there waits. Says why in a word."""


class DoesNotWantError(Exception):
    """The destination does not want this document; others may still be welcome. Says why in a word."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination said of a document that it took.

    Attributes
    ----------
    committed
        Whether it keeps it, in so many words.
    remark
        What it did with it beside that.
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
    """One conversation with a destination."""

    offers_commitment = False
    """Whether it can be asked to commit itself to what it took."""

    @abstractmethod
    def has(self, document: Document) -> bool | None:
        """Whether it has a document already; None where it cannot be asked.

        Raises
        ------
        AwayError
            It broke off. So do all methods.
        """

    @abstractmethod
    def send(self, document: Document, path: Path) -> Answer:
        """Send a document.

        Raises
        ------
        DoesNotWantError
            It does not want this one.
        """

    def ask_commitment(self, transaction: str, documents: Sequence[Document]) -> None:
        """Ask it to commit itself; the answer comes by the function that :meth:`Destination.session` was given."""
        raise NotImplementedError


class Destination(ABC):
    """Where documents go.

    Parameters
    ----------
    route
        Its address, and what is needed to be let in.
    settings
        The gateway's.
    """

    def __init__(self, route: Route, settings: GatewaySettings) -> None:
        self.route, self.settings = route, settings

    @abstractmethod
    def session(self, answered: Callable[[Commitment], None]) -> AbstractContextManager[Session]:
        """Begin a conversation; `answered` is called with what is said on commitments while it lasts.

        Raises
        ------
        AwayError
            It cannot be reached, or does not let us in.
        """

    @abstractmethod
    def prove(self) -> str:
        """Try whether it can be reached, without sending anything; a sentence on what it said.

        Raises
        ------
        AwayError
            It cannot.
        """
