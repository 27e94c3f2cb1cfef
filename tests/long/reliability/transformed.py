"""Studies with one or two transformations, before they are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tests.long.reliability.mutations import Chance
from tests.support.transformations import EVERY, transformed

KINDS: tuple[Literal["contours", "segment"], ...] = ("contours", "segment")


@dataclass(frozen=True)
class Base:
    """A study and the true number of voxels of its region; None if no number is right."""

    transformations: tuple[str, ...]
    files: Mapping[str, bytes]
    voxels: int | None


def base(chance: Chance) -> Base:
    """Draw a transformed study at random.

    Raises
    ------
    Unfit
        The transformations drawn do not fit one study.
    """
    chosen = chance.sample(list(EVERY.values()), chance.choice((1, 1, 2)))
    files, truth = transformed(chosen, chance.choice(KINDS))
    # Name the files by kind, as the mutators expect.
    slices = [content for name, content in sorted(files.items()) if name.startswith("ct-")]
    others = [content for name, content in sorted(files.items()) if not name.startswith("ct-")]
    named = {f"ct-{k:02}": content for k, content in enumerate(slices)}
    named |= {f"roi-{k}": content for k, content in enumerate(sorted(others, key=_is_no_region))}
    return Base(tuple(map(repr, chosen)), named, None if truth.mask is None else int(truth.mask.sum()))


def _is_no_region(content: bytes) -> bool:
    return b"1.2.840.10008.5.1.4.1.1.481.3" not in content and b"1.2.840.10008.5.1.4.1.1.66." not in content
