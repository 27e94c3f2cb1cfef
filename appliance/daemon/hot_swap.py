"""The hot swap: verifies a new bundle that is copied into the folder while the daemon runs, and takes or refuses it.

During a copy the folder looks like a broken bundle. So the daemon reads the files only after they have been unchanged
for a time, and announces a refusal only after a longer time. A bundle is checked in two steps. The signature is
checked here. Everything else, also the golden case, is checked in separate processes, where a failure does no harm.
The bundle in use continues until these processes are ready, and also if the new bundle is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lungstage.appliance.config.logs import defect, logger
from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import DefectError, ExhaustedError, ReasonCode, Refused, Unavailable
from lungstage.appliance.contract.source import Source
from lungstage.appliance.daemon.dispatcher import pause_after, told
from lungstage.appliance.model.bundle_files import BUNDLE_FILES, SIGNATURE_FILE, BundleFiles, digest_of, read_files
from lungstage.appliance.model.signature import PublicKey, find_signer
from lungstage.appliance.state.audit import Audit

_Stamp = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class BundleEvent:
    """The result of the check of a new bundle while the daemon runs.

    Attributes
    ----------
    digest
        Digest of the bundle; None if it has no manifest.
    in_use
        Digest of the bundle in use until then; it stays in use if the new one is refused.
    signer
        Fingerprint of the key that the signature is from, or claims to be from; None without a readable signature.
    code
        Why the bundle was refused; None if it was taken.
    """

    digest: str | None
    in_use: str
    signer: str | None = None
    code: ReasonCode | None = None


def tell(event: BundleEvent, audit: Audit) -> None:
    """Write the result for a bundle to the audit log, then to the log.

    Only codes and digests are written: a foreign file in the folder may contain a person's name. `lungstage verify`
    on the folder gives the details.

    Raises
    ------
    Unavailable
        The audit log cannot be written at the moment.
    """
    about = {"bundle": event.digest, "signed_by": event.signer}
    if event.code is None:
        about |= {"former": event.in_use}
        audit.write("bundle_taken", **about)
        logger.info("bundle_taken", extra=about)
    else:
        about |= {"code": event.code, "kept": event.in_use}
        audit.write("bundle_refused", **about)
        logger.warning("bundle_refused", extra=about)


class Candidate(Source, Protocol):
    """The processes that check a bundle: :class:`workers.bundle_workers.BundleWorkers`."""

    def is_set_up(self) -> bool:
        """Whether they are ready to answer with the bundle; raises an error if they cannot become ready."""


class Candidates(Protocol):
    """Starts and ends such processes: :class:`workers.bundle_workers.Workers`."""

    def start_candidate(self, files: BundleFiles) -> Candidate:
        """Start the processes of a new bundle."""

    def drop_candidate(self) -> None:
        """End these processes."""

    def switch_over(self) -> None:
        """Answer with the new bundle from now on."""


class HotSwap(Source):
    """Watches the bundle's folder of one daemon.

    Parameters
    ----------
    settings
        The folder, and the waiting times.
    files
        The bundle in use.
    trusted
        Trusted keys: one of them must have signed a new bundle. If empty, no signature is needed.
    workers
        The processes that check a bundle and answer with it.
    clock
        A monotonic clock.
    tell
        Called with each result before it takes effect, and again if it raises. It writes log and audit log.
    """

    def __init__(
        self,
        settings: Settings,
        files: BundleFiles,
        trusted: tuple[PublicKey, ...],
        workers: Candidates,
        clock: Callable[[], float],
        tell: Callable[[BundleEvent], None],
    ) -> None:
        self._settings, self._in_use, self._trusted = settings, files, trusted
        self._workers, self._clock, self._tell = workers, clock, tell
        self._stamp: _Stamp = ()
        self._looked_at = self._changed_at = float("-inf")
        self._due: float | None = None  # when to read the folder, or to announce the refusal
        self._trial: tuple[BundleFiles, Candidate, BundleEvent] | None = None
        self._verdict: BundleEvent | None = None
        self._failures = 0
        self._differs = False  # whether the bundle in the folder was refused

    def look(self) -> str | None:
        """Do the next step without waiting; return the digest of a bundle that was taken just now."""
        now = self._clock()
        is_due = self._due is not None and self._due <= now
        if is_due or now >= self._looked_at + self._settings.scan_seconds:
            self._notice(now)
        if self._trial is not None:
            return self._follow(*self._trial)
        if self._due is not None and self._due <= now:
            if self._verdict is None:
                self._due = None
                self._read()
            else:
                self._pronounce(self._verdict)
        return None

    def descriptors(self) -> Sequence[int]:
        """File descriptors that become readable when the processes for a new bundle are ready."""
        return () if self._trial is None else self._trial[1].descriptors()

    def next_due(self) -> float | None:
        """When :meth:`look` has something to do; None while only the regular check of the folder is due."""
        return self._due if self._trial is None else self._trial[1].next_due()

    def _notice(self, now: float) -> None:
        self._looked_at = now
        stamp = _stamp(self._settings.bundle)
        if stamp == self._stamp:
            return
        self._drop()
        self._stamp, self._changed_at = stamp, now
        self._verdict, self._failures = None, 0
        self._due = now + self._settings.case_settle_seconds

    def _read(self) -> None:
        """Read the folder, and start the check of its bundle unless it is the one in use."""
        event = BundleEvent(None, digest_of(self._in_use))
        try:
            files = read_files(self._settings.bundle)
            event = replace(event, digest=digest_of(files))
            signer = find_signer(files, self._trusted)
        except Refused as refused:
            self._refuse(replace(event, code=refused.reason.code))
            return
        if _stamp(self._settings.bundle) != self._stamp:  # it changed during the reading; the next look sees that
            self._due = self._clock()
            return
        event = replace(event, signer=None if signer is None else signer.fingerprint)
        if _signed_part(files) == _signed_part(self._in_use):
            if self._differs:
                self._due = self._clock()  # try again if `tell` raises
                self._take(event)
            self._in_use, self._due = files, None
            return
        try:
            self._trial = files, self._workers.start_candidate(files), event
        except OSError as error:
            self._workers.drop_candidate()
            self._failed(error, event)

    def _follow(self, files: BundleFiles, candidate: Candidate, event: BundleEvent) -> str | None:
        try:
            if not candidate.is_set_up():
                return None
        except Refused as refused:
            self._drop()
            self._refuse(replace(event, code=refused.reason.code))
        except (ExhaustedError, DefectError, Unavailable, OSError) as error:
            self._drop()
            self._failed(error, event)
        else:
            self._take(event)
            self._trial = None
            self._workers.switch_over()
            self._in_use = files
            return event.digest
        return None

    def _failed(self, error: Exception, event: BundleEvent) -> None:
        """Try again later; refuse a bundle that makes its processes fail too often."""
        self._failures += 1
        if isinstance(error, DefectError):
            logger.error("bundle_defect", extra={"bundle": event.digest, **defect(error)})
        else:
            about = {"bundle": event.digest, "error": type(error).__name__, "why": told(error)}
            logger.warning("bundle_unavailable", extra=about)
        blamed = isinstance(error, (ExhaustedError, DefectError))
        if blamed and self._failures >= self._settings.max_attempts:
            code = ReasonCode.LIMITS_EXCEEDED if isinstance(error, ExhaustedError) else ReasonCode.INTERNAL_ERROR
            self._refuse(replace(event, code=code))
        else:
            self._due = self._clock() + pause_after(self._failures, self._settings)

    def _refuse(self, event: BundleEvent) -> None:
        self._verdict, self._due = event, self._changed_at + self._settings.report_after_seconds
        if self._clock() >= self._due:
            self._pronounce(event)

    def _pronounce(self, event: BundleEvent) -> None:
        self._tell(event)
        self._verdict, self._due, self._differs = None, None, True

    def _take(self, event: BundleEvent) -> None:
        self._tell(event)
        self._differs = False

    def _drop(self) -> None:
        if self._trial is not None:
            self._trial = None
            self._workers.drop_candidate()


def _signed_part(files: BundleFiles) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != SIGNATURE_FILE}


def _stamp(folder: Path) -> _Stamp:
    """Return values that change if a bundle's file is written, replaced, added or removed, or the folder replaced."""
    return tuple(_of_file(folder / name) for name in (".", *sorted(BUNDLE_FILES), SIGNATURE_FILE))


def _of_file(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
