"""Real tumours, read with the appliance's own steps, if their files are available."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lungstage.appliance.contract.spec import ExtractionSpec
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.dicom.raster import rasterise
from lungstage.appliance.dicom.series import read_volume
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.radiomics.grid import single_precision
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.conftest import ROOT
from tests.long.benchmarks.bare import STATED
from tests.long.benchmarks.subjects import GRIDS, Placed, Subject

DATA = Path(os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data"))
# Lung tumours are found by the bundles' ROI rule. The sarcoma's region is given by name; its images are missing.
PATIENTS = {
    "IBSI CT": ("ibsi/ct_phantom/dicom", None),
    "LUNG1-001": ("dicom/lung1-001-slab", None),
    "STS_002": ("dicom/STS_002", "GTV_Mass_CT"),
}


class EverySlice(ExtractionSpec):
    """A spec with the whole series as its margin."""

    __slots__ = ()

    @property
    def margin_slices(self) -> int:
        """More slices than any series has."""
        return 10_000


def absent() -> list[str]:
    """Return the patients without files on this machine."""
    return [name for name, (folder, _) in PATIENTS.items() if not (DATA / folder).is_dir()]


def patients() -> Iterator[Subject]:
    """Yield every patient with files on this machine."""
    for name, (folder, roi_name) in PATIENTS.items():
        if name not in absent():
            yield _subject(name, DATA / folder, roi_name)


def _subject(name: str, folder: Path, roi_name: str | None) -> Subject:
    (case,) = (case for case in assemble(scan([folder]).headers) if case.rois)

    def reference(spec: ExtractionSpec) -> Placed:
        plan = plan_measurement(
            case, ROI_RULE, spec, settled=True, roi_name=roi_name, match_by_geometry=roi_name is not None
        )
        _, slices = plan.regions[0]
        volume = read_volume(slices).volume
        return volume if spec.resampled_spacing is None else single_precision(volume), rasterise(slices)

    volume, mask = reference(EverySlice(STATED, GRIDS["native"]))
    size = " × ".join(str(n) for n in reversed(volume.spatial_shape))
    return Subject(f"{name}, {size}", (volume, mask), reference, 1)
