"""The page over TLS with the site's certificate: other machines can reach it only with TLS."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

pytest.importorskip("uvicorn", reason="the extra page is not installed")

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.page.server import make_config
from lungstage.appliance.page.settings import load_site
from tests.support.serving import SECONDS, process
from tests.system.test_run import ENVIRONMENT, RUN

pytestmark = pytest.mark.slow


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([
                x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return paths


def settings(folder: Path, certificate: Path, key: Path, bind: str) -> Path:
    (folder / "state").mkdir(exist_ok=True)
    path = folder / "lungstage.toml"
    path.write_text(
        f'state = "{folder / "state"}"\n[page]\nbind = "{bind}"\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n'
    )
    return path


@dataclass(frozen=True)
class Served:
    port: int
    token: str
    certificate: Path

    def ask(self, path: str, **options: object) -> http.client.HTTPResponse:
        context = ssl.create_default_context(cafile=self.certificate)
        for name, value in options.items():
            setattr(context, name, value)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=SECONDS)
        connection.request("GET", path)
        return connection.getresponse()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page that other machines can reach."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder, "page")
    config = settings(folder, certificate, key, "0.0.0.0:0")
    with process("page", f"--config={config}", log=folder / "log"):
        found = re.search(r"open https://[^:]+:(\d+)/login\?token=(\S+)", (folder / "log").read_text())
        assert found
        yield Served(int(found[1]), found[2], certificate)


def test_it_is_served_to_who_trusts_the_certificate_and_cookies_are_for_tls_alone(served: Served) -> None:
    answer = served.ask(f"/login?token={served.token}")
    assert answer.status == 303
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-lungstage=")
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "domain" not in cookie.lower()


def test_who_does_not_trust_it_and_who_speaks_no_tls_gets_nothing(served: Served) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        Served(served.port, "", Path(ssl.get_default_verify_paths().openssl_cafile)).ask("/")
    plain = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)
    plain.request("GET", "/alive")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    assert served.ask("/alive").read() == b"alive", "the page still works"


def test_old_versions_of_tls_are_refused(served: Served) -> None:
    assert served.ask("/alive", minimum_version=ssl.TLSVersion.TLSv1_3).status == 200
    assert served.ask("/alive", maximum_version=ssl.TLSVersion.TLSv1_2).status == 200
    context = ssl.create_default_context(cafile=served.certificate)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = http.client.HTTPSConnection("127.0.0.1", served.port, context=context, timeout=SECONDS)
    with pytest.raises(ssl.SSLError):
        connection.request("GET", "/alive")


def faulty(folder: Path, fault: str) -> tuple[Path, Path]:
    """Make a certificate and a key; one of them is wrong."""
    certificate, key = make_certificate(folder, "one")
    if fault == "another key":
        _, key = make_certificate(folder, "two")
    elif fault == "no certificate":
        certificate.unlink()
    else:
        certificate.write_text("nonsense")
    return certificate, key


@pytest.mark.parametrize("fault", ["another key", "no certificate", "nonsense"])
def test_a_certificate_that_cannot_be_used_is_said(fault: str, tmp_path: Path) -> None:
    certificate, key = faulty(tmp_path, fault)
    site = load_site(settings(tmp_path, certificate, key, "127.0.0.1:0"), environment={})
    with pytest.raises(Unavailable, match=f"The certificate {certificate} or its key cannot be used"):
        make_config(None, site.page)


def test_it_is_said_in_one_line(tmp_path: Path) -> None:
    certificate, key = faulty(tmp_path, "another key")
    command = [*RUN, "page", f"--config={settings(tmp_path, certificate, key, '127.0.0.1:0')}"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=SECONDS)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert f"The certificate {certificate} or its key cannot be used" in line


def test_off_loopback_without_tls_it_does_not_start(tmp_path: Path) -> None:
    """test_access checks which addresses are off loopback."""
    (tmp_path / "state").mkdir()
    command = [*RUN, "page", f"--state={tmp_path / 'state'}", "--bind=0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=SECONDS)
    assert done.returncode == 2
    assert "there is no TLS" in done.stderr
    assert not [*(tmp_path / "state").iterdir()]
