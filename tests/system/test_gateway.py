"""``lungstage gateway`` as a process, over loopback: accepted callers and objects, and the state after a kill."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

pytest.importorskip("pynetdicom", reason="the extra gateway is not installed")
pytest.importorskip("uvicorn", reason="the extra gateway is not installed")

from lungstage.appliance.contract.arrival import FOLDER
from tests.support import network
from tests.support.commands import called
from tests.support.network import associate, free_port, peer, post, send, stow, until
from tests.support.outgoing import documents, fill
from tests.support.studies import Study, rtstruct_study
from tests.system.test_run import ENVIRONMENT, RUN

pytestmark = pytest.mark.slow


@dataclass
class Gateway:
    """A gateway with its folders; it can be started and ended several times."""

    root: Path
    more: str = ""
    receive: str = ""
    stow: str = ""
    top: str = ""

    def __post_init__(self) -> None:
        self.port, self.stow_port = free_port(), free_port()
        for folder in (self.inbox, self.outbox):
            folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f'inbox = "{self.inbox}"\noutbox = "{self.outbox}"\nstate = "{self.root / "gateway"}"\n'
            f"retry_seconds = 0.1\n{self.top}\n"
            f'[receive]\nbind = "127.0.0.1:{self.port}"\nmin_free_mb = 1\n{self.receive}\n'
            f'[receive.stow]\nbind = "127.0.0.1:{self.stow_port}"\n{self.stow}\n{self.more}\n'
        )

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @property
    def config(self) -> Path:
        return self.root / "gateway.toml"

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def start(self, **environment: str) -> None:
        with (self.root / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*RUN, "gateway", "--config", str(self.config)],
                stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT | environment,
            )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.log

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        if words:
            return called("gateway", "--config", self.config, *words)
        command = [*RUN, "gateway", "--config", str(self.config)]  # if it starts by mistake, it does not end
        return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60)

    def files(self) -> list[Path]:
        return sorted(path for path in self.inbox.rglob("*.dcm") if FOLDER not in path.parts)

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.inbox / FOLDER).iterdir() if path.name != "lock")


@contextmanager
def running(root: Path, **options: str) -> Iterator[Gateway]:
    gateway = Gateway(root, **options)
    gateway.start()
    try:
        yield gateway
    finally:
        if gateway.process.poll() is None:
            assert gateway.end() == 0, gateway.log
            assert "gateway_defect" not in gateway.log, gateway.log
            assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture(scope="module")
def study() -> Study:
    return rtstruct_study()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests that do not change it."""
    root = tmp_path_factory.mktemp("gateway")
    with running(root, receive='calling = ["CT1", "CT2"]\nmax_associations = 5\nmax_object_mb = 1') as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Iterator[Gateway]:
    yield shared
    until(lambda: shared.left() == [])
    for folder in shared.inbox.iterdir():
        if folder.name != FOLDER:
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def zeros(shared: Gateway) -> Iterator[socket.socket]:
    """A connection with invalid bytes, which the gateway closes after 10 s; it still answers other callers."""
    with socket.create_connection(("127.0.0.1", shared.port)) as connection:
        connection.sendall(bytes(100))
        yield connection


def everything(study: Study) -> list[Dataset]:
    return [*study.rois, *study.slices]


@pytest.mark.usefixtures("zeros")
def test_a_study_comes_in_by_c_store(gateway: Gateway, study: Study) -> None:
    assert set(send(gateway.port, everything(study))) == {0}
    assert {path.stem for path in gateway.files()} == {one.SOPInstanceUID for one in everything(study)}
    assert {path.parent.name for path in gateway.files()} == {study.slices[0].StudyInstanceUID}
    for path in gateway.files():
        assert path.read_bytes().startswith(bytes(128) + b"DICM")


def test_a_study_comes_in_by_stow_rs(gateway: Gateway, study: Study, tmp_path: Path) -> None:
    files = [network.write(one, tmp_path / "one") for one in everything(study)]
    status, answer = stow(gateway.stow_port, files)
    assert status == 200
    assert len(answer["00081199"]["Value"]) == len(files)
    assert {path.read_bytes() for path in gateway.files()} == set(files)


def test_stow_rs_says_what_it_did_not_take(gateway: Gateway, study: Study, tmp_path: Path) -> None:
    good = network.write(study.slices[0], tmp_path / "one")
    status, answer = stow(gateway.stow_port, [good, b"noise"])
    assert status == 202
    assert len(answer["00081198"]["Value"]) == 1
    assert stow(gateway.stow_port, [b"noise"])[0] == 409
    assert stow(gateway.stow_port, [good], "/studies/1.2.3")[0] == 409
    assert stow(gateway.stow_port, [good], f"/studies/{study.slices[0].StudyInstanceUID}")[0] == 200
    assert stow(gateway.stow_port, [])[0] == 400
    assert post(gateway.stow_port, b"{}", "application/json")[0] == 415
    assert stow(gateway.stow_port, [good + bytes(2 * 1024**2)])[0] == 507


