"""A script without lungstage, for comparison: SimpleITK, PyRadiomics, onnxruntime and highdicom, one after the other.

``python -m tests.long.benchmarks.straightforward STUDY BUNDLE OUT``. It is not a part of the product.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import onnxruntime
import pydicom
import SimpleITK as sitk
from pydicom.sr.codedict import codes
from radiomics import featureextractor


def stage_straightforwardly(study: Path, bundle: Path, out: Path) -> dict[str, float]:
    """Read, measure, predict and report; return the features."""
    seg_path = study / "seg.dcm"
    reader = sitk.ImageSeriesReader()
    series = pydicom.dcmread(study / "0000.dcm", stop_before_pixels=True).SeriesInstanceUID
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(study), series))
    image = reader.Execute()

    seg = hd.seg.segread(seg_path)
    mask = np.zeros(image.GetSize()[::-1], dtype=np.uint8)
    for frame, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        position = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        mask[image.TransformPhysicalPointToIndex(position)[2]] = seg.pixel_array[frame]
    label = sitk.GetImageFromArray(mask)
    label.CopyInformation(image)

    extractor = featureextractor.RadiomicsFeatureExtractor(str(bundle / "extraction.yaml"))
    measured = extractor.execute(image, label)
    names = [entry["name"] for entry in json.loads((bundle / "manifest.json").read_text())["features"]]
    features = {name: float(measured[name]) for name in names}

    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    (probability,) = session.run(["probability_advanced"], {"features": np.array([list(features.values())])})

    images = [pydicom.dcmread(path) for path in sorted(study.glob("0*.dcm"))]
    measurements = [
        hd.sr.Measurement(
            name=hd.sr.CodedConcept(name[:16], "99SCRIPT", name[:64]), value=value, unit=codes.UCUM.NoUnits
        )
        for name, value in {**features, "probability": float(probability[0])}.items()
    ]
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier="tumour"),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=1,
            source_series=hd.sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID),
        ),
        finding_type=codes.SCT.Neoplasm,
        measurements=measurements,
    )
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=hd.UID()),
    )
    referenced = {
        source.ReferencedSOPInstanceUID
        for frame in seg.PerFrameFunctionalGroupsSequence
        for derivation in frame.get("DerivationImageSequence", [])
        for source in derivation.SourceImageSequence
    }
    evidence = [one for one in images if one.SOPInstanceUID in referenced] or images
    report = hd.sr.Comprehensive3DSR(
        evidence=[*evidence, seg],
        content=hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer),
            procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
            imaging_measurements=[group],
            referenced_images=evidence,
        )[0],
        series_instance_uid=hd.UID(),
        series_number=100,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="script",
    )
    report.save_as(out)
    return features


if __name__ == "__main__":
    stage_straightforwardly(*map(Path, sys.argv[1:]))
