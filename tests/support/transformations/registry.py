"""The class of a transformation, and how several are applied to one study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import partial
from typing import Literal

from tests.support.transformations.study import Drawing, Files, Study, Truth, Unfit, study_of

On = Literal["CT", "contours", "segment", "files"]


class Right(Enum):
    """The right result for a study with only this transformation."""

    MEASURED = "measured as the truth"
    REFUSED = "refused or held"
    EITHER = "measured as the truth, or refused"


class Phase(IntEnum):
    """The order of transformations: a writer packs the pixels of objects, then writes them, then exports."""

    OBJECTS = 1
    PIXELS = 2
    FILES = 3
    EXPORT = 4


@dataclass(frozen=True)
class Transformation:
    """One change that writers, archives or people make to studies.

    Attributes
    ----------
    on
        The part of a study that it changes.
    right
        The right result.
    draw
        A change of the drawing that it needs.
    change, write
        Its change to the objects, or to the files.
    """

    name: str
    on: On
    right: Right
    phase: Phase
    draw: Callable[[Drawing], Drawing] | None = None
    change: Callable[[Study], None] | None = None
    write: Callable[[Files], Files] | None = None

    def __repr__(self) -> str:
        return self.name


EVERY: dict[str, Transformation] = {}
"""By name."""

_Change = Callable[[Study], None]
_Write = Callable[[Files], Files]


def changes(
    on: On,
    right: Right = Right.MEASURED,
    phase: Phase = Phase.OBJECTS,
    draw: Callable[[Drawing], Drawing] | None = None,
) -> Callable[[_Change], _Change]:
    """Register a function that changes a study's objects."""

    def register(change: _Change) -> _Change:
        add(Transformation(change.__name__, on, right, phase, draw, change=change))
        return change

    return register


def writes(on: On, right: Right = Right.MEASURED, phase: Phase = Phase.FILES) -> Callable[[_Write], _Write]:
    """Register a function that changes a study's files."""

    def register(write: _Write) -> _Write:
        add(Transformation(write.__name__, on, right, phase, write=write))
        return write

    return register


def add(transformation: Transformation) -> None:
    """Register one."""
    if transformation.name in EVERY:
        raise ValueError(f"two transformations are called {transformation.name}")
    EVERY[transformation.name] = transformation


def transformed(
    chosen: Sequence[Transformation], otherwise: Literal["contours", "segment"] = "contours"
) -> tuple[Files, Truth]:
    """Apply transformations to one study.

    Parameters
    ----------
    chosen
        They are applied by phase, and within a phase in this order.
    otherwise
        The kind of region if no transformation needs a certain one.

    Returns
    -------
    Files, Truth
        The files by name, and what must be measured.

    Raises
    ------
    Unfit
        They cannot be applied to one study.
    """
    drawing = Drawing()
    needed = {one.on for one in chosen} & {"contours", "segment"} or {otherwise}
    for one in chosen:
        drawing = drawing if one.draw is None else one.draw(drawing)
    study = study_of(drawing, contours="contours" in needed, segment="segment" in needed)
    turns = sorted(chosen, key=lambda one: one.phase)
    try:
        for one in turns:
            if one.change is not None:
                one.change(study)
        files = study.files()
        for write in [one.write for one in turns if one.write is not None]:
            files = write(files)
    except Unfit:
        raise
    except Exception as error:  # the next transformation, or pydicom, cannot handle the changed study
        raise Unfit(f"{', '.join(map(repr, chosen))}: {error!r}") from error
    return files, study.truth


def only(prefix: str, do: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    """Apply `do` to the files with names that start with `prefix`."""
    return partial(_only, prefix, do)


def _only(prefix: str, do: Callable[[bytes], bytes], files: Files) -> Files:
    return {name: do(content) if name.startswith(prefix) else content for name, content in files.items()}
