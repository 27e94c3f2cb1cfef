"""The state folder's secret: the key of the hashes that replace a patient's identity in its records."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from lungstage.appliance.config.disks import write_private
from lungstage.appliance.contract.errors import Unavailable

_NAME = "identity.key"
_LENGTH = 32  # bytes


def identity_key(state: Path, *, make: bool = True) -> bytes:
    """Return the key of a state folder (:mod:`dicom.identity`).

    Parameters
    ----------
    state
        The folder.
    make
        Whether to make a missing key; commands that only read make none.

    Raises
    ------
    Unavailable
        The key is not valid, or cannot be read or made.
    """
    path = state / _NAME
    try:
        if make and not path.exists():
            write_private(path, secrets.token_bytes(_LENGTH), keep=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            key = file.read(_LENGTH + 1)
    except OSError as error:
        raise Unavailable(
            f"The key {path} cannot be read or made: {error.strerror}. Run this as the daemon's user, and check the "
            "state folder's permissions and disk."
        ) from error
    if len(key) != _LENGTH:
        raise Unavailable(
            f"{path} is no key of {_LENGTH} bytes. Restore the file from a copy, or delete it: the daemon then reads "
            "every file again."
        )
    return key


def reader_of(version: str, key: bytes) -> str:
    """Return a name for version and key; files that were recorded under another name must be read again."""
    return f"{version} {hashlib.blake2b(key, digest_size=4, person=b'reader').hexdigest()}"
