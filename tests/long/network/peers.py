"""Real peers: Orthanc with DICOMweb, and dcmtk's storescu, storescp and dcmqrscp."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.long.viewers.peers import PLUGINS
from tests.long.viewers.site import wait_for

PROGRAMS: Mapping[str, str] = {"Orthanc": "orthanc", "storescu": "dcmtk", "storescp": "dcmtk", "dcmqrscp": "dcmtk"}


@dataclass
class Certificates:
    """A certificate authority, and a certificate with its key for each side."""

    authority: Path
    gateway: tuple[Path, Path]
    peer: tuple[Path, Path]


@dataclass
class Orthanc:
    """An Orthanc with its database in a folder; it can be killed and started several times.

    Attributes
    ----------
    gateway_port
        The port of ``LUNGSTAGE``, where it reports storage commitments to.
    tls
        Certificates for DIMSE over mutual TLS; None: without.
    """

    folder: Path
    gateway_port: int = 11112
    dicom_port: int = 4242
    http_port: int = 8042
    tls: Certificates | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        modality = {
            "AET": "LUNGSTAGE",
            "Host": "localhost",
            "Port": self.gateway_port,
            "UseDicomTls": self.tls is not None,
        }
        config: dict[str, Any] = {
            "Name": "network", "StorageDirectory": str(self.folder / "db"), "IndexDirectory": str(self.folder / "db"),
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")], "HttpPort": self.http_port, "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port, "RemoteAccessAllowed": True, "AuthenticationEnabled": False,
            "DicomCheckCalledAet": True, "DicomModalities": {"lungstage": modality}, "OverwriteInstances": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "SyncStorageArea": True,
        }  # fmt: skip
        if self.tls is not None:
            config |= {
                "DicomTlsEnabled": True, "DicomTlsCertificate": str(self.tls.peer[0]),
                "DicomTlsPrivateKey": str(self.tls.peer[1]), "DicomTlsTrustedCertificates": str(self.tls.authority),
                "DicomTlsRemoteCertificateRequired": True,
            }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "orthanc.json").write_text(json.dumps(config))
        with open(self.folder / "orthanc.log", "a") as log:
            self.process = subprocess.Popen(["Orthanc", self.folder / "orthanc.json"], stdout=log, stderr=log)
        wait_for(f"{self.address}/system", self.process)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it; its database is kept."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            process.wait(60)

    def ask(self, path: str) -> Any:
        """Return its answer for a path, as JSON."""
        with urllib.request.urlopen(f"{self.address}{path}") as answer:
            return json.load(answer)

    def instances(self) -> dict[str, str]:
        """Return its names of its instances, by SOP Instance UID."""
        found = {}
        for one in self.ask("/instances?expand"):
            found[one["MainDicomTags"]["SOPInstanceUID"]] = one["ID"]
        return found

    def data_set(self, name: str) -> bytes:
        """Return the file of an instance."""
        with urllib.request.urlopen(f"{self.address}/instances/{name}/file") as answer:
            return bytes(answer.read())

    def changes(self) -> list[str]:
        """Return the names of all newly stored instances, in order."""
        found, since = [], 0
        while True:
            page = self.ask(f"/changes?since={since}&limit=1000")
            found += [one["ID"] for one in page["Changes"] if one["ChangeType"] == "NewInstance"]
            since = page["Last"]
            if page["Done"]:
                return found


def storescu(files: Iterable[Path], port: int, *, tls: Certificates | None = None, calling: str = "CT1") -> None:
    """Send files over one association, with dcmtk's storescu."""
    secured = []
    if tls is not None:
        secured = ["+tls", str(tls.peer[1]), str(tls.peer[0]), "+cf", str(tls.authority), "-ic"]
    command = ["storescu", *secured, "-R", "-aet", calling, "-aec", "LUNGSTAGE", "localhost", str(port)]
    subprocess.run([*command, *map(str, files)], check=True, stdout=subprocess.DEVNULL)


def storescp(folder: Path, port: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Receive into a folder, with a process for each association."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        ["storescp", "--fork", "+xa", "-pdu", "131072", "-aet", "STORESCP", "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | dict(environment or {}),
    )  # fmt: skip
    time.sleep(1.0)
    assert process.poll() is None, "storescp does not start"
    return process


def dcmqrscp(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Receive into a folder, and answer queries."""
    storage = folder / "QR"
    storage.mkdir(parents=True, exist_ok=True)
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\nHostTable BEGIN\nHostTable END\n\n"
        f"VendorTable BEGIN\nVendorTable END\n\nAETable BEGIN\nDCMQRSCP {storage} RW (2000, 8000mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen(
        ["dcmqrscp", "--config", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(1.0)
    assert process.poll() is None, "dcmqrscp does not start"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """End a peer."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
