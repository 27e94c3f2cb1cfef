"""The daemon's start: prepares folders, bundle, processes and ledger, and runs the loop."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lungstage.appliance.config.disks import prove_writable
from lungstage.appliance.config.logs import logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.daemon import hot_swap
from lungstage.appliance.daemon.hot_swap import HotSwap
from lungstage.appliance.daemon.loop import Daemon, Steps
from lungstage.appliance.daemon.metrics import Meter
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.intake.watch import Wake, Watcher
from lungstage.appliance.model.bundle_files import digest_of, read_files
from lungstage.appliance.model.signature import find_signer, read_public_keys
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.state import heartbeat
from lungstage.appliance.state.audit import Audit
from lungstage.appliance.state.database import Database
from lungstage.appliance.workers.bundle_workers import at_work
from lungstage.appliance.workers.messages import SCRATCH


@contextlib.contextmanager
def sole_daemon(state: Path) -> Iterator[None]:
    """Hold the state folder's lock.

    Raises
    ------
    Unavailable
        When another daemon holds it.
    """
    with (state / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                f"Another daemon is running on the state folder {state}. Stop that daemon first, or give this one "
                "another state folder (--state)."
            ) from error
        yield


def _prove_folders(settings: Settings, *, create: bool) -> None:
    """Check that the inbox can be read and the outbox can be written, before the daemon says that it is ready."""
    if create:
        settings.inbox.mkdir(parents=True, exist_ok=True)
    try:
        os.scandir(settings.inbox).close()
    except FileNotFoundError as error:
        remedy = "Correct the path, mount its disk or share, or start with --create to make the folder."
        raise Unavailable(f"There is no inbox {settings.inbox}. {remedy}") from error
    except OSError as error:
        remedy = "Give the daemon's user the right to read and enter this folder (chmod or setfacl)."
        raise Unavailable(f"The inbox {settings.inbox} cannot be read: {error.strerror}. {remedy}") from error
    try:
        settings.outbox.mkdir(parents=True, exist_ok=True)
        prove_writable(settings.outbox)
    except OSError as error:
        remedy = "Give the daemon's user the right to write there (chown, chmod or setfacl), and check mount and disk."
        told = f"No report can be written to the outbox {settings.outbox}: {error.strerror}."
        raise Unavailable(f"{told} {remedy}") from error


def serve(settings: Settings, wake: Wake, announce: Callable[[], None], *, create: bool = False) -> None:
    """Run the daemon until `wake` is told to stop.

    Parameters
    ----------
    settings
        The daemon's settings.
    wake
        Wakes the loop on file events, and stops it on a signal.
    announce
        Called when the daemon is ready and watches the inbox.
    create
        Whether to make a missing inbox; if not, its path counts as mistyped.

    Raises
    ------
    Refused
        The bundle lacks a needed signature or fails its self-test, or the covariates table is not well-formed.
    KeyFileError
        A trusted key cannot be used.
    Unavailable
        Inbox, outbox or state folder cannot be used, another daemon uses the state folder, or the metrics port cannot
        be opened.
    Damaged
        The ledger is damaged.
    """
    _prove_folders(settings, create=create)
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with sole_daemon(settings.state), _metering(settings) as meter:
        heartbeat.end(settings.state)  # a killed daemon may have left its heartbeat
        shutil.rmtree(settings.state / SCRATCH, ignore_errors=True)
        files = read_files(settings.bundle)
        trusted = read_public_keys(settings.trusted_keys)
        find_signer(files, trusted)
        Site.read(settings.prevalence, settings.covariates)  # it is read again for each study; errors show here first
        with (
            at_work(settings, files, meter.process_started) as workers,
            Database(settings.state / "ledger.sqlite") as database,
        ):
            database.prove_writable()
            for gap in workers.confinement.gaps:
                logger.warning("not_confined", extra={"why": gap})
            gc.freeze()  # objects made at the start stay for ever, so garbage collection need not visit them
            gc.enable()
            watcher = Watcher(settings.inbox, wake, settings.watch)
            watcher.start()
            steps = Steps(
                workers.read_headers, assemble, workers.prepare, workers, workers.write_phantom, workers.explain
            )
            tell = partial(hot_swap.tell, audit=Audit(settings.state))
            swap = HotSwap(settings, files, trusted, workers, time.monotonic, tell) if settings.watch_bundle else None
            try:
                daemon = Daemon(settings, digest_of(files), steps, database, wake, watcher, swap=swap, meter=meter)
                daemon.run(announce)
            finally:
                watcher.stop()


@contextlib.contextmanager
def _metering(settings: Settings) -> Iterator[Meter]:
    """Provide metrics until the block ends if the settings name a port; otherwise load no code for them."""
    if settings.metrics_port is None:
        yield Meter()
        return
    from lungstage.appliance.daemon.prometheus import PrometheusMeter, serving

    meter = PrometheusMeter(settings.state)
    with serving(meter.registry, settings.metrics_port):
        yield meter
