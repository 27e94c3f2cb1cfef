"""Read and write PyRadiomics parameter files; an unsupported entry is refused and named."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import (
    ALL_FEATURES,
    DEFAULT_SETTINGS,
    FEATURE_NAMES_BY_CLASS,
    SUPPORTED_INTERPOLATORS,
    ExtractionSpec,
    Grid,
)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _spacing(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(v == 0 or _positive(v) for v in value)


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _limits(value: Any) -> bool:
    numbers = isinstance(value, list | tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in value)
    return numbers and len(value) == 2 and value[0] < value[1]


def _distances(value: Any) -> bool:
    # PyRadiomics counts a repeated distance in an unusual way, so it is refused. The kernels support distances to 10.
    whole = isinstance(value, list | tuple) and len(value) > 0 and all(_count(v) and v <= 10 for v in value)
    return whole and len(set(value)) == len(value)


# The check and the description of each supported setting. PyRadiomics' other settings (normalisation, those of filters)
# change the meaning of every feature, and they are refused.
_SETTINGS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "binWidth": (_positive, "a positive number"),
    "binCount": (_count, "a positive whole number"),
    "resampledPixelSpacing": (lambda v: v is None or _spacing(v), "three numbers in mm (0 keeps an axis) or null"),
    "interpolator": (lambda v: v in SUPPORTED_INTERPOLATORS, f"one of {', '.join(SUPPORTED_INTERPOLATORS)}"),
    "padDistance": (lambda v: v == 0 or _count(v), "a whole number from 0"),
    "label": (lambda v: _count(v) and v == 1, "1 (lungstage makes the mask with this label)"),
    "minimumROIDimensions": (lambda v: _count(v) and v <= 3, "1, 2 or 3"),
    "minimumROISize": (lambda v: v is None or _count(v), "a positive whole number or null"),
    "voxelArrayShift": (lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number"),
    "symmetricalGLCM": (_boolean, "true or false"),
    "distances": (_distances, "a list of different whole numbers from 1 to 10"),
    "weightingNorm": (
        lambda v: v in (None, "manhattan", "euclidean", "infinity", "no_weighting"),
        "manhattan, euclidean, infinity, no_weighting or null",
    ),
    # PyRadiomics' C code accepts no fraction.
    "gldm_a": (lambda v: _count(v) or (v == 0 and type(v) is int), "a whole number from 0"),
    "force2D": (_boolean, "true or false"),
    "force2Ddimension": (lambda v: v in (0, 1, 2) and type(v) is int, "0, 1 or 2"),
    # Only on the IBSI grid, and only as IBSI defines it: absolute HU, and shape features use the whole region.
    "resegmentRange": (lambda v: v is None or _limits(v), "the lowest and the highest HU, or null"),
    "resegmentMode": (lambda v: v == "absolute", "absolute"),
    "resegmentShape": (lambda v: v is False, "false"),
    # These three have no effect here: the mask is made on the image's own grid, crops are exact, and no diagnostics
    # are written.
    "correctMask": (_boolean, "true or false"),
    "preCrop": (_boolean, "true or false"),
    "additionalInfo": (_boolean, "true or false"),
}


def _refuse(message: str) -> Refused:
    return Refused(ReasonCode.SPEC_UNSUPPORTED, message)


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _refuse(f"The extraction spec's '{key}' must be a mapping.")
    return value


def _features(feature_class: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for group, wanted in feature_class.items():
        if group not in FEATURE_NAMES_BY_CLASS:
            raise _refuse(f"The extraction spec names an unsupported feature class: '{group}'.")
        known = FEATURE_NAMES_BY_CLASS[group]
        if wanted is not None and not isinstance(wanted, list):
            raise _refuse(f"The extraction spec's feature class '{group}' must be a list of feature names, or empty.")
        for name in wanted or known:
            if name not in known:
                raise _refuse(f"The extraction spec names an unknown feature: '{group}: {name}'.")
            names.append(f"original_{group}_{name}")
    return tuple(names)


def parse(text: str, order: tuple[str, ...] | None = None, grid: Grid = "pyradiomics") -> ExtractionSpec:
    """Read a PyRadiomics parameter file.

    Parameters
    ----------
    text
        YAML with at most ``imageType``, ``featureClass`` and ``setting``.
    order
        Feature names in the wanted order; must be the same set as in the file. A parameter file groups features by
        class, so it cannot contain the order of a network's inputs.
    grid
        The grid that the settings are for; a parameter file does not contain it.

    Returns
    -------
    ExtractionSpec
        The features and settings.

    Raises
    ------
    Refused
        ``spec_unsupported``: a filter, setting or feature that lungstage does not support (the message names it), or
        text that is not a parameter file.
    """
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise _refuse("The extraction spec is not valid YAML.") from error
    if not isinstance(document, Mapping):
        raise _refuse("The extraction spec must be a mapping of imageType, featureClass and setting.")
    for key in document:
        if key not in ("imageType", "featureClass", "setting"):
            raise _refuse(f"The extraction spec has an unsupported entry: '{key}'.")
    for image_type, options in _mapping(document, "imageType").items():
        if image_type != "Original":
            raise _refuse(f"The extraction spec asks for an unsupported image filter: '{image_type}'.")
        if options:
            raise _refuse(
                "The extraction spec gives settings below imageType: Original, which are unsupported. Leave it empty."
            )
    settings: dict[str, Any] = dict(DEFAULT_SETTINGS)
    for key, value in _mapping(document, "setting").items():
        if key not in _SETTINGS:
            raise _refuse(f"The extraction spec has an unsupported setting: '{key}'.")
        accepts, expected = _SETTINGS[key]
        if not accepts(value):
            raise _refuse(f"The extraction spec's setting '{key}' must be {expected}.")
        settings[key] = value
    for key in ("resampledPixelSpacing", "resegmentRange"):
        if settings.get(key) is None:
            settings.pop(key, None)
    features = _features(_mapping(document, "featureClass")) or ALL_FEATURES
    if order is not None:
        if sorted(order) != sorted(features):
            raise _refuse("The given feature order does not contain the same features as the extraction spec.")
        features = order
    return ExtractionSpec(features, settings, grid=grid)


def read(name: str, grid: Grid = "pyradiomics") -> ExtractionSpec:
    """Read a spec for a grid from a file; ``all`` means the 106 features with PyRadiomics' defaults.

    Raises
    ------
    Refused
        ``spec_unsupported``; also if the file cannot be read.
    """
    if name == "all":
        return ExtractionSpec(ALL_FEATURES, DEFAULT_SETTINGS, grid=grid)
    try:
        return parse(Path(name).read_text(encoding="utf-8"), grid=grid)
    except (OSError, UnicodeDecodeError) as error:
        raise _refuse(
            "The extraction spec cannot be read. Check its path, its permissions and its encoding (UTF-8)."
        ) from error


def render(spec: ExtractionSpec) -> str:
    """Write `spec` as a parameter file for stock PyRadiomics, which gives the same numbers with it.

    Raises
    ------
    Refused
        ``spec_unsupported`` for the IBSI grid: PyRadiomics would read the file and give other numbers.
    """
    if spec.grid != "pyradiomics":
        raise _refuse("An extraction spec on the IBSI grid cannot be written as a PyRadiomics parameter file.")
    groups: dict[str, list[str]] = {}
    for feature in spec.features:
        _, group, name = feature.split("_", 2)
        groups.setdefault(group, []).append(name)
    document = {
        "imageType": {"Original": {}},
        "featureClass": {group: groups[group] for group in FEATURE_NAMES_BY_CLASS if group in groups},
        "setting": {key: spec.settings[key] for key in sorted(spec.settings)},
    }
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
