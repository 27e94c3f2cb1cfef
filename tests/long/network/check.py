"""``make network``: a study from storescu to SR, SEG and PDF in a real archive, within five seconds, by every way.

Orthanc and dcmtk's tools run in a network namespace, where nobody else hears them. What is seen is asserted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pydicom

from lungstage.appliance.staging import phantom
from tests.conftest import ROOT
from tests.long.network import peers
from tests.long.network.peers import Certificates, Orthanc, storescu
from tests.long.network.site import Site, data_set
from tests.long.reliability.house import make_bundle, until
from tests.long.viewers import peers as viewers
from tests.long.viewers.site import enter_namespace
from tests.support.network import stow
from tests.support.studies import Study, contour, structure_set
from tests.system.test_gateway import Authority

LIMIT_SECONDS = 5.0
LONG_SECONDS = 60.0


def study(folder: Path, name: str) -> list[Path]:
    """Write a CT of the phantom with an RTSTRUCT, 18 slices; return the files in order of their names."""
    slices = phantom.ct_datasets(phantom.make()[0][7:25, 48:144, 48:144], name)
    square = [(20.0, 20.0), (20.0, 75.0), (75.0, 75.0), (75.0, 20.0)]
    drawn = {"GTV-1": [contour(image, square) for image in slices[3:-3]]}
    Study(slices, [structure_set(slices, drawn, slices)]).write(folder / name)
    return sorted((folder / name).iterdir())


def faults(found: Mapping[str, bytes], made: Mapping[str, bytes]) -> Iterator[str]:
    """Compare an archive with the outbox: every document must be in it, byte-identical."""
    if len(made) != 3:
        yield f"{len(made)} documents were made, and not SR, SEG and PDF"
    for uid in sorted(made):
        if uid not in found:
            yield f"{uid} is not there"
        elif data_set(found[uid]) != data_set(made[uid]):
            yield f"{uid} is not byte-identical"


def of_orthanc(orthanc: Orthanc) -> dict[str, bytes]:
    """Return all instances in an Orthanc, by SOP Instance UID."""
    return {uid: orthanc.data_set(name) for uid, name in orthanc.instances().items()}


def of_folder(folder: Path) -> dict[str, bytes]:
    """Return all instances that a dcmtk tool has written, by SOP Instance UID."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.read_bytes()[128:132] == b"DICM":
            found[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path.read_bytes()
    return found


def there_and_back(site: Site, send: Callable[[], None], arrived: Callable[[], int]) -> tuple[float, str]:
    """Send a study; return the seconds from its last image to the arrival of the last document, and any fault."""
    before = arrived()
    send()
    began = time.monotonic()
    if not until(lambda: arrived() >= before + 3, LONG_SECONDS, poll=0.02):
        return LONG_SECONDS, f"{arrived() - before} of 3 documents came; queue: {site.queue()}"
    seconds = time.monotonic() - began
    return seconds, "" if seconds <= LIMIT_SECONDS else f"it took {seconds:.1f} s"


def with_orthanc(root: Path, bundle: Path, tls: Certificates | None) -> Iterator[tuple[str, str]]:
    """Receive from storescu and STOW-RS, and send to Orthanc by C-STORE with storage commitment."""
    orthanc = Orthanc(root / "orthanc", tls=tls)
    site = Site(root / "site", bundle, ["dicom://ORTHANC@localhost:4242"], tls)
    orthanc.start()
    site.house.start()
    assert site.house.ready(120)
    site.start_gateway()
    how = "mutual TLS" if tls else "no TLS"
    try:
        files = study(root, f"one {how}")
        seconds, fault = there_and_back(
            site, lambda: storescu(files, site.port, tls=tls), lambda: len(orthanc.instances())
        )
        yield f"storescu, {how}, Orthanc: {seconds:.1f} s", fault
        if not until(lambda: site.counts() == {"delivered": 3}, LONG_SECONDS):
            yield f"storage commitment, {how}", f"{site.queue()}"
        else:
            yield f"storage commitment, {how}", ""
        yield f"documents, {how}", "; ".join(faults(of_orthanc(orthanc), site.documents()))
        again = study(root, f"two {how}")

        def by_stow() -> None:
            status, _ = stow(site.stow_port, [path.read_bytes() for path in again])
            assert status == 200, status

        seconds, fault = there_and_back(site, by_stow, lambda: len(orthanc.instances()))
        yield f"STOW-RS in, {how} out: {seconds:.1f} s", fault
    finally:
        site.end_gateway()
        site.house.stop()
        orthanc.stop()


def with_others(root: Path, bundle: Path) -> Iterator[tuple[str, str]]:
    """Send to storescp, dcmqrscp, Orthanc's STOW-RS and a folder at once."""
    orthanc = Orthanc(root / "orthanc")
    orthanc.start()
    receiver = peers.storescp(root / "storescp", 4243)
    archive = peers.dcmqrscp(root / "dcmqrscp", 4244)
    (root / "folder").mkdir()
    routes = [
        "dicom://STORESCP@localhost:4243", "dicom://DCMQRSCP@localhost:4244",
        f"{orthanc.address}/dicom-web/studies", (root / "folder").as_uri(),
    ]  # fmt: skip
    site = Site(root / "site", bundle, routes)
    site.house.start()
    assert site.house.ready(120)
    site.start_gateway()
    try:
        storescu(study(root, "three"), site.port)
        came = until(lambda: site.counts() == {"delivered": 12}, LONG_SECONDS)
        yield "all destinations", "" if came else f"{site.queue()}"
        made = site.documents()
        yield "storescp", "; ".join(faults(of_folder(root / "storescp"), made))
        yield "dcmqrscp", "; ".join(faults(of_folder(root / "dcmqrscp"), made))
        yield "Orthanc by STOW-RS", "; ".join(faults(of_orthanc(orthanc), made))
        yield "folder", "; ".join(faults(of_folder(root / "folder"), made))
    finally:
        site.end_gateway()
        site.house.stop()
        peers.end(receiver)
        peers.end(archive)
        orthanc.stop()


def certificates(folder: Path) -> Certificates:
    """Make a certificate authority, and the certificates that it signs."""
    folder.mkdir()
    authority = Authority(folder, "authority")
    return Certificates(authority.file, authority.sign("gateway"), authority.sign("peer"))


def main() -> int:
    """Try every way, and print what is wrong."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    if missing := sorted(set(viewers.missing(peers.PROGRAMS))):
        raise SystemExit(f"Install first: apt-get install {' '.join(missing)}")
    enter_namespace("tests.long.network.check")
    os.chdir(ROOT)
    found = 0
    with tempfile.TemporaryDirectory(prefix="lungstage-network-") as name:
        root = Path(name)
        bundle = make_bundle(root / "bundle")
        secured = certificates(root / "tls")
        for number, part in enumerate(
            (
                lambda at: with_orthanc(at, bundle, None),
                lambda at: with_orthanc(at, bundle, secured),
                lambda at: with_others(at, bundle),
            )
        ):
            for what, fault in part(root / str(number)):
                print(f"{what}: {fault or 'well'}", flush=True)
                found += bool(fault)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
