"""From CT and a region of interest to radiomic features and a structured report. Research use only.

Functions for scripts: :func:`measure`, :func:`stage` and :func:`load_bundle`; for training :class:`GradientLossRFE`.
They raise :class:`Refused` if the data or the bundle is at fault, :class:`Held` if something needed is missing, and
:class:`Unavailable` if a path cannot be read.

Importing this module loads nothing else. Each name loads what it needs when it is first used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lungstage.appliance import __version__
    from lungstage.appliance.contract.documents import Format, Language
    from lungstage.appliance.contract.errors import Held, Refused, Unavailable
    from lungstage.appliance.contract.spec import ExtractionSpec
    from lungstage.appliance.model.bundle import Bundle
    from lungstage.appliance.staging.outcome import MeasuredCase, StagedCase
    from lungstage.training.selection.elimination import GradientLossRFE

__all__ = [
    "Bundle", "ExtractionSpec", "Format", "GradientLossRFE", "Held", "Language", "MeasuredCase", "Refused",
    "StagedCase", "Unavailable", "__version__", "load_bundle", "measure", "stage",
]  # fmt: skip

_HOMES = {
    "Bundle": "lungstage.appliance.model.bundle",
    "ExtractionSpec": "lungstage.appliance.contract.spec",
    "Format": "lungstage.appliance.contract.documents",
    "GradientLossRFE": "lungstage.training.selection.elimination",
    "Held": "lungstage.appliance.contract.errors",
    "Language": "lungstage.appliance.contract.documents",
    "MeasuredCase": "lungstage.appliance.staging.outcome",
    "Refused": "lungstage.appliance.contract.errors",
    "StagedCase": "lungstage.appliance.staging.outcome",
    "Unavailable": "lungstage.appliance.contract.errors",
    "__version__": "lungstage.appliance",
}

StrPath = str | os.PathLike[str]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if not _HOMES[name].startswith("lungstage.training"):
            raise
        what = f"lungstage.{name} needs {error.name}, which is not installed"
        raise ImportError(f"{what}: pip install 'lungstage[training]'", name=error.name) from None
    globals()[name] = value  # the next use finds it at once
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def measure(
    paths: StrPath | Iterable[StrPath],
    spec: StrPath | ExtractionSpec,
    roi: str | None = None,
    *,
    label: int | None = None,
    match_by_geometry: bool = False,
    save_volume: StrPath | None = None,
    descriptors: bool = True,
) -> MeasuredCase:
    """Measure the features of one region of interest, without a model, as ``lungstage measure`` does.

    Parameters
    ----------
    paths
        One or several DICOM files or folders with one CT series and its RTSTRUCT or SEG; or two NIfTI files, the image
        and then its mask (``docs/nifti.md``).
    spec
        A PyRadiomics parameter file, or ``"all"`` for 106 features at PyRadiomics' default settings.
    roi
        Name of the region; with None the rule selects it (``docs/regions.md``).
    label
        Value of the region's voxels in a NIfTI mask; None means 1.
    match_by_geometry
        Match the region to slices by position if it refers to other images.
    save_volume
        Folder for the measured volume and its mask, as NIfTI.
    descriptors
        Whether to compute descriptors, a radiologist's words for the region (``docs/descriptors.md``).

    Returns
    -------
    MeasuredCase
        The features in the spec's order, with the region that they were measured on.

    Raises
    ------
    Refused
        The data cannot be measured; ``error.reason`` has code and sentence.
    Held
        Something needed is missing; ``error.reason`` has code and sentence.
    Unavailable
        A path does not exist.
    OSError
        A path cannot be read.
    ValueError
        One NIfTI file, or more than two; or an option that does not apply to these files.

    Examples
    --------
    With a generated phantom in place of a patient:

    >>> from pathlib import Path
    >>> import lungstage
    >>> from lungstage.appliance.staging import phantom
    >>> files = phantom.write_study(Path("study"))
    >>> measured = lungstage.measure("study", "all")
    >>> len(measured.features), measured.voxels
    (106, 26576)
    >>> round(measured.features["original_shape_Sphericity"], 3)
    0.737
    """
    from lungstage.appliance.model.roi_rule import ROI_RULE
    from lungstage.appliance.radiomics import parameters
    from lungstage.appliance.staging.one_shot import Options, measure_paths
    from lungstage.appliance.staging.outcome import MeasuredCase

    what = parameters.read(os.fspath(spec)) if isinstance(spec, str | os.PathLike) else spec
    options = Options(roi, match_by_geometry, _path(save_volume), label=label, describes=descriptors)
    return MeasuredCase.of(measure_paths(_paths(paths), ROI_RULE, what, options))


def stage(
    paths: StrPath | Iterable[StrPath],
    bundle: StrPath | Bundle,
    out: StrPath | None = None,
    *,
    roi: str | None = None,
    match_by_geometry: bool = False,
    save_volume: StrPath | None = None,
    prevalence: float | None = None,
    covariates: StrPath | None = None,
    formats: Iterable[Format] = ("sr", "pdf"),
    language: Language = "en",
    perturbations: int = 30,
    contour_mm: float = 2.1,
    answer_not_robust: Literal["warn", "indeterminate"] = "warn",
    descriptors: bool = True,
) -> StagedCase:
    """Answer with a bundle for one region of interest, as ``lungstage stage`` does. Research use only.

    Parameters
    ----------
    paths
        One or several DICOM files or folders with one CT series and its RTSTRUCT or SEG.
    bundle
        A bundle from :func:`load_bundle`, or its folder or name. For many calls, load it once.
    out
        Folder for the structured report, its segmentation and the page, created if it is missing; None writes nothing.
    roi
        Name of the region; with None the bundle's rule selects it (``docs/regions.md``).
    match_by_geometry
        Match the region to slices by position if it refers to other images.
    save_volume
        Folder for the measured volume and its mask, as NIfTI.
    prevalence
        Share of the positive class among the site's patients, in (0, 1). Probability and answer are for this share.
    covariates
        CSV with ``study_instance_uid`` and age, sex or histology. It takes precedence over the header.
    formats
        ``sr`` (always written), and ``pdf``, ``sc`` or ``html`` for the page that people read.
    language
        Language of the page: ``en``, ``de`` or ``fr``.
    perturbations
        Number of perturbed versions of contour and image that the answer is tested on; 0 for none.
    contour_mm
        Distance between contours of different people, as a standard deviation in mm.
    answer_not_robust
        What to do with an answer that fewer than 90 % of the versions share: ``warn`` or ``indeterminate``.
    descriptors
        Whether to compute the descriptors of a lung tumour (``docs/descriptors.md``).

    Returns
    -------
    StagedCase
        The answer with its features, and the paths of report and page.

    Raises
    ------
    Refused
        The bundle fails its self-test, or the data are outside its intended use; ``error.reason`` has code and
        sentence.
    Held
        Something needed is missing; ``error.reason`` has code and sentence.
    Unavailable
        A path does not exist.
    OSError
        A path cannot be read or written to.
    ValueError
        `prevalence` is not between 0 and 1, `perturbations` or `contour_mm` is out of range, the format or language
        does not exist, or a path is a NIfTI file.

    Examples
    --------
    >>> from pathlib import Path
    >>> import lungstage
    >>> from lungstage.appliance.staging import phantom
    >>> files = phantom.write_study(Path("study"))
    >>> staged = lungstage.stage("study", "lung1-stage", out="reports")
    >>> staged.endpoint, staged.answer
    ('stage', 'early')
    >>> staged.sr.name[:3], sorted(staged.documents)
    ('SR-', ['pdf', 'sr'])
    """
    from lungstage.appliance.contract.documents import DocumentOptions, formats_of, language_of
    from lungstage.appliance.contract.robustness import MOST_CONTOUR_MM, MOST_PERTURBATIONS, RobustnessOptions
    from lungstage.appliance.staging.covariates import Site
    from lungstage.appliance.staging.one_shot import Options, stage_paths
    from lungstage.appliance.staging.outcome import StagedCase

    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(f"prevalence must be above 0 and below 1; {prevalence} is not")
    if not (0 <= perturbations <= MOST_PERTURBATIONS and 0 < contour_mm <= MOST_CONTOUR_MM):
        raise ValueError(
            f"perturbations must be 0 to {MOST_PERTURBATIONS}, and contour_mm above 0 and at most {MOST_CONTOUR_MM}"
        )
    loaded = load_bundle(bundle) if isinstance(bundle, str | os.PathLike) else bundle
    documents = DocumentOptions(formats_of(formats), language_of(language))
    site = Site.read(prevalence, _path(covariates))
    robustness = RobustnessOptions(perturbations, contour_mm, answer_not_robust)
    options = Options(
        roi, match_by_geometry, _path(save_volume), site, documents, robustness=robustness, describes=descriptors
    )
    return StagedCase.of(stage_paths(_paths(paths), loaded, _path(out), options))


def load_bundle(name_or_dir: StrPath) -> Bundle:
    """Load a model bundle and run its self-test on this machine.

    Parameters
    ----------
    name_or_dir
        The bundle's folder, or the name of a shipped bundle.

    Returns
    -------
    Bundle
        The bundle for :func:`stage`; its ``spec`` can be given to :func:`measure`.

    Raises
    ------
    Refused
        The bundle cannot be read, has changed since it was packed, or gives another result for its golden case here.

    Examples
    --------
    >>> import lungstage
    >>> bundle = lungstage.load_bundle("lung1-stage")
    >>> len(bundle.spec.features)
    15
    """
    from lungstage.appliance.config.shipped import bundle_folder
    from lungstage.appliance.model.bundle import load_bundle as load

    return load(bundle_folder(name_or_dir))


def _paths(paths: StrPath | Iterable[StrPath]) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _path(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)
