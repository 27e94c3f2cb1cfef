"""The source that is due first counts, and every file descriptor can wake the daemon."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lungstage.appliance.contract.source import Source, descriptors, next_due


class One(Source):
    def __init__(self, due: float | None, *opened: int) -> None:
        self._due, self._opened = due, opened

    def next_due(self) -> float | None:
        return self._due

    def descriptors(self) -> Sequence[int]:
        return self._opened


class Idle(Source):
    """A source that never has anything to do."""


@pytest.mark.parametrize(
    ("dues", "first"),
    [([], None), ([None, None], None), ([3.0, None, 2.0], 2.0), ([0.0, 1.0], 0.0), ([-1.0, 0.0], -1.0)],
)
def test_the_first_is_due(dues: list[float | None], first: float | None) -> None:
    assert next_due([Idle(), *map(One, dues)]) == first


def test_all_descriptors_wake() -> None:
    assert descriptors([One(None, 3, 4), Idle(), One(None, 5)]) == [3, 4, 5]
