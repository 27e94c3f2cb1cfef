"""The other side of :mod:`workers.process`: a process that reads, plans and stages as it is told, within limits."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import pickle
import resource
import signal
import sys
import tempfile
import warnings
import zlib
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lungstage.appliance.config import logs
from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import DefectError, LungstageError, Refused
from lungstage.appliance.dicom.cases import Case, assemble
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import Header
from lungstage.appliance.model.bundle import Bundle, open_bundle, prove
from lungstage.appliance.report import outbox
from lungstage.appliance.staging import phantom, pipeline
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers.messages import SCRATCH_PREFIX, Answer, SealedPlan

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "500"  # the daemon has 0 unless somebody set another; 1000 would be the first of the whole machine


class Worker:
    """The steps, over one bundle.

    Parameters
    ----------
    bundle
        The bundle that answers.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def read_headers(self, path: Path) -> tuple[Header, ...]:
        """:func:`dicom.files.read_headers`."""
        return read_headers(path)

    def prepare(self, case: Case, *, settled: bool, roi_name: str | None, match_by_geometry: bool) -> SealedPlan:
        """:func:`staging.pipeline.prepare`, sealed."""
        plan = pipeline.prepare(
            case, self._bundle, settled=settled, roi_name=roi_name, match_by_geometry=match_by_geometry
        )
        return SealedPlan(plan.fingerprint, zlib.compress(pickle.dumps(plan), level=1), plan.instances)

    def stage(
        self, plan: SealedPlan, *, created: datetime, site: Site, predecessor: Predecessor | None = None
    ) -> Answer:
        """:func:`staging.pipeline.stage`, the documents encoded."""
        opened: pipeline.Plan = pickle.loads(zlib.decompress(plan.content))  # noqa: S301  (from another of our pool)
        staged = pipeline.stage(opened, self._bundle, created=created, site=site, predecessor=predecessor)
        return Answer(staged.outcome, tuple(outbox.encode(document) for document in staged.documents))

    def write_phantom(self, folder: Path, study: str) -> str:
        """:func:`staging.phantom.write_study`; return its Study Instance UID."""
        (header,) = read_headers(phantom.write_study(folder, study)[0])
        return header.study_instance_uid

    def rehearse(self, scratch: Path) -> None:
        """Recompute the bundle's golden case, then send the phantom study through every step.

        The first study of a day then meets warm libraries, and a machine on which no report can be made says so at
        once. That the phantom lies outside a bundle's intended use is no fault.

        Parameters
        ----------
        scratch
            Folder for the phantom study, which is removed again.

        Raises
        ------
        Refused
            ``bundle_self_test_failed``.
        """
        prove(self._bundle)
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=scratch) as folder, contextlib.suppress(Refused):
            paths = phantom.write_study(Path(folder))
            (case,) = assemble(header for path in paths for header in read_headers(path))
            plan = self.prepare(case, settled=True, roi_name=None, match_by_geometry=False)
            self.stage(plan, created=datetime(2026, 1, 1, tzinfo=UTC), site=Site())


def serve(requests: Connection[Any, Any], answers: Connection[Any, Any]) -> None:
    """Set up, then answer requests (name of the step, arguments, keywords) until the other side is gone.

    Parameters
    ----------
    requests, answers
        The first message is the :class:`Setting`; each answer is (whether it went well, result or exception).
    """
    worker: Worker | None = None
    while True:
        try:
            request = requests.recv()
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            if worker is None:
                worker = Worker(open_bundle(request.files, engine=request.engine))
                worker.rehearse(request.scratch)
                gc.freeze()
                gc.enable()
                answer = True, None
            else:
                step, arguments, keywords = request
                answer = True, getattr(worker, step)(*arguments, **keywords)
        except (LungstageError, MemoryError, OSError) as error:
            answer = False, error
        except Exception as error:  # whose it is stays the daemon's to say; its message may quote the data
            answer = False, DefectError(logs.defect(error))
        answers.send(answer)


def confine(memory: int, file_size: int) -> None:
    """Give this process its limits, leave signals and output to the daemon, and have it end when the daemon does."""
    for limit, most in (
        (resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),  # a core file would hold patients' data
    ):  # fmt: skip
        resource.setrlimit(limit, (most, most))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a kernel short of memory shall take this process, and not the daemon
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    with contextlib.suppress(OSError, AttributeError):  # Linux; elsewhere the end of the pipe alone tells
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries' messages quote what they read; see lungstage.appliance.config.logs.
    logging.disable()
    warnings.simplefilter("ignore")


def main() -> None:
    """Serve the command line's pipes: numbers of the two, then memory and size of a file in bytes."""
    requests, answers, memory, file_size = map(int, sys.argv[1:])
    confine(memory, file_size)
    serve(Connection(requests, writable=False), Connection(answers, readable=False))
