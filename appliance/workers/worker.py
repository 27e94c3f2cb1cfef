"""The other side of :mod:`workers.process`: a process that reads, plans and stages as it is told, within limits."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never, cast

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import Reason, Refused
from lungstage.appliance.contract.plain import Form
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.model.bundle import Bundle, open_bundle, prove
from lungstage.appliance.staging import phantom, pipeline, refusal, viewing
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers import frames
from lungstage.appliance.workers.confinement import Confinement
from lungstage.appliance.workers.messages import (
    Answer,
    AnyRequest,
    Draw,
    Explain,
    Look,
    Outcome,
    Pack,
    Prepare,
    ReadHeaders,
    ReadPatients,
    Request,
    SealedPlan,
    Setting,
    Stage,
    ViewerSetting,
    WritePhantom,
    read_request,
)

_PLANS: Form[pipeline.Plan] = Form(pipeline.Plan)


def seal(plan: pipeline.Plan) -> SealedPlan:
    """Put a plan into the form in which it is kept; most of its masks is zeros."""
    content = zlib.compress(_PLANS.encode(plan), level=1)
    return SealedPlan(plan.fingerprint, content, plan.instances, plan.beyond)


def unseal(plan: SealedPlan) -> pipeline.Plan:
    """Open a plan that another process has sealed, which may have met a hostile file.

    Raises
    ------
    ValueError, zlib.error
        There is none in it.
    """
    return _PLANS.decode(zlib.decompress(plan.content))


class Worker:
    """Takes the steps that are asked for.

    Parameters
    ----------
    confinement
        How this process is confined, which whoever sets it up is told.

    Attributes
    ----------
    bundle, identity_key, documents, robustness, describes
        The bundle that answers, the key of the hashes of identity, which documents are wanted, how robustness is tried
        out, and whether the tumour is described: the first request brings them.
    """

    bundle: Bundle
    identity_key: bytes
    documents: DocumentOptions
    robustness: RobustnessOptions
    describes: bool

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement

    def take(self, request: AnyRequest) -> object:
        """Do what is asked, and return what a request of this type is answered."""
        match request:
            case Setting():
                self.bundle = open_bundle(request.files, engine=request.engine)
                self.identity_key, self.documents = request.identity_key, request.documents
                self.robustness, self.describes = request.robustness, request.describes
                prove(self.bundle)
                if request.rehearses:
                    self._rehearse(request.scratch)
                gc.freeze()
                gc.enable()
                return self._confinement
            case ReadHeaders():
                return read_headers(request.path, key=self.identity_key)
            case Prepare():
                return self._prepare(request)
            case Stage():
                return self._stage(request)
            case Explain():
                reason = Reason(request.code, request.message)
                return refusal.explain(request.case, reason, self.bundle, request.created, self.documents)
            case ViewerSetting():
                return self._confinement
            case ReadPatients():
                return viewing.read_patients(request.paths)
            case Look():
                return viewing.look(request.headers, request.key, request.region)
            case Draw():
                return viewing.draw(
                    request.headers, request.key, request.plane, request.index, request.window, request.region
                )
            case Pack():
                return viewing.pack(request.headers, request.key, request.layer, request.region)
            case WritePhantom():
                (header,) = read_headers(phantom.write_study(request.folder, request.study)[0])
                return header.study_instance_uid
        assert_never(request)

    def _prepare(self, request: Prepare) -> SealedPlan:
        plan = pipeline.prepare(
            request.case,
            self.bundle,
            settled=request.settled,
            waited=request.waited,
            roi_name=request.roi_name,
            match_by_geometry=request.match_by_geometry,
            strict_frame_of_reference=request.strict_frame_of_reference,
            choice=request.choice,
            beyond_mm=self.robustness.reach_mm,
        )
        return seal(plan)

    def _stage(self, request: Stage) -> Answer:
        staged = pipeline.stage(
            unseal(request.plan).with_beyond(request.beyond),
            self.bundle,
            created=request.created,
            site=request.site,
            predecessor=request.predecessor,
            documents=self.documents,
            robustness=self.robustness,
            describes=self.describes,
        )
        outcome = cast(Outcome, staged.outcome)  # which encoding it will prove
        return Answer(outcome, staged.documents)

    def _rehearse(self, scratch: Path) -> None:
        """Send the phantom study through every step.

        The first study of a day then meets warm libraries, and a machine on which no report can be made says so at
        once. That the phantom lies outside a bundle's intended use is no fault.

        Parameters
        ----------
        scratch
            Folder for the phantom study, which is removed again.
        """
        with tempfile.TemporaryDirectory(dir=scratch) as folder, contextlib.suppress(Refused):
            paths = phantom.write_study(Path(folder))
            (case,) = assemble(header for path in paths for header in read_headers(path))
            plan = self._prepare(Prepare(case, settled=True, roi_name=None, match_by_geometry=False))
            self._stage(Stage(plan, datetime(2026, 1, 1, tzinfo=UTC), Site(), beyond=plan.beyond))


def serve(requests: int, answers: int, confinement: Confinement) -> None:
    """Answer requests, the first of which is the :class:`Setting`, until the other side is gone.

    Parameters
    ----------
    requests, answers
        Descriptors of the pipes.
    confinement
        As of :class:`Worker`.
    """
    worker = Worker(confinement)
    reader = frames.FrameReader(requests)
    while True:
        try:
            reader.advance()
        except EOFError:
            return
        try:
            request = read_request(reader.take())
            answer = request.answered(worker.take(request))  # type: ignore[arg-type]  # of the type that it asks for
        except Exception as error:  # whose it is stays the daemon's to say
            answer = Request.failed(error)
        frames.write(answers, answer)
