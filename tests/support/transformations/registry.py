"""What a transformation is, and how several are put on one study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import partial
from typing import Literal

from tests.support.transformations.study import Drawing, Files, Study, Truth, Unfit, study_of

On = Literal["CT", "contours", "segment", "files"]


class Right(Enum):
    """What is right to say of a study with nothing else done to it."""

    MEASURED = "measured as the truth"
    REFUSED = "refused or held"
    EITHER = "measured as the truth, or refused"


class Phase(IntEnum):
    """When a transformation takes its turn: a writer packs the pixels of objects, then writes them, then exports."""

    OBJECTS = 1
    PIXELS = 2
    FILES = 3
    EXPORT = 4


@dataclass(frozen=True)
class Transformation:
    """One thing that writers, archives and people do to studies.

    Attributes
    ----------
    on
        What of a study it changes.
    right
        What is right to say then.
    draw
        What it needs of the drawing.
    change, write
        What it does to the objects, or to the files.
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
    """Put transformations on one study.

    Parameters
    ----------
    chosen
        Each takes its turn by its phase, and within it in the order given.
    otherwise
        The kind of region where none of them says which it needs.

    Returns
    -------
    Files, Truth
        The files by name, and what is to be measured.

    Raises
    ------
    Unfit
        They cannot be put on one study.
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
    except Exception as error:  # what one has left, the other, or pydicom, cannot change or write
        raise Unfit(f"{', '.join(map(repr, chosen))}: {error!r}") from error
    return files, study.truth


def only(prefix: str, do: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    """Do something to the files whose name begins so."""
    return partial(_only, prefix, do)


def _only(prefix: str, do: Callable[[bytes], bytes], files: Files) -> Files:
    return {name: do(content) if name.startswith(prefix) else content for name, content in files.items()}
