"""Check who signed a bundle: ``manifest.sig``, a detached Ed25519 signature (RFC 8032) of ``manifest.json``.

The manifest contains the SHA-256 of every other file, so the signature covers the whole bundle. Without a trusted key,
only the key named in the signature is known, and it is not verified. With trusted keys, a bundle that none of them
signed is refused. ``cryptography`` is imported only where a key or a signature is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lungstage.appliance.contract.errors import LungstageError, ReasonCode, Refused
from lungstage.appliance.model.bundle_files import SIGNATURE_FILE, BundleFiles
from lungstage.appliance.model.manifest import Sha256

MAX_KEY_BYTES: Final = 16 * 1024

_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
"""The bytes before an Ed25519 key's 32 bytes in its SubjectPublicKeyInfo (RFC 8410, section 4)."""


class KeyFileError(LungstageError):
    """A key file cannot be used."""


class Signature(BaseModel):
    """``manifest.sig``: JSON with these entries. Only one form is valid, so any changed byte is detected.

    Attributes
    ----------
    algorithm
        Ed25519.
    key
        Fingerprint of the public key: SHA-256 of its SubjectPublicKeyInfo in DER.
    signature
        Of ``manifest.json``, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    algorithm: Literal["Ed25519"]
    key: Sha256
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    def render(self) -> bytes:
        """Return the file's content."""
        return (json.dumps(self.model_dump(), indent=2) + "\n").encode()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A trusted public key.

    Attributes
    ----------
    name
        Name of the file it came from.
    raw
        Its 32 bytes.
    """

    name: str
    raw: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo in DER, in hexadecimal."""
        return hashlib.sha256(_SPKI + self.raw).hexdigest()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key signed `message`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signed a bundle, or that the signature names.

    Attributes
    ----------
    fingerprint
        Of the key.
    name
        Name of the trusted key; None if no keys are trusted: then the signature was not verified.
    """

    fingerprint: str
    name: str | None

    def __str__(self) -> str:
        known = f"the trusted key {self.name}" if self.name is not None else "an unknown key"
        return f"{known} ({self.fingerprint})"


def read_public_keys(paths: Iterable[Path]) -> tuple[PublicKey, ...]:
    """Read public keys from PEM files, one key per file.

    Raises
    ------
    KeyFileError
        A file cannot be read, or does not contain exactly one public Ed25519 key.
    """
    return tuple(_read_public_key(path) for path in paths)


def _read_public_key(path: Path) -> PublicKey:
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = read_key_file(path)
    if b"PRIVATE KEY" in content:
        raise KeyFileError(f"{path} contains a private key. Give the file of the public key.")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm, InternalError) as error:
        raise KeyFileError(f"{path} does not contain a public key in PEM format.") from error
    if not isinstance(key, Ed25519PublicKey) or content.count(b"-----BEGIN") != 1:
        raise KeyFileError(f"{path} must contain exactly one Ed25519 public key.")
    return PublicKey(path.name, key.public_bytes_raw())


def read_key_file(path: Path) -> bytes:
    """Read a key file's bytes.

    Raises
    ------
    KeyFileError
        The path is not a file, cannot be read, or is too large for a key.
    """
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise KeyFileError(f"There is no key file {path}.")
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"The key file {path} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_KEY_BYTES:
        raise KeyFileError(f"{path} is too large to be a key.")
    return content


def parse(content: bytes) -> Signature:
    """Read the output of :meth:`Signature.render`.

    Raises
    ------
    Refused
        ``bundle_signature_invalid``: the content has another form.
    """
    try:
        signature = Signature.model_validate_json(content)
    except ValidationError as error:
        raise _invalid(f"{SIGNATURE_FILE} does not contain a signature") from error
    if signature.render() != content:
        raise _invalid(f"{SIGNATURE_FILE} does not have the form that lungstage writes")
    return signature


def find_signer(contents: BundleFiles, trusted: tuple[PublicKey, ...]) -> Signer | None:
    """Return who signed a bundle.

    Parameters
    ----------
    contents
        The bundle's files.
    trusted
        Trusted keys. If any are given, one of them must have signed the bundle.

    Returns
    -------
    Signer or None
        None for a bundle without a signature.

    Raises
    ------
    Refused
        ``bundle_unsigned`` or ``bundle_signature_invalid`` if trusted keys are given and none of them signed exactly
        these bytes. ``bundle_signature_invalid`` also if ``manifest.sig`` is not a signature.
    """
    content = contents.get(SIGNATURE_FILE)
    if content is None:
        if trusted:
            raise Refused(
                ReasonCode.BUNDLE_UNSIGNED,
                "The bundle is not signed, but a signature with a trusted key is required (--trusted-key, or "
                "trusted_keys in the settings). Ask the publisher of the bundle for a signed copy.",
            )
        return None
    signature = parse(content)
    if not trusted:
        return Signer(signature.key, None)
    key = next((key for key in trusted if key.fingerprint == signature.key), None)
    if key is None:
        raise _invalid(
            f"it was made with the key {signature.key}, which is not among the trusted keys (--trusted-key or "
            "trusted_keys)"
        )
    if not key.verifies(bytes.fromhex(signature.signature), contents["manifest.json"]):
        raise _invalid(f"the key {key.name} did not sign this manifest.json")
    return Signer(key.fingerprint, key.name)


def _invalid(why: str) -> Refused:
    return Refused(
        ReasonCode.BUNDLE_SIGNATURE_INVALID,
        f"The bundle's signature is not valid: {why}. Ask the publisher of the bundle for a new copy.",
    )
