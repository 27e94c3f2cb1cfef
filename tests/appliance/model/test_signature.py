"""Signatures of bundles: the algorithm agrees with RFC 8032, and everything else is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as make_p256
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.bundle_files import SIGNATURE_FILE, BundleFiles, read_files
from lungstage.appliance.model.signature import (
    MAX_KEY_BYTES,
    KeyFileError,
    PublicKey,
    Signature,
    Signer,
    find_signer,
    parse,
    read_public_keys,
)

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def public(key: Ed25519PrivateKey, name: str = "vendor.pub") -> PublicKey:
    return PublicKey(name, key.public_key().public_bytes_raw())


def signed(contents: BundleFiles, key: Ed25519PrivateKey) -> dict[str, bytes]:
    manifest = contents["manifest.json"]
    signature = Signature(algorithm="Ed25519", key=public(key).fingerprint, signature=key.sign(manifest).hex())
    return {**contents, SIGNATURE_FILE: signature.render()}


CONTENTS = signed({"manifest.json": b'{\n  "made": "up"\n}\n'}, KEY)
TRUSTED = (public(KEY),)


def code_of(contents: BundleFiles, trusted: tuple[PublicKey, ...] = TRUSTED) -> ReasonCode:
    with pytest.raises(Refused) as caught:
        find_signer(contents, trusted)
    return caught.value.reason.code


@pytest.mark.parametrize(("secret", "key", "message", "signature"), RFC_8032)
def test_rfc_8032(secret: str, key: str, message: str, signature: str) -> None:
    known = PublicKey("", bytes.fromhex(key))
    assert public(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)), "") == known
    assert known.verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not known.verifies(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")
    # S + L also satisfies the equation, but must be refused (section 5.1.7): a signature has only one form.
    order = 2**252 + 27742317777372353535851937790883648493
    r, s = bytes.fromhex(signature)[:32], int.from_bytes(bytes.fromhex(signature)[32:], "little")
    assert not known.verifies(r + (s + order).to_bytes(32, "little"), bytes.fromhex(message))


def test_a_trusted_key_s_signature_is_told_by_its_name() -> None:
    assert find_signer(CONTENTS, TRUSTED) == Signer(public(KEY).fingerprint, "vendor.pub")
    assert str(find_signer(CONTENTS, TRUSTED)) == f"the trusted key vendor.pub ({public(KEY).fingerprint})"


def test_several_keys_may_be_trusted_so_that_one_can_follow_another() -> None:
    both = (public(OTHER, "old.pub"), public(KEY, "new.pub"))
    assert str(find_signer(CONTENTS, both)).startswith("the trusted key new.pub")
    assert str(find_signer(signed(CONTENTS, OTHER), both)).startswith("the trusted key old.pub")


def test_without_a_trusted_key_nothing_is_required_and_nothing_believed() -> None:
    unsigned = {"manifest.json": CONTENTS["manifest.json"]}
    assert find_signer(unsigned, ()) is None
    assert str(find_signer(CONTENTS, ())) == f"an unknown key ({public(KEY).fingerprint})"
    altered = {**CONTENTS, "manifest.json": b"another"}
    assert find_signer(altered, ()) == Signer(public(KEY).fingerprint, None)
    assert code_of({**CONTENTS, SIGNATURE_FILE: b"junk"}, ()) is ReasonCode.BUNDLE_SIGNATURE_INVALID


def test_a_trusted_key_refuses_what_it_did_not_sign() -> None:
    assert code_of({"manifest.json": CONTENTS["manifest.json"]}) is ReasonCode.BUNDLE_UNSIGNED
    assert code_of(signed(CONTENTS, OTHER)) is ReasonCode.BUNDLE_SIGNATURE_INVALID
    another = signed({"manifest.json": b"another"}, KEY)
    assert code_of({**CONTENTS, SIGNATURE_FILE: another[SIGNATURE_FILE]}) is ReasonCode.BUNDLE_SIGNATURE_INVALID
    # The name of the trusted key with the signature of another.
    forged = parse(signed(CONTENTS, OTHER)[SIGNATURE_FILE]).model_copy(update={"key": public(KEY).fingerprint})
    assert code_of({**CONTENTS, SIGNATURE_FILE: forged.render()}) is ReasonCode.BUNDLE_SIGNATURE_INVALID


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_every_bit_of_manifest_and_signature_counts(name: str) -> None:
    content = bytearray(CONTENTS[name])
    for position in range(len(content)):
        for bit in range(8):
            content[position] ^= 1 << bit
            assert code_of({**CONTENTS, name: bytes(content)}) is ReasonCode.BUNDLE_SIGNATURE_INVALID, (position, bit)
            content[position] ^= 1 << bit


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"\n",
        lambda text: text.replace(b'"Ed25519"', b'"none"'),
        lambda text: text.replace(b"\n}", b',\n  "more": 1\n}'),
        lambda text: text.replace(b"  ", b""),
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=2).encode() + b"\n",
        lambda text: re.sub(rb'("signature": ")(\w+)', lambda found: found[1] + found[2].upper(), text),
        lambda text: re.sub(rb'("signature": ")\w\w', rb"\1", text),
        lambda text: re.sub(rb'"signature": "\w+"', b'"signature": null', text),
        lambda text: b"\xff" + text,
        lambda text: b"[" * 100_000,
        lambda text: b"",
    ],
)  # fmt: skip
@pytest.mark.parametrize("trusted", [(), TRUSTED])
def test_a_signature_has_one_form(change: object, trusted: tuple[PublicKey, ...]) -> None:
    changed = change(CONTENTS[SIGNATURE_FILE])  # type: ignore[operator]
    assert changed != CONTENTS[SIGNATURE_FILE]
    assert code_of({**CONTENTS, SIGNATURE_FILE: changed}, trusted) is ReasonCode.BUNDLE_SIGNATURE_INVALID


@given(st.binary(max_size=300))
def test_bytes_that_are_no_signature_are_refused_and_nothing_else(content: bytes) -> None:
    assert code_of({**CONTENTS, SIGNATURE_FILE: content}) is ReasonCode.BUNDLE_SIGNATURE_INVALID


# Key files


def pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_fingerprint_is_that_of_the_key_in_der(tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_bytes(pem(KEY))
    (key,) = read_public_keys([tmp_path / "a.pub"])
    assert key == public(KEY, "a.pub")
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.fingerprint == hashlib.sha256(der).hexdigest()


P256 = make_p256(SECP256R1())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not contain a public key"),
        (b"\x00\xff" * 50, "does not contain a public key"),
        (pem(KEY)[:60], "does not contain a public key"),
        (private_pem(KEY), "contains a private key"),
        (pem(KEY) + pem(OTHER), "must contain exactly one"),
        (P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "one Ed25519 public key"),
        (KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "does not contain a public key"),
        (pem(KEY) + b"#" * MAX_KEY_BYTES, "too large"),
    ],
)
def test_a_key_file_that_holds_something_else_is_said_so(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "key.pub").write_bytes(content)
    with pytest.raises(KeyFileError, match=why):
        read_public_keys([tmp_path / "key.pub"])


@given(content=st.binary(max_size=200), at=st.integers(0, 112), armoured=st.booleans())
def test_garbage_in_a_key_file_is_never_a_defect(content: bytes, at: int, armoured: bool) -> None:
    import tempfile

    text = pem(KEY)
    with tempfile.NamedTemporaryFile() as file:
        file.write(text[:at] + content + text[at + len(content) :] if armoured else content)
        file.flush()
        try:
            (key,) = read_public_keys([Path(file.name)])
        except KeyFileError:
            return
        assert len(key.raw) == 32


def test_what_is_no_file_is_said_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "pipe"):
        with pytest.raises(KeyFileError, match="no key file"):
            read_public_keys([path])


# A whole bundle


@pytest.fixture
def bundle(shipped_bundle: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(shipped_bundle, tmp_path / "bundle"))
    (folder / SIGNATURE_FILE).write_bytes(signed(read_files(folder), KEY)[SIGNATURE_FILE])
    return folder


def test_a_signed_bundle_says_who_signed_it(bundle: Path, shipped_bundle: Path) -> None:
    assert load_bundle(bundle, self_test=False, trusted=TRUSTED).signer == Signer(public(KEY).fingerprint, "vendor.pub")
    assert load_bundle(bundle, self_test=False).signer == Signer(public(KEY).fingerprint, None)
    assert load_bundle(shipped_bundle, self_test=False).signer is None
    assert load_bundle(bundle, self_test=False).digest == load_bundle(shipped_bundle, self_test=False).digest


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "extraction.yaml", "model.onnx"])
def test_the_signature_vouches_for_every_file_by_its_hash(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(Refused) as caught:
        load_bundle(bundle, self_test=False, trusted=TRUSTED)
    assert caught.value.reason.code is ReasonCode.BUNDLE_HASH_MISMATCH


def test_a_model_is_not_looked_at_before_its_signature(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"hostile")
    (bundle / SIGNATURE_FILE).unlink()
    with pytest.raises(Refused) as caught:
        load_bundle(bundle, trusted=TRUSTED)
    assert caught.value.reason.code is ReasonCode.BUNDLE_UNSIGNED


def test_nothing_is_imported_where_no_key_is_involved(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lungstage.appliance.model.bundle import load_bundle\n"
        f"signer = load_bundle(Path({str(bundle)!r}), self_test=False).signer\n"
        "print(signer is not None, 'cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "False"]
