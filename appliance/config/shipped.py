"""Find a bundle by its name: a folder, or one of the bundles that the package ships."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parents[2] / "models"


CONTOUR_BUNDLE: Final = "lung-contour"
"""Name of the shipped bundle that draws contours."""


def shipped_bundles() -> tuple[str, ...]:
    """Return the names of the bundles that this installation ships for answers; a wheel may contain none."""
    return tuple(name for name in _shipped() if name != CONTOUR_BUNDLE)


def shipped_contour_bundles() -> tuple[str, ...]:
    """Return the names of the bundles that this installation ships for drawing; a wheel may contain none."""
    return tuple(name for name in _shipped() if name == CONTOUR_BUNDLE)


def _shipped() -> list[str]:
    return sorted(manifest.parent.name for manifest in SHIPPED.glob("*/manifest.json"))


def shipped_licences() -> tuple[str, ...]:
    """Return the licence of each shipped bundle, as ``CC BY-NC 3.0 (bundle lung1-stage)``."""
    manifests = {name: json.loads((SHIPPED / name / "manifest.json").read_bytes()) for name in _shipped()}
    return tuple(f"{manifest['provenance']['licence']} (bundle {name})" for name, manifest in manifests.items())


def bundle_folder(name_or_dir: str | os.PathLike[str]) -> Path:
    """Return the folder of a bundle.

    Parameters
    ----------
    name_or_dir
        The folder, or the name of a bundle that the package ships, e.g. ``lung1-stage``. A folder with that name takes
        precedence. A name that is neither is returned unchanged; the code that loads the bundle refuses it.
    """
    given = Path(name_or_dir)
    shipped = SHIPPED / given.name
    return shipped if os.fspath(name_or_dir) == given.name and not given.exists() and shipped.is_dir() else given
