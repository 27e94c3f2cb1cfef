"""Measure the processor time of a page in a process that has drawn one before."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lungstage.appliance.contract.case import KnownCovariates
from lungstage.appliance.contract.documents import DocumentOptions, Format
from lungstage.appliance.dicom.cases import assemble, the_one_case
from lungstage.appliance.model.bundle import Bundle
from lungstage.appliance.report import fonts
from lungstage.appliance.staging import pipeline
from lungstage.appliance.staging.documents import build_documents
from lungstage.appliance.staging.measure import Stopwatch, measure
from lungstage.appliance.staging.one_shot import scan

NAMES = {"Latin": "Müller^Jürgen", "CJK": "Yamada^Tarou=山田^太郎"}
REPEATS = 7


def milliseconds_of_page(study: Path, bundle: Bundle) -> dict[str, float | None]:
    """Processor time of the page as PDF, by the script of the patient's name; None if no font of the system has it.

    It is the median time of all documents of one answer, minus the median without the page.
    """
    plan = pipeline.prepare(the_one_case(assemble(scan([study]).headers)), bundle, settled=True)
    measurement = measure(plan.regions, bundle.spec, Stopwatch())
    result = bundle.predictor.predict(measurement.features, {})
    header = measurement.voxels.datasets[0]
    header.SpecificCharacterSet = "ISO_IR 192"

    def milliseconds(formats: Sequence[Format]) -> float:
        times = []
        for _ in range(REPEATS + 1):
            start = time.process_time()
            build_documents(
                measurement, result, bundle, datetime.now(UTC), (), KnownCovariates(),
                options=DocumentOptions(tuple(formats)),
            )  # fmt: skip
            times.append(1000 * (time.process_time() - start))
        return statistics.median(times[1:])

    found: dict[str, float | None] = {}
    for script, name in NAMES.items():
        header.PatientName = name
        written = fonts.runs(name.rpartition("=")[2]) is not None
        found[script] = milliseconds(("sr", "pdf")) - milliseconds(("sr",)) if written else None
    return found
