"""What is installed only on demand: a library that is missing is named with the extra that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lungstage.appliance.contract.errors import LungstageError


class NotInstalledError(LungstageError):
    """A library that an extra of the package brings is not installed."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say what to install where a library cannot be found in what follows.

    Raises
    ------
    NotInstalledError
        In place of ModuleNotFoundError, unless it is a module of our own that is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "lungstage":
            raise
        raise NotInstalledError(
            f"{error.name} is not installed; this brings it: pip install 'lungstage[{extra}]'"
        ) from error
