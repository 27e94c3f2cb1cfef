"""What a document's UID follows from: other input, another document."""

from __future__ import annotations

from pathlib import Path

from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.export.bundle import build
from tests.export.conftest import make_run, without_limits
from tests.support.studies import rtstruct_study


def test_inputs_that_read_alike_one_after_the_other_are_told_apart(tmp_path: Path) -> None:
    """Region 11 of structure set …7 and region 1 of structure set …71 differ in nothing but where the one ends."""
    build(without_limits(make_run()), tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle", self_test=False)
    reports = set()
    for uid, number in (("1.2.826.0.1.7", 11), ("1.2.826.0.1.71", 1)):
        study = rtstruct_study()
        (structures,) = study.rois
        structures.SOPInstanceUID = structures.file_meta.MediaStorageSOPInstanceUID = uid
        structures.StructureSetROISequence[0].ROINumber = number
        structures.ROIContourSequence[0].ReferencedROINumber = number
        structures.RTROIObservationsSequence[0].ReferencedROINumber = number
        answer = stage_paths([study.write(tmp_path / uid)], bundle, tmp_path / "out" / uid, Options())
        reports.add(Path(answer["sr"]).name)
    assert len(reports) == 2
