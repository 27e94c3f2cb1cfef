"""Sessions and login limits, in memory only: a restart logs everyone out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from lungstage.appliance.page.accounts import Account
from lungstage.appliance.staging.sketching import Draft

_MOST_SESSIONS = 1000
_MOST_CLIENTS = 10_000


@dataclass(slots=True)
class Session:
    """A logged-in user; times are of the monotonic clock.

    Attributes
    ----------
    account
        The user.
    csrf
        Secret in every form of this session.
    began, used
        Time of the login, and of the last action.
    shown
        Jobs that the user has seen and that are in the access log.
    searched
        Keyed hash of the last searched Patient ID, and the ID; addresses contain only the hash.
    drafts
        Contours that the user is drawing, each with its job, by a name that addresses contain.
    noting, drawing
        Locks for writing to the access log and for drawing a picture: one at a time in each session.
    """

    account: Account
    csrf: str
    began: float
    used: float
    shown: set[tuple[str, int]] = field(default_factory=set)
    searched: tuple[str, str] = ("", "")
    drafts: OrderedDict[str, tuple[int, Draft]] = field(default_factory=OrderedDict)
    noting: asyncio.Lock = field(default_factory=asyncio.Lock)
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def bears(self, token: str) -> bool:
        """Whether a form belongs to this session."""
        return hmac.compare_digest(self.csrf.encode(), token.encode(errors="surrogatepass"))


class Sessions:
    """The sessions of one page.

    Parameters
    ----------
    idle, longest
        Seconds until a session ends without a click, and seconds until it ends in any case.
    clock
        A monotonic clock.
    """

    def __init__(self, idle: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._longest, self._clock = idle, longest, clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, account: Account) -> str:
        """Log a user in; return the value of the cookie."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        self._sessions[_key(token)] = Session(account, secrets.token_urlsafe(32), now, now)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def find(self, token: str, *, clicked: bool) -> Session | None:
        """Return the session of a cookie; None if it has ended.

        Parameters
        ----------
        token
            Value of the cookie.
        clicked
            Whether a person did something. Automatic requests of a page do not extend the session.
        """
        session = self._sessions.get(_key(token))
        if session is None:
            return None
        now = self._clock()
        if now - session.used > self._idle or now - session.began > self._longest:
            self.end(token)
            return None
        if clicked:
            session.used = now
        return session

    def end(self, token: str) -> None:
        """Log a user out."""
        self._sessions.pop(_key(token), None)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


class RateLimit:
    """A limit for each client: `burst` actions at once, then `per_second` actions per second.

    Parameters
    ----------
    burst, per_second
        Numbers of actions.
    clock
        A monotonic clock.
    """

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, address: str) -> bool:
        """Whether a client may act now; the call counts as an action."""
        client, now = _network(address), self._clock()
        left, at = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1

    def give_back(self, address: str) -> None:
        """Undo the last count."""
        client = _network(address)
        left, at = self._left.get(client, (self._burst, self._clock()))
        self._left[client] = (min(self._burst, left + 1), at)


def _network(address: str) -> str:
    """Return the client of an address. An IPv6 user has a /64 network of addresses, which counts as one client."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return address
