"""Run another library in its own interpreter: ``python -m tests.long.benchmarks.peers.inside NAME``.

Imports only NumPy and that library. It reads one JSON request per line and writes one answer per line. A request is a
case to prepare, which is then measured once without timing, or a number of seconds for timing.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.long.benchmarks.bare import STATED, milliseconds
from tests.long.benchmarks.peers.names import NAMES

Features = Mapping[str, float]
Extraction = Callable[[], Features]
Library = Callable[["Case"], Extraction]
WIDTH, HIGHEST = 25.0, 3000.0  # HU


@dataclass(frozen=True)
class Case:
    """One region, cropped to its box: arrays (z, y, x), spacing in mm, and lungstage's discretisation.

    Attributes
    ----------
    resampled
        Whether to resample to 1 mm.
    start, bins
        Lowest edge of the grey levels in HU, and their number.
    lowest
        Lowest HU of the files on lungstage's grid.
    """

    folder: Path
    image: Any
    mask: Any
    spacing: Any
    resampled: bool
    start: float
    bins: int
    lowest: float

    @classmethod
    def read(cls, folder: Path) -> Case:
        with np.load(folder / "case.npz") as held:
            return cls(
                folder, held["image"], held["mask"], held["spacing"], bool(held["resampled"]), float(held["start"]),
                int(held["bins"]), float(held["lowest"]),
            )  # fmt: skip


def zrad() -> Library:
    """Z-Rad: just these features; arrays in memory."""
    from zrad import preprocessing as pre
    from zrad.image import Image
    from zrad.radiomics import Radiomics

    def prepare(case: Case) -> Extraction:
        def image_of(array: Any) -> Any:
            size = np.array(array.shape[::-1])
            return Image(array.astype(float), (0.0, 0.0, 0.0), case.spacing[::-1].copy(), np.eye(3).ravel(), size)

        image, mask = image_of(case.image), image_of(case.mask)
        resampling = [("image", pre.ImageResampler(1.0)), ("mask", pre.MaskResampler(1.0))] if case.resampled else []
        steps = pre.Pipeline(
            [
                *resampling,
                ("intensity", pre.IntensityMaskBuilder()),
                ("start", pre.Resegmenter(intensity_range=(case.start, HIGHEST))),
                ("bins", pre.TextureDiscretizer(bin_size=WIDTH)),
            ]
        )
        radiomics, features = Radiomics(aggr_dim="3D", aggr_method="AVER"), list(NAMES["z-rad"])

        def run() -> Features:
            roi = steps.apply(pre.RoiData(image=image, morphological_mask=mask))
            measured: Features = radiomics.extract_features(roi_data=roi, features=features)
            return measured

        return run

    return prepare


def mirp() -> Library:
    """MIRP: the families that hold these features; from uncompressed files, as its arrays take no spacing."""
    from mirp import extract_features

    families = ["morphology", "statistics", "intensity_histogram", "glcm", "glrlm", "glszm", "ngldm"]

    def prepare(case: Case) -> Extraction:
        resampling = {"new_spacing": 1.0, "spline_order": 1, "anti_aliasing": False} if case.resampled else {}

        def run() -> Features:
            logging.disable()  # it logs a line for every step
            (found,) = extract_features(
                image=str(case.folder / "image.nii"), mask=str(case.folder / "mask.nii"), image_modality="ct",
                base_feature_families=families, base_discretisation_method="fixed_bin_size",
                base_discretisation_bin_width=WIDTH, resegmentation_intensity_range=[case.start, HIGHEST],
                glcm_spatial_method="3d_average", glrlm_spatial_method="3d_average", **resampling,
            )  # fmt: skip
            measured: Features = found.iloc[0].to_dict()
            return measured

        return run

    return prepare


def nyxus() -> Library:
    """Nyxus: just these features, but for a diameter; from uncompressed files, as its volumes come in no other way."""
    from nyxus import Nyxus3D

    def prepare(case: Case) -> Extraction:
        engine = Nyxus3D([name for name in NAMES["nyxus"] if name], n_feature_calc_threads=1)
        for family in ("3glcm", "3glrlm", "3glszm", "3gldm"):
            engine.set_metaparam(f"{family}/greydepth={-case.bins}")  # negative: bins of equal width over the ROI
        # It has no interpolation, so it gets the image on lungstage's grid.
        files = [[str(case.folder / f"gridded-{what}.nii")] for what in ("image", "mask")]

        def run() -> Features:
            measured = engine.featurize_files(*files, False).iloc[0].to_dict()
            # If a file contains negative numbers, it counts from the lowest.
            return measured | {name: measured[name] + min(case.lowest, 0.0) for name in ("3MEAN", "3P10")}

        return run

    return prepare


def pictologics() -> Library:
    """pictologics: the families that hold these features, by its public functions; arrays in memory."""
    from pictologics import Image, features, preprocessing
    from pictologics.features.texture import calculate_all_texture_features

    families = ("glcm", "glrlm", "glszm", "ngldm")

    def prepare(case: Case) -> Extraction:
        spacing = tuple(float(step) for step in case.spacing[::-1])
        whole, roi = (
            Image(np.ascontiguousarray(array.T), spacing, (0.0, 0.0, 0.0))
            for array in (case.image.astype(float), case.mask)
        )

        def run() -> Features:
            image, mask = whole, roi
            if case.resampled:
                image = preprocessing.resample_image(image, (1.0, 1.0, 1.0), "linear")
                mask = preprocessing.resample_image(mask, (1.0, 1.0, 1.0), "nearest")
            levels = preprocessing.discretise_image(
                image, method="FBS", roi_mask=mask, bin_width=WIDTH, min_val=case.start
            )
            inside = preprocessing.apply_mask(levels, mask)
            bins = int(inside.max())
            return {
                **features.calculate_intensity_features(preprocessing.apply_mask(image, mask)),
                **features.calculate_morphology_features(mask, image, intensity_mask=mask),
                **features.calculate_intensity_histogram_features(inside, n_bins=bins),
                **calculate_all_texture_features(levels.array, mask.array, bins, families=families),
            }

        return run

    return prepare


def flash() -> Library:
    """Flash-Radiomics: just these features; SimpleITK images in memory, but it writes each extraction to a file."""
    import SimpleITK as sitk
    from flash_radiomics import RadiomicsFeatureExtractor

    wanted: dict[str, list[str]] = {}
    for name in STATED:
        _, family, feature = name.split("_")
        wanted.setdefault(family, []).append(feature)

    def prepare(case: Case) -> Extraction:
        images = [sitk.ReadImage(str(case.folder / f"{what}.nii")) for what in ("image", "mask")]
        resampling = {"resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"} if case.resampled else {}
        configuration = {
            "setting": {"binWidth": WIDTH, "additionalInfo": False, **resampling},
            "imageType": {"Original": {}},
            "scalarFeatureClass": wanted,
            "spatialFeatureClass": None,
        }
        logging.disable()  # it logs a line for every step
        extractor = RadiomicsFeatureExtractor(configuration, backend="cpu", num_threads=1)

        def run() -> Features:
            measured: Features = extractor.execute(*images, label=1, output_hdf5_path=str(case.folder / "features.h5"))
            return measured

        return run

    return prepare


LIBRARIES = {"flash-radiomics": flash, "mirp": mirp, "nyxus": nyxus, "pictologics": pictologics, "z-rad": zrad}


def title(name: str) -> tuple[str, str]:
    """Return a library's own spelling of its name, and what it computes here."""
    written, _, what = (LIBRARIES[name].__doc__ or "").partition(": ")
    return written, what.rstrip(".")


def stated(name: str, measured: Features) -> dict[str, float]:
    """Return the stated features that a library has, under lungstage's names."""
    return {ours: float(measured[theirs]) for ours, theirs in zip(STATED, NAMES[name], strict=True) if theirs}


def main() -> None:
    """Answer until there are no more requests."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's own output must not be taken for an answer

    def answer(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    name = sys.argv[1]
    start = time.perf_counter()
    library = LIBRARIES[name]()
    packages = {package: version(package) for package in (name, "numpy")}
    answer(python=sys.version.split()[0], packages=packages, seconds=time.perf_counter() - start)
    run: Extraction = dict
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "folder" in request:
                run = library(Case.read(Path(request["folder"])))
                answer(features=stated(name, run()))
            else:
                answer(milliseconds=milliseconds(run, request["seconds"], fewest=1, most=15))
        except Exception as error:  # the page must name any error
            answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