def test_a_request_that_is_cut_short_leaves_nothing(gateway: Gateway, study: Study, tmp_path: Path) -> None:
    content = network.write(study.slices[0], tmp_path / "one")
    head = (
        "POST /studies HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n"
        'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n--b\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", gateway.stow_port)) as connection:
        connection.sendall(head.encode() + content[:1000])
        until(lambda: any(name.endswith(".part") for name in gateway.left()))
    until(lambda: gateway.left() == [])
    assert gateway.files() == []


def test_who_is_not_known_is_rejected(gateway: Gateway, study: Study) -> None:
    for wrong in ({"calling": "EVIL"}, {"called": "OTHER"}):
        association = associate(gateway.port, [CTImageStorage], **wrong)
        assert association.is_rejected
    until(lambda: sum("association_rejected" in line and "127.0.0.1" in line for line in gateway.log.splitlines()) == 2)


def test_c_echo_is_answered(gateway: Gateway) -> None:
    association = associate(gateway.port, ["1.2.840.10008.1.1"])
    assert association.send_c_echo().Status == 0
    association.release()


def test_what_is_of_no_use_is_not_accepted(gateway: Gateway) -> None:
    association = associate(gateway.port, [MRImageStorage, CTImageStorage])
    assert [context.abstract_syntax for context in association.accepted_contexts] == [CTImageStorage]
    association.release()


def test_the_study_is_marked_as_long_as_the_association_is_open(gateway: Gateway, study: Study) -> None:
    uid = study.slices[0].StudyInstanceUID
    first, second = (associate(gateway.port, [CTImageStorage], calling=f"CT{n}") for n in (1, 2))
    for association in (first, second):
        assert association.send_c_store(study.slices[0]).Status == 0
    assert gateway.left() == [f"{uid}.mark"]
    first.release()
    time.sleep(0.3)
    assert gateway.left() == [f"{uid}.mark"], "the other sender still sends"
    second.abort()
    until(lambda: gateway.left() == [])
    assert len(gateway.files()) == 1


def test_200_associations_at_once_harm_nobody(gateway: Gateway, study: Study) -> None:
    taken: list[str] = []

    def one() -> None:
        association = associate(gateway.port, [CTImageStorage])
        if association.is_established:
            taken.append("yes")
            time.sleep(1.0)
            association.release()

    threads = [threading.Thread(target=one) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert taken
    until(lambda: set(send(gateway.port, study.slices[:1])) == {0})
    assert psutil.Process(gateway.process.pid).memory_info().rss < 200 * 1024**2


def test_an_object_that_is_too_large_is_aborted_and_leaves_nothing(gateway: Gateway, study: Study) -> None:
    large = rtstruct_study().slices[0]
    large.Rows, large.Columns = 1000, 1000
    large.PixelData = bytes(2_000_000)
    association = associate(gateway.port, [CTImageStorage])
    assert "Status" not in association.send_c_store(large)
    until(lambda: not association.is_established)
    until(lambda: gateway.left() == [])
    assert gateway.files() == []


def test_a_c_store_that_stops_in_mid_data_set_leaves_nothing(gateway: Gateway, study: Study) -> None:
    association = associate(gateway.port, [CTImageStorage])
    sent, original = [0], association.dul.socket.send  # type: ignore[union-attr]

    def some(content: bytes) -> None:
        sent[0] += 1
        if sent[0] == 3:
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            return
        original(content)

    association.dul.socket.send = some  # type: ignore[union-attr, method-assign]
    large = rtstruct_study().slices[0]
    large.Rows, large.Columns, large.PixelData = 600, 600, bytes(720_000)
    association.send_c_store(large)
    assert sent[0] >= 3
    until(lambda: gateway.left() == [])
    assert gateway.files() == []
    assert "object_cut_short" in gateway.log


@pytest.mark.parametrize(
    "noise",
    [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BBL", 4, 0, 0xFFFFFFF0), b"\x01\x00\x7f\xff\xff\xff"],
    ids=["HTTP", "data that never ends", "request that never ends"],
)  # fmt: skip
def test_noise_on_the_port_harms_nobody(gateway: Gateway, study: Study, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(noise)
        until_ended(connection)
    assert send(gateway.port, study.slices[:1]) == [0]


def test_zeros_on_the_port_harm_nobody(gateway: Gateway, zeros: socket.socket, study: Study) -> None:
    until_ended(zeros)
    assert send(gateway.port, study.slices[:1]) == [0]


def until_ended(connection: socket.socket) -> None:
    """Read until the gateway closes the connection."""
    connection.settimeout(20)
    while connection.recv(4096):
        pass


def test_one_study_of_two_senders_at_once_is_one_study(gateway: Gateway, study: Study) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: statuses.extend(send(gateway.port, everything(study), calling=f"CT{n}")))
        for n in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {0}
    assert len(gateway.files()) == len(everything(study))


def test_only_the_ports_that_the_settings_name_are_open(gateway: Gateway) -> None:
    connections = psutil.Process(gateway.process.pid).net_connections()
    listening = {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    assert listening == {gateway.port, gateway.stow_port}


def test_while_the_disk_is_full_associations_are_rejected(tmp_path: Path, study: Study) -> None:
    full = tmp_path / "a"
    full.mkdir()
    gateway = Gateway(full)
    gateway.config.write_text(gateway.config.read_text().replace("min_free_mb = 1", "min_free_mb = 99999999"))
    gateway.start()
    association = associate(gateway.port, [CTImageStorage])
    assert association.is_rejected
    assert stow(gateway.stow_port, [b""])[0] == 503
    assert gateway.end() == 0
    assert "no_room" in gateway.log


def test_addresses_that_are_not_named_are_not_heard(tmp_path: Path) -> None:
    with running(tmp_path, receive='addresses = ["10.0.0.0/8"]') as gateway:
        association = associate(gateway.port, [CTImageStorage])
        assert not association.is_established
        until(lambda: "address_refused" in gateway.log)


def test_off_loopback_without_tls_and_token_it_does_not_start(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    text = gateway.config.read_text().replace(f"127.0.0.1:{gateway.stow_port}", f"0.0.0.0:{gateway.stow_port}")
    gateway.config.write_text(text)
    done = gateway.call()
    assert done.returncode == 2
    assert "both tls and token are needed" in done.stderr


def test_a_second_gateway_does_not_start(gateway: Gateway) -> None:
    done = gateway.call()
    assert done.returncode == 4
    assert "Another gateway" in done.stderr


# --- TLS ----------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority, and the certificates that it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name, self._key = folder, name, ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.ca"
        own = self._certificate(name, self._key, 1, is_authority=True)
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def _certificate(self, name: str, key: Any, days: int, *, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def sign(self, name: str, days: int = 1) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(name, key, days, is_authority=False)
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def secured(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    certificate, key = authority.sign("gateway")
    table = f'tls = {{certificate = "{certificate}", key = "{key}", clients = "{authority.file}"}}'
    root = tmp_path_factory.mktemp("secured")
    (root / "token").write_text("hunter2\n")
    with running(root, receive=table, stow=f'{table}\ntoken = "file:{root / "token"}"') as gateway:
        yield gateway
        assert "hunter2" not in gateway.log


def context_of(authority: Authority, own: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(*own)
    return context


def test_over_mutual_tls(secured: Gateway, authority: Authority, study: Study, tmp_path: Path) -> None:
    context = context_of(authority, authority.sign("client"))
    assert send(secured.port, study.slices[:1], tls_args=(context, "localhost")) == [0]
    content = network.write(study.slices[1], tmp_path / "one")
    assert stow(secured.stow_port, [content], token="hunter2", context=context)[0] == 200
    assert stow(secured.stow_port, [content], token="guessed", context=context)[0] == 401
    assert stow(secured.stow_port, [content], context=context)[0] == 401
    assert len(secured.files()) == 2


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired", "no TLS"])
def test_whoever_cannot_show_who_it_is_gets_no_association(
    secured: Gateway, authority: Authority, tmp_path: Path, who: str
) -> None:
    own = {
        "nobody": lambda: None,
        "stranger": lambda: Authority(tmp_path, "theirs").sign("client"),
        "expired": lambda: authority.sign("old", days=-1),
        "no TLS": lambda: None,
    }[who]()
    tls = {} if who == "no TLS" else {"tls_args": (context_of(authority, own), "localhost")}
    association = associate(secured.port, [CTImageStorage], **tls)
    assert not association.is_established


def test_tls_on_against_tls_off(gateway: Gateway, authority: Authority) -> None:
    association = associate(gateway.port, [CTImageStorage], tls_args=(context_of(authority, None), "localhost"))
    assert not association.is_established


def test_a_slow_handshake_holds_up_nobody(secured: Gateway, authority: Authority, study: Study) -> None:
    with socket.create_connection(("127.0.0.1", secured.port)):
        context = context_of(authority, authority.sign("client"))
        began = time.monotonic()
        assert send(secured.port, study.slices[:1], tls_args=(context, "localhost")) == [0]
        assert time.monotonic() - began < 8


@pytest.mark.parametrize("fault", ["none", "wrong authority", "expired", "wrong name", "no TLS there"])
def test_out_over_tls_checks_whom_it_speaks_to(tmp_path: Path, authority: Authority, fault: str) -> None:
    theirs = Authority(tmp_path, "theirs") if fault == "wrong authority" else authority
    certificate = theirs.sign("pacs", days=-1 if fault == "expired" else 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with peer(ssl_context=None if fault == "no TLS there" else context) as one:
        host = "127.0.0.1" if fault == "wrong name" else "localhost"
        route = f'[[route]]\nwhat = ["sr"]\nto = "dicom://PACS@{host}:{one.port}"\ntls = {{ca = "{authority.file}"}}'
        done = Gateway(tmp_path, more=route).call("test", f"dicom://PACS@{host}:{one.port}")
    assert (done.returncode == 0) == (fault == "none"), done.stderr
    assert done.returncode in (0, 4)


# --- out ----------------------------------------------------------------------------------------------------------


def test_documents_go_out_and_the_archive_calls_back_to_commit_itself(tmp_path: Path) -> None:
    with peer() as one:
        route = f'[[route]]\nwhat = ["sr", "seg", "pdf"]\nto = "dicom://PACS@127.0.0.1:{one.port}"\nname = "pacs"'
        with running(tmp_path, more=route) as gateway:
            one.calls_back = ("LUNGSTAGE", gateway.port)
            fill(gateway.outbox)
            until(lambda: '"count": 3' in gateway.call("queue", "--json").stdout)
            until(lambda: "delivered" in gateway.call("queue").stdout and "stored" not in gateway.call("queue").stdout)
            assert "SR, SEG" in gateway.call("test", "pacs").stdout
            assert gateway.call("test", "nowhere").returncode == 2
            assert gateway.call("retry", "99").returncode == 2
    assert set(one.received.values()) == {1}
    assert len(one.kept) == 3


def test_killed_at_any_moment_it_loses_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    with peer(offers_commitment=False) as one:
        route = f'[[route]]\nwhat = ["sr", "seg", "pdf"]\nto = "dicom://PACS@127.0.0.1:{one.port}"'
        gateway = Gateway(tmp_path, more=route)
        fill(gateway.outbox)
        for pause in (0.0, 0.1, 0.3):
            gateway.start()
            time.sleep(pause)
            gateway.end(signal.SIGKILL)
        gateway.start()
        until(lambda: len(one.kept) == 3)
        time.sleep(1.5)
        assert gateway.end() == 0
    assert set(one.received.values()) == {1}


def test_what_was_acknowledged_before_a_kill_is_there_and_whole(tmp_path: Path, study: Study) -> None:
    gateway = Gateway(tmp_path)
    acknowledged: set[str] = set()
    for _ in range(2):
        gateway.start()
        association = associate(gateway.port, [CTImageStorage])
        killer = threading.Timer(0.15, lambda: os.kill(gateway.process.pid, signal.SIGKILL))
        killer.start()
        for one in study.slices:
            try:
                if association.send_c_store(one).get("Status") == 0:
                    acknowledged.add(str(one.SOPInstanceUID))
            except RuntimeError:
                break
        killer.join()
        gateway.process.wait(60)
        association.abort()
        there = {path.stem for path in gateway.files()}
        assert acknowledged <= there
    gateway.start()
    assert set(send(gateway.port, study.slices)) == {0}
    until(lambda: gateway.left() == [])
    assert len(gateway.files()) == len(study.slices)
    for path in gateway.files():
        import pydicom

        pydicom.dcmread(path).pixel_array  # noqa: B018
    assert gateway.end() == 0


def test_without_an_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "hidden" / "pynetdicom").mkdir(parents=True)
    (tmp_path / "hidden" / "pynetdicom" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pynetdicom'\", name='pynetdicom')"
    )
    gateway = Gateway(tmp_path)
    path = os.pathsep.join([str(tmp_path / "hidden"), ENVIRONMENT.get("PYTHONPATH", "")])
    command = [*RUN, "gateway", "--config", str(gateway.config)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT | {"PYTHONPATH": path}, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'lungstage[gateway]'" in done.stderr


def test_check_report_says_what_holds_and_what_does_not(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.dcm", tmp_path / "bad.dcm"
    content = bytes(documents()[-1].content)
    good.write_bytes(content)
    bad.write_bytes(content.replace(b"UNVERIFIED", b"VERIFIED  "))

    assert called("check-report", good).returncode == 0
    done = called("check-report", bad)
    assert done.returncode == 3
    assert "air-unverified" in done.stdout
