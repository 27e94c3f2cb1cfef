"""The worker's side of :mod:`workers.process`: reads, plans and stages on request, within limits."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never, cast

from lungstage.appliance.contract.documents import DocumentOptions
from lungstage.appliance.contract.errors import Reason, ReasonCode, Refused
from lungstage.appliance.contract.plain import Form
from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.model.bundle import Bundle, open_bundle, prove
from lungstage.appliance.model.bundle_files import BundleFiles
from lungstage.appliance.model.contour_bundle import ContourBundle, open_contour_bundle
from lungstage.appliance.model.contour_bundle import prove as prove_contour
from lungstage.appliance.staging import phantom, pipeline, refusal, sketching, viewing
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers import frames
from lungstage.appliance.workers.confinement import Confinement
from lungstage.appliance.workers.messages import (
    Answer,
    AnyRequest,
    Confirm,
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
    Sketch,
    Stage,
    ViewerSetting,
    WritePhantom,
    read_request,
)

NO_CONTOUR_BUNDLE = "This installation has no bundle that draws contours. Install one that ships lung-contour."

_PLANS: Form[pipeline.Plan] = Form(pipeline.Plan)


def seal(plan: pipeline.Plan) -> SealedPlan:
    """Encode and compress a plan for storage; its masks are mostly zeros."""
    content = zlib.compress(_PLANS.encode(plan), level=1)
    return SealedPlan(plan.fingerprint, content, plan.instances, plan.beyond)


def unseal(plan: SealedPlan) -> pipeline.Plan:
    """Decode a plan that another process has sealed; that process may have read a hostile file.

    Raises
    ------
    ValueError, zlib.error
        The content is not a plan.
    """
    return _PLANS.decode(zlib.decompress(plan.content))


class Worker:
    """Carries out the requested steps.

    Parameters
    ----------
    confinement
        How this process is confined; the answer to the first request contains it.

    Attributes
    ----------
    bundle, identity_key, documents, robustness, describes
        Set by the first request: the bundle, the key of the identity hashes, the chosen documents, the options of
        robustness, and whether the tumour is described.
    contour_files
        Set by the first request to a process of the page: the bundle that draws contours, if there is one.
    """

    bundle: Bundle
    identity_key: bytes
    documents: DocumentOptions
    robustness: RobustnessOptions
    describes: bool
    contour_files: BundleFiles | None

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement
        self._contour: ContourBundle | None = None

    def take(self, request: AnyRequest) -> object:
        """Carry out a request, and return the answer for its type."""
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
                self.contour_files = request.contour
                return self._confinement
            case ReadPatients():
                return viewing.read_patients(request.paths)
            case Look():
                return viewing.look(request.headers, request.key, request.region)
            case Draw():
                return viewing.draw(
                    request.headers, request.key, request.plane, request.index, request.window, request.region,
                    self._sketch_mask(request),
                )  # fmt: skip
            case Pack():
                mask = self._sketch_mask(request)
                return viewing.pack(request.headers, request.key, request.layer, request.region, mask)
            case Sketch():
                return sketching.sketch(request.headers, request.key, request.draft, self._contour_bundle())
            case Confirm():
                return sketching.confirm(
                    request.headers, request.key, request.draft, self._contour_bundle(),
                    confirmed_by=request.confirmed_by, created=request.created, images=request.images,
                )  # fmt: skip
            case WritePhantom():
                (header,) = read_headers(phantom.write_study(request.folder, request.study)[0])
                return header.study_instance_uid
        assert_never(request)

    def _contour_bundle(self) -> ContourBundle:
        """Open the network that draws contours when it is needed first, and test it."""
        if self._contour is None:
            if self.contour_files is None:
                raise Refused(ReasonCode.BUNDLE_UNREADABLE, NO_CONTOUR_BUNDLE)
            self._contour = open_contour_bundle(self.contour_files)
            prove_contour(self._contour)
        return self._contour

    def _sketch_mask(self, request: Draw | Pack) -> viewing.Mask | None:
        if request.draft is None:
            return None
        return sketching.sketch_mask(request.headers, request.key, request.draft, self._contour_bundle())

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
        outcome = cast(Outcome, staged.outcome)  # the encoding checks this
        return Answer(outcome, staged.documents)

    def _rehearse(self, scratch: Path) -> None:
        """Process the phantom study in every step.

        The libraries are then loaded before the first study, and a machine that cannot make a report fails at once.
        It is no error if the phantom is outside the bundle's intended use.

        Parameters
        ----------
        scratch
            Folder for the phantom study, which is deleted afterwards.
        """
        with tempfile.TemporaryDirectory(dir=scratch) as folder, contextlib.suppress(Refused):
            paths = phantom.write_study(Path(folder))
            (case,) = assemble(header for path in paths for header in read_headers(path))
            plan = self._prepare(Prepare(case, settled=True, roi_name=None, match_by_geometry=False))
            self._stage(Stage(plan, datetime(2026, 1, 1, tzinfo=UTC), Site(), beyond=plan.beyond))


def serve(requests: int, answers: int, confinement: Confinement) -> None:
    """Answer requests until the daemon ends; the first request is the :class:`Setting`.

    Parameters
    ----------
    requests, answers
        Descriptors of the pipes.
    confinement
        As for :class:`Worker`.
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
            answer = request.answered(worker.take(request))  # type: ignore[arg-type]  # the type belongs to the request
        except Exception as error:  # the daemon decides what it means
            answer = Request.failed(error)
        frames.write(answers, answer)
