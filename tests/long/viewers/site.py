"""A separate site: Orthanc with DICOMweb, and OHIF in front of it, on the loopback of a network namespace."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.long.viewers.peers import PLUGINS

_INSIDE = "LUNGSTAGE_VIEWERS_INSIDE"
ORTHANC, VIEWER = "http://127.0.0.1:8042", "http://127.0.0.1:8080"

_CONFIG = """
window.config = {
  routerBasename: '/', extensions: [], modes: [], showStudyList: true, defaultDataSourceName: 'orthanc',
  showLoadingIndicator: true, showWarningMessageForCrossOrigin: false, maxNumberOfWebWorkers: 2,
  investigationalUseDialog: { option: 'never' },
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: '/wado', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: false, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true, dicomUploadEnabled: false,
      omitQuotationForMultipartRequest: true, bulkDataURI: { enabled: true },
    },
  }],
};
"""


def enter_namespace(module: str = "tests.long.viewers.check") -> None:
    """Run a module in a separate network namespace, without connections to or from other hosts."""
    if _INSIDE not in os.environ:
        unshare = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        os.execvpe(
            unshare[0], [*unshare, sys.executable, "-m", module, *sys.argv[1:]],
            os.environ | {_INSIDE: "1"},
        )  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:  # ip link set lo up
        fcntl.ioctl(handle, 0x8914, struct.pack("16sh", b"lo", 0x49))


@contextlib.contextmanager
def serving(ohif: Path, folder: Path) -> Iterator[None]:
    """Run both until the block ends; Orthanc's database is below `folder`."""
    config = {
        "Name": "viewers", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "index"),
        "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")], "HttpPort": 8042, "DicomPort": 4242,
        "RemoteAccessAllowed": True, "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True, "WadoRoot": "/wado"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(config))
    with open(folder / "orthanc.log", "w") as log:
        orthanc = subprocess.Popen(["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log)
    server = ThreadingHTTPServer(("127.0.0.1", 8080), partial(_Front, directory=str(ohif)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        wait_for(f"{ORTHANC}/system", orthanc)
        yield
    finally:
        server.shutdown()
        orthanc.terminate()
        orthanc.wait(20)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError("Orthanc ended; its log is orthanc.log")
        with contextlib.suppress(OSError), urllib.request.urlopen(address):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{address} does not answer")


def store(path: Path) -> str:
    """Store a file in Orthanc; return its Orthanc name."""
    request = urllib.request.Request(f"{ORTHANC}/instances", data=path.read_bytes(), method="POST")
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["ID"])


def status(path: str) -> tuple[int, bytes]:
    """Return Orthanc's answer for a path."""
    try:
        with urllib.request.urlopen(f"{ORTHANC}{path}") as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class _Front(SimpleHTTPRequestHandler):
    """OHIF's files, its single page for every other address, and Orthanc under /dicom-web and /wado."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".wasm": "application/wasm", ".js": "text/javascript"}

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(("/dicom-web", "/wado")):
            self._hand_on()
        elif path == "/app-config.js":
            self._answer(200, "text/javascript", _CONFIG.encode())
        else:
            if not Path(self.translate_path(path)).is_file():
                self.path = "/index.html"
            super().do_GET()

    def _hand_on(self) -> None:
        # Orthanc builds the addresses of bulk data from the host; another host would be another origin for the browser.
        headers = {"Accept": self.headers.get("Accept", "*/*"), "Host": self.headers["Host"]}
        request = urllib.request.Request(f"{ORTHANC}{self.path}", headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                self._answer(answer.status, answer.headers["Content-Type"], answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, "text/plain", error.read())

    def _answer(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
