"""The reference engine: PyRadiomics' own feature classes, unchanged. The compiled engine is compared with it."""

from __future__ import annotations

import logging
from types import MappingProxyType

import numpy as np
import SimpleITK as sitk
from radiomics import firstorder, glcm, gldm, glrlm, glszm, ngtdm, shape

from lungstage.appliance.contract.spec import FEATURE_NAMES_BY_CLASS, ExtractionSpec
from lungstage.appliance.radiomics.grid import MeasurableRoi

# A feature that fails is reported as missing in the case's outcome. PyRadiomics' log lines would only repeat this.
logging.getLogger("radiomics").setLevel(logging.CRITICAL)

_CLASSES = MappingProxyType(
    {
        "shape": shape.RadiomicsShape,
        "firstorder": firstorder.RadiomicsFirstOrder,
        "glcm": glcm.RadiomicsGLCM,
        "gldm": gldm.RadiomicsGLDM,
        "glrlm": glrlm.RadiomicsGLRLM,
        "glszm": glszm.RadiomicsGLSZM,
        "ngtdm": ngtdm.RadiomicsNGTDM,
    }
)


def compute(roi: MeasurableRoi, spec: ExtractionSpec) -> dict[str, float]:
    """Compute the features that `spec` names.

    Returns
    -------
    dict
        Values by PyRadiomics' names; NaN if its formula fails.
    """
    image, label = sitk.GetImageFromArray(roi.image), sitk.GetImageFromArray(roi.mask.astype(np.uint8))
    for volume in (image, label):
        volume.SetSpacing(roi.spacing[::-1])
    values: dict[str, float] = {}
    for group in FEATURE_NAMES_BY_CLASS:
        prefix = f"original_{group}_"
        wanted = [name.removeprefix(prefix) for name in spec.features if name.startswith(prefix)]
        if not wanted:
            continue
        calculator = _CLASSES[group](image, label, **dict(spec.settings))
        for name in wanted:
            calculator.enableFeatureByName(name)
        with np.errstate(all="ignore"):
            for name, value in calculator.execute().items():
                values[prefix + name] = float(value)
    return values
