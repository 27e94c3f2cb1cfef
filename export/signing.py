"""Create keys and sign bundles. :mod:`model.signature` defines and checks signatures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from lungstage.appliance.model.bundle import open_bundle, prove
from lungstage.appliance.model.bundle_files import SIGNATURE_FILE, read_files
from lungstage.appliance.model.signature import KeyFileError, PublicKey, Signature, read_key_file
from lungstage.training.files import write_whole


def generate(name: Path, passphrase: str | None) -> PublicKey:
    """Create a pair of keys: the private one in ``NAME.key``, readable by its owner only, the public in ``NAME.pub``.

    Parameters
    ----------
    name
        Path without ending; its folder exists.
    passphrase
        Encrypts the private key; None means no encryption.

    Raises
    ------
    KeyFileError
        One of the files already exists, or the passphrase is empty.
    """
    if passphrase == "":
        raise KeyFileError("The passphrase is empty. Give one, or omit --passphrase.")
    private_path, public_path = (name.with_name(name.name + ending) for ending in (".key", ".pub"))
    for path in (private_path, public_path):
        if path.exists():
            raise KeyFileError(f"{path} already exists and is not overwritten. Choose another name with -o.")
    key = Ed25519PrivateKey.generate()
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    _write_new(private_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), 0o600)
    public = key.public_key()
    _write_new(public_path, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return PublicKey(public_path.name, public.public_bytes_raw())


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_private_key(path: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """Read a private key from PEM.

    Parameters
    ----------
    path
        The file.
    ask
        Returns the passphrase; called if the key is encrypted.

    Raises
    ------
    KeyFileError
        The file cannot be read, is not a private Ed25519 key, or the passphrase is wrong.
    """
    content = read_key_file(path)
    passphrase = ask().encode() if b"ENCRYPTED" in content else None
    try:
        key = load_pem_private_key(content, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise KeyFileError(
            f"{path} does not contain a private key in PEM format, or the passphrase is wrong. Give the NAME.key file "
            "from keygen."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} contains a key of another type than Ed25519. lungstage-export keygen creates one.")
    return key


def sign(folder: Path, key: Ed25519PrivateKey) -> Signature:
    """Verify a bundle and sign it. An existing signature is replaced.

    Parameters
    ----------
    folder
        The bundle; ``manifest.sig`` is written into it in one step.
    key
        Private key of the signer.

    Raises
    ------
    Refused
        As :func:`model.bundle.load_bundle`; a bundle that fails verification is not signed.
    """
    folder = folder.resolve()
    contents = {name: content for name, content in read_files(folder).items() if name != SIGNATURE_FILE}
    prove(open_bundle(contents))
    manifest = contents["manifest.json"]
    public = PublicKey("", key.public_key().public_bytes_raw())
    signature = Signature(algorithm="Ed25519", key=public.fingerprint, signature=key.sign(manifest).hex())
    # Written next to the bundle first, so that a reader never finds an additional file in it.
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.sig")
    write_whole(beside, signature.render())
    beside.replace(folder / SIGNATURE_FILE)
    return signature
