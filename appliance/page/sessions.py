"""Who is logged in, and how often somebody may try: in memory alone, so that a restart logs everybody out."""

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

_MOST_SESSIONS = 1000
_MOST_CLIENTS = 10_000


@dataclass(slots=True)
class Session:
    """Somebody who is logged in; moments are of the monotonic clock.

    Attributes
    ----------
    account
        Who.
    csrf
        What every form of theirs bears, and nobody else knows.
    began, used
        When they logged in, and when they did something last.
    shown
        Jobs whose patients they were shown, which the access log was told of.
    searched
        The Patient ID that they looked for last, and its keyed hash: addresses bear the hash alone.
    noting, drawing
        Held while the access log is told, and while a picture is drawn for them: one at a time in each session.
    """

    account: Account
    csrf: str
    began: float
    used: float
    shown: set[tuple[str, int]] = field(default_factory=set)
    searched: tuple[str, str] = ("", "")
    noting: asyncio.Lock = field(default_factory=asyncio.Lock)
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def bears(self, token: str) -> bool:
        """Whether a form is one of theirs."""
        return hmac.compare_digest(self.csrf.encode(), token.encode(errors="surrogatepass"))


class Sessions:
    """The sessions of one page.

    Parameters
    ----------
    idle, longest
        Seconds after which a session ends without a click, and in any case.
    clock
        A monotonic clock.
    """

    def __init__(self, idle: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._longest, self._clock = idle, longest, clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, account: Account) -> str:
        """Log somebody in; return what their cookie holds."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        self._sessions[_key(token)] = Session(account, secrets.token_urlsafe(32), now, now)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def find(self, token: str, *, clicked: bool) -> Session | None:
        """Return the session of a cookie; one that is over is none.

        Parameters
        ----------
        token
            What the cookie holds.
        clicked
            Whether a person did something; what a page does by itself keeps no session alive.
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
        """Log somebody out."""
        self._sessions.pop(_key(token), None)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


class RateLimit:
    """How often each client may do something: so many at once, and after that so many a second.

    Parameters
    ----------
    burst, per_second
        How many.
    clock
        A monotonic clock.
    """

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, address: str) -> bool:
        """Whether whoever has an address may do it now, which counts."""
        client, now = _network(address), self._clock()
        left, at = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1

    def give_back(self, address: str) -> None:
        """Have the last time not count."""
        client = _network(address)
        left, at = self._left.get(client, (self._burst, self._clock()))
        self._left[client] = (min(self._burst, left + 1), at)


def _network(address: str) -> str:
    """Return whose an address is: of IPv6 everybody has a network of them, and could use each once."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return address
