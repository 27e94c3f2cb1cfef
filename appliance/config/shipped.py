"""Where a bundle is that was named: in a folder, or in the package, which ships some."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parents[2] / "models"


def bundle_folder(name_or_dir: str | os.PathLike[str]) -> Path:
    """Return the folder of a bundle.

    Parameters
    ----------
    name_or_dir
        The folder, or the bare name of a bundle that the package ships, e.g. ``lung1-stage``. A folder of that name
        comes first; what is neither is returned as it is, for its reader to refuse.
    """
    given = Path(name_or_dir)
    shipped = SHIPPED / given.name
    return shipped if os.fspath(name_or_dir) == given.name and not given.exists() and shipped.is_dir() else given
