"""Who may log in: users with passwords, or people with the token while there are no users.

Of a password, the argon2id hash is stored. Of the token, the SHA-256 is stored, which is sufficient for 256 random
bits. Users with role *view* see everything. Users with role *operate* may also send requests to the daemon.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import argon2
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lungstage.appliance.config.disks import give_to_owner, make_private, write_private
from lungstage.appliance.contract.errors import LungstageError, Unavailable
from lungstage.appliance.state.requests import UserName

Role = Literal["view", "operate"]

LEAST_PASSWORD: Final = 12  # characters
_MOST_PASSWORD: Final = 1024
_MOST_BYTES = 1024**2
TOKEN_USER: Final = "token"  # noqa: S105  (a name)
"""User name of everyone who logged in with the token."""

_HASHER = argon2.PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
# Verified if the user does not exist, so that the response time does not show which names exist.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=1$c29tZSBzYWx0IG9mIG5v$XwBcmFcxxT9yGwDgKlsTN5GBBmMXXHhGB1nG1PuZrUk"


class AccountsError(LungstageError):
    """A change of the users is not possible."""


class _Stored(TypedDict):
    role: Role
    password: Annotated[str, Field(pattern=r"^\$argon2id\$")]


_USERS: TypeAdapter[dict[UserName, _Stored]] = TypeAdapter(dict[UserName, _Stored])
_NAME: TypeAdapter[str] = TypeAdapter(UserName)


@dataclass(frozen=True, slots=True)
class Account:
    """A user who may log in.

    Attributes
    ----------
    user, role
        Name and role.
    proof
        Hash of the current password entry: a changed password makes another account.
    """

    user: str
    role: Role
    proof: str = ""

    @property
    def may_operate(self) -> bool:
        """Whether the user may send requests."""
        return self.role == "operate"


class Users:
    """The users of one file. It is read each time, so changes take effect at once.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> dict[str, Account]:
        """Return all users; empty if there is no file.

        Raises
        ------
        Unavailable
            The file cannot be read, or is not valid. Then nobody can log in, also not with the token.
        """
        return {name: _account(name, stored) for name, stored in self._read().items()}

    def verify(self, user: str, password: str) -> Account | None:
        """Return the account of a name and password; None if they do not match."""
        stored = self._read().get(user)
        try:
            _HASHER.verify(_NOBODY if stored is None else stored["password"], password[:_MOST_PASSWORD])
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return None
        return None if stored is None else _account(user, stored)

    def set(self, user: str, password: str | None, role: Role | None) -> None:
        """Add a user, or change password or role of one.

        Raises
        ------
        AccountsError
            The name is not valid, the password is too short, or no user with role operate would be left.
        """
        try:
            _NAME.validate_python(user)
        except ValidationError as error:
            raise AccountsError(
                "A user name may have up to 64 letters, digits and . _ @ -, and must begin with a letter or digit."
            ) from error
        if password is not None and not LEAST_PASSWORD <= len(password) <= _MOST_PASSWORD:
            raise AccountsError(f"A password must have at least {LEAST_PASSWORD} characters.")
        with self._changing() as users:
            known = users.get(user)
            if known is None and (password is None or role is None):
                raise AccountsError(f"There is no user {user}.")
            hashed = _HASHER.hash(password) if password is not None else (known or {"password": ""})["password"]
            users[user] = {"role": role or (known["role"] if known else "view"), "password": hashed}
            _prove_operated(users)

    def remove(self, user: str) -> None:
        """Remove a user.

        Raises
        ------
        AccountsError
            There is no user of that name, or no user with role operate would be left.
        """
        with self._changing() as users:
            if users.pop(user, None) is None:
                raise AccountsError(f"There is no user {user}.")
            _prove_operated(users)

    def _read(self) -> dict[str, _Stored]:
        try:
            with self._path.open("rb") as file:
                return _USERS.validate_json(file.read(_MOST_BYTES), strict=True)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Unavailable(f"The users file {self._path} cannot be read, so no user can log in.") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, _Stored]]:
        """Lock the users and give them to be changed; they are written if the block raises nothing."""
        try:
            make_private(self._path.parent)
            with self._path.with_suffix(".lock").open("ab") as lock:
                give_to_owner(lock.fileno(), self._path.parent)
                fcntl.flock(lock, fcntl.LOCK_EX)
                users = self._read()
                yield users
                write_private(self._path, _USERS.dump_json(users, indent=1))
        except OSError as error:
            raise Unavailable(f"The users file {self._path} cannot be written: {error.strerror}.") from error


def _account(user: str, stored: _Stored) -> Account:
    return Account(user, stored["role"], _digest(stored["password"]))


def _prove_operated(users: Mapping[str, _Stored]) -> None:
    if not any(stored["role"] == "operate" for stored in users.values()):
        raise AccountsError(
            "The last user with role operate cannot be removed or get another role. Add another one first."
        )


class Token:
    """The secret with which people log in while there are no users.

    Parameters
    ----------
    folder
        The page's own folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "token.json"

    def exists(self) -> bool:
        """Whether there is one."""
        return self._path.exists()

    def renew(self) -> str:
        """Make a new token that replaces the old one. It is returned only here and cannot be shown again.

        Raises
        ------
        OSError
            It cannot be stored.
        """
        token = secrets.token_urlsafe(32)
        write_private(self._path, json.dumps({"sha256": _digest(token)}).encode())
        return token

    def verify(self, token: str) -> Account | None:
        """Return the account for a token; None if the token is wrong."""
        try:
            known = json.loads(self._path.read_text(encoding="ascii"))["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (
            Account(TOKEN_USER, "operate")
            if hmac.compare_digest(str(known).encode(), _digest(token).encode())
            else None
        )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
