"""Libraries that are optional: an error message names the extra of the package that installs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lungstage.appliance.contract.errors import LungstageError


class NotInstalledError(LungstageError):
    """A library of one of the package's extras is not installed."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say what to install when a library is missing in the block.

    Raises
    ------
    NotInstalledError
        Instead of ModuleNotFoundError, unless a module of lungstage itself is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "lungstage":
            raise
        raise NotInstalledError(
            f"{error.name} is not installed. Install it with: pip install 'lungstage[{extra}]'"
        ) from error
