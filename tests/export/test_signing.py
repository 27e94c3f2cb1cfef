"""Keys and signatures from the command line; openssl accepts them."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from lungstage.appliance.model.bundle_files import SIGNATURE_FILE, digest_of, read_files
from lungstage.appliance.model.signature import parse, read_public_keys
from tests.export.test_cli import status


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "bundle"))


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert status(monkeypatch, "keygen", "-o", tmp_path / "vendor") == 0
    return tmp_path / "vendor.key"


def test_sign_then_verify(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key, public = tmp_path / "vendor.key", tmp_path / "vendor.pub"
    assert status(monkeypatch, "keygen", "-o", tmp_path / "vendor") == 0
    (known,) = read_public_keys([public])
    assert known.fingerprint in capsys.readouterr().out
    digest = digest_of(read_files(bundle))
    assert status(monkeypatch, "verify", bundle) == 0
    assert "Not signed." in capsys.readouterr().out
    assert status(monkeypatch, "verify", bundle, "--trusted-key", public) == 3
    assert "bundle_unsigned" in capsys.readouterr().err
    assert status(monkeypatch, "sign", bundle, "--key", key) == 0
    assert digest_of(read_files(bundle)) == digest
    capsys.readouterr()
    assert status(monkeypatch, "verify", bundle, "--trusted-key", public) == 0
    assert f"Signed by the trusted key vendor.pub ({known.fingerprint})." in capsys.readouterr().out
    assert status(monkeypatch, "verify", bundle) == 0
    assert f"Signed by an unknown key ({known.fingerprint})." in capsys.readouterr().out


def test_a_later_signature_replaces_the_former(bundle: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(monkeypatch, "keygen", "-o", key.with_name("next")) == 0
    for each in (key, key.with_name("next.key")):
        assert status(monkeypatch, "sign", bundle, "--key", each) == 0
        first = (bundle / SIGNATURE_FILE).read_bytes()
        assert status(monkeypatch, "sign", bundle, "--key", each) == 0
        assert (bundle / SIGNATURE_FILE).read_bytes() == first  # Ed25519 is deterministic
    assert status(monkeypatch, "verify", bundle, "--trusted-key", key.with_suffix(".pub")) == 3
    keys = ("--trusted-key", key.with_suffix(".pub"), "--trusted-key", key.with_name("next.pub"))
    assert status(monkeypatch, "verify", bundle, *keys) == 0
    assert {path.name for path in bundle.parent.iterdir()} == {
        "bundle", "vendor.key", "vendor.pub", "next.key", "next.pub",
    }  # fmt: skip


def test_what_does_not_prove_itself_is_not_signed(bundle: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (bundle / "MODEL_CARD.md").open("ab") as file:
        file.write(b"\n")
    assert status(monkeypatch, "sign", bundle, "--key", key) == 3
    assert not (bundle / SIGNATURE_FILE).exists()


def test_openssl_agrees(bundle: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    assert status(monkeypatch, "sign", bundle, "--key", key) == 0
    signature = parse((bundle / SIGNATURE_FILE).read_bytes())
    (tmp_path / "raw").write_bytes(bytes.fromhex(signature.signature))
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(key.with_suffix(".pub"))]
    command += ["-in", str(bundle / "manifest.json"), "-sigfile", str(tmp_path / "raw")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Signature Verified Successfully", done.stderr
    command = ["openssl", "pkey", "-pubin", "-in", str(key.with_suffix(".pub")), "-outform", "DER", "-out"]
    subprocess.run([*command, str(tmp_path / "der")], check=True)
    done = subprocess.run(["openssl", "sha256", str(tmp_path / "der")], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == signature.key


def test_the_private_key_is_its_owner_s_alone_and_never_overwritten(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    before = key.read_bytes(), key.with_suffix(".pub").read_bytes()
    assert status(monkeypatch, "keygen", "-o", key.with_suffix("")) == 2
    key.rename(key.with_name("elsewhere"))
    assert status(monkeypatch, "keygen", "-o", key.with_suffix("")) == 2
    assert not key.exists()
    assert (key.with_name("elsewhere").read_bytes(), key.with_suffix(".pub").read_bytes()) == before


def test_a_passphrase_protects_the_key(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNGSTAGE_PASSPHRASE", "correct horse")
    assert status(monkeypatch, "keygen", "-o", tmp_path / "closed", "--passphrase") == 0
    assert (tmp_path / "closed.key").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert status(monkeypatch, "sign", bundle, "--key", tmp_path / "closed.key") == 0
    monkeypatch.setenv("LUNGSTAGE_PASSPHRASE", "battery staple")
    assert status(monkeypatch, "sign", bundle, "--key", tmp_path / "closed.key") == 2
    assert "passphrase is wrong" in capsys.readouterr().err
    monkeypatch.setenv("LUNGSTAGE_PASSPHRASE", "")
    assert status(monkeypatch, "keygen", "-o", tmp_path / "empty", "--passphrase") == 2
    assert not (tmp_path / "empty.key").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 99, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_garbage_for_a_key_is_usage(
    bundle: Path, key: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    public = key.with_suffix(".pub")
    assert status(monkeypatch, "sign", bundle, "--key", public) == 2
    assert status(monkeypatch, "sign", bundle, "--key", bundle / "nowhere") == 2
    key.write_bytes(content)
    assert status(monkeypatch, "sign", bundle, "--key", key) == 2
    assert status(monkeypatch, "verify", bundle, "--trusted-key", key) == 2
    assert capsys.readouterr().err.count("usage: ") == 4
    assert not (bundle / SIGNATURE_FILE).exists()


def test_building_anew_removes_the_signature_of_the_former(
    bundle: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.export.conftest import make_run

    make_run(1).save(tmp_path / "run")
    assert status(monkeypatch, "sign", bundle, "--key", key) == 0
    assert status(monkeypatch, "build", tmp_path / "run", "-o", bundle) == 0
    assert not (bundle / SIGNATURE_FILE).exists()
