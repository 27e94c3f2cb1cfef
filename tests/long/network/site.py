"""Daemon and gateway of one site, as processes over the same folders."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom

from tests.long.network.peers import Certificates
from tests.long.reliability.house import House

COMMAND = (sys.executable, "-m", "lungstage.appliance.cli.main")


class Site:
    """A daemon and a gateway.

    Parameters
    ----------
    root
        Folder for all files.
    bundle
        The daemon's bundle.
    routes
        Where documents are sent to.
    tls
        Certificates of the gateway; None: without TLS.
    more
        Further settings of the gateway, at the top of its file.
    """

    def __init__(
        self, root: Path, bundle: Path, routes: Sequence[str], tls: Certificates | None = None, more: str = ""
    ) -> None:
        self.house = House(root, bundle, {"LUNGSTAGE_WORKERS": "1"})
        self.port, self.stow_port, self.root = 11112, 11113, root
        secured = ""
        if tls is not None:
            certificate, key = tls.gateway
            secured = f'tls = {{certificate = "{certificate}", key = "{key}", clients = "{tls.authority}"}}\n'
            client = f'tls = {{ca = "{tls.authority}", certificate = "{certificate}", key = "{key}"}}\n'
        else:
            client = ""
        self.config = root / "gateway.toml"
        self.config.write_text(
            f'inbox = "{root / "inbox"}"\noutbox = "{root / "outbox"}"\nstate = "{root / "gateway"}"\n'
            f'daemons = ["{root / "state"}"]\nretry_seconds = 0.5\n'
            f"retry_max_seconds = 5\ncommitment_seconds = 30\n{more}\n"
            f'[receive]\nbind = "127.0.0.1:{self.port}"\nmin_free_mb = 100\n{secured}'
            f'[receive.stow]\nbind = "127.0.0.1:{self.stow_port}"\n'
            + "".join(
                f'[[route]]\nwhat = ["sr", "seg", "pdf"]\nto = "{to}"\n{client if to.startswith("dicom") else ""}'
                for to in routes
            )
        )
        self._gateway: subprocess.Popen[str] | None = None

    @property
    def gateway_pid(self) -> int:
        assert self._gateway is not None
        return self._gateway.pid

    def start_gateway(self) -> None:
        with (self.root / "gateway.log").open("a") as log:
            self._gateway = subprocess.Popen(
                [*COMMAND, "gateway", "--config", str(self.config)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._gateway.stdout is not None
        assert self._gateway.stdout.readline() == "ready\n", (self.root / "gateway.log").read_text()[-2000:]

    def end_gateway(self, number: int = signal.SIGTERM) -> int:
        gateway, self._gateway = self._gateway, None
        if gateway is None:
            return 0
        gateway.send_signal(number)
        status = gateway.wait(60)
        assert gateway.stdout is not None
        gateway.stdout.close()
        return status

    def queue(self) -> dict[str, Any]:
        """Return the state of the queue."""
        command = [*COMMAND, "gateway", "--config", str(self.config), "queue", "--json"]
        said: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return said

    def counts(self) -> dict[str, int]:
        """Count the deliveries in each state."""
        found: dict[str, int] = {}
        for one in self.queue()["counts"]:
            found[one["state"]] = found.get(one["state"], 0) + one["count"]
        return found

    def documents(self) -> dict[str, bytes]:
        """Return the documents in the outbox, by SOP Instance UID."""
        return {path.stem.partition("-")[2]: path.read_bytes() for path in self.house.outbox.glob("*.dcm")}


def data_set(content: bytes) -> bytes:
    """Return the bytes after a file's meta information."""
    file = io.BytesIO(content)
    pydicom.filereader.read_preamble(file, False)
    pydicom.filereader._read_file_meta_info(file)
    return content[file.tell() :]
