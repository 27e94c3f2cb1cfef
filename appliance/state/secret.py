"""The state folder's secret: the key of the hashes that stand in its records for a patient's identity."""

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
        Whether it is made where there is none; whoever only looks makes nothing.

    Raises
    ------
    Unavailable
        It is not what was made, or cannot be read or made.
    """
    path = state / _NAME
    try:
        if make and not path.exists():
            write_private(path, secrets.token_bytes(_LENGTH), keep=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            key = file.read(_LENGTH + 1)
    except OSError as error:
        raise Unavailable(f"The key {path} cannot be read or made: {error.strerror}.") from error
    if len(key) != _LENGTH:
        raise Unavailable(
            f"{path} is no key of {_LENGTH} bytes. Restore it, or remove it: every file is then read anew."
        )
    return key


def reader_of(version: str, key: bytes) -> str:
    """Name what reads the files: code of a version, with a key. What another has recorded must be read anew."""
    return f"{version} {hashlib.blake2b(key, digest_size=4, person=b'reader').hexdigest()}"
