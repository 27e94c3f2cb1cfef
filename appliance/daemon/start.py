"""The daemon's start: its folders, its bundle, its processes and its ledger, put together for the loop."""

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
                f"Another daemon is at work on the state folder {state}. Stop it first, or name another --state."
            ) from error
        yield


def _prove_folders(settings: Settings, *, create: bool) -> None:
    """See to it that studies can be found and reports be written, before anything is promised."""
    if create:
        settings.inbox.mkdir(parents=True, exist_ok=True)
    try:
        os.scandir(settings.inbox).close()
    except FileNotFoundError as error:
        remedy = "Correct the path, mount what lies there, or let --create make it."
        raise Unavailable(f"There is no inbox {settings.inbox}. {remedy}") from error
    except OSError as error:
        remedy = "Name a folder that the daemon's user may read and search."
        raise Unavailable(f"The inbox {settings.inbox} cannot be read: {error.strerror}. {remedy}") from error
    try:
        settings.outbox.mkdir(parents=True, exist_ok=True)
        prove_writable(settings.outbox)
    except OSError as error:
        remedy = "Give it to the daemon's user (chown, chmod or setfacl), or look at its mount and its disk."
        told = f"No report can be written to the outbox {settings.outbox}: {error.strerror}."
        raise Unavailable(f"{told} {remedy}") from error


def serve(settings: Settings, wake: Wake, announce: Callable[[], None], *, create: bool = False) -> None:
    """Run the daemon until `wake` is told to stop.

    Parameters
    ----------
    settings
        How to run.
    wake
        Alarm that file events ring and signal handlers stop.
    announce
        Called once the inbox is watched.
    create
        Whether an inbox that is not there is made; else it is taken for a mistyped one.

    Raises
    ------
    Refused
        When the bundle is not signed as it must be or does not prove itself, or the table of covariates is not
        well-formed.
    KeyFileError
        When a trusted key cannot be used.
    Unavailable
        When inbox, outbox or state folder cannot be used, the state folder is in use, or the port for metrics cannot
        be opened.
    Damaged
        When the ledger is.
    """
    _prove_folders(settings, create=create)
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with sole_daemon(settings.state), _metering(settings) as meter:
        heartbeat.end(settings.state)  # of one that was killed: nothing here is alive yet
        shutil.rmtree(settings.state / SCRATCH, ignore_errors=True)
        files = read_files(settings.bundle)
        trusted = read_public_keys(settings.trusted_keys)
        find_signer(files, trusted)
        Site.read(settings.prevalence, settings.covariates)  # read for each study; what is wrong with it is said now
        with (
            at_work(settings, files, meter.process_started) as workers,
            Database(settings.state / "ledger.sqlite") as database,
        ):
            database.prove_writable()
            for gap in workers.confinement.gaps:
                logger.warning("not_confined", extra={"why": gap})
            gc.freeze()  # what was made at start-up stays: no collection need look at it again
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
    """Count for Prometheus until the block ends, where the settings name a port; else nothing of it is even loaded."""
    if settings.metrics_port is None:
        yield Meter()
        return
    from lungstage.appliance.daemon.prometheus import PrometheusMeter, serving

    meter = PrometheusMeter(settings.state)
    with serving(meter.registry, settings.metrics_port):
        yield meter
