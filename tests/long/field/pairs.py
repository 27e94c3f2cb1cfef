"""Pairs of transformations on one study, each in its own order and with its own pauses, compared with the truth.

``python -m tests.long.field.pairs`` tries all pairs, which takes an hour. ``make field`` tries a sample and publishes
the results.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from lungstage.appliance.config import logs
from tests.support.transformations import EVERY, Transformation, Unfit, transformed
from tests.support.transit import IN_MEMORY, PAUSES, ThirdThing, blocks, send, verdict

_SAMPLE = 2400


@dataclass
class Pairs:
    """Results of the pairs."""

    said: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    minutes: float = 0.0

    @property
    def tried(self) -> int:
        """Number of pairs, without those that cannot be applied to one study."""
        return sum(self.said.values()) - self.said["unfit"]

    @property
    def lines(self) -> list[str]:
        """The section of docs/field-cases.md."""
        refused = Counter({code: n for code, n in self.said.items() if code not in ("measured", "unfit", "wrong")})
        codes = ", ".join(f"`{code}` {count}" for code, count in refused.most_common())
        return [
            "## Pairs",
            "",
            f"A pair is two of {len(EVERY)} transformations (`tests/support/transformations/`) of one generated "
            "study. A transformation makes a change that scanners, archives, de-identifiers, planning systems or "
            "viewers make to a patient's study, as in the cases above. The files arrive in random order with pauses, "
            "and some pauses are longer than the daemon waits. They are read, linked and measured as in the daemon, in "
            "simulated time. Each answer is compared with the true mask and HU.",
            "",
            f"{self.tried} pairs, a sample of {len(list(every()))}: "
            f"{self.said['measured']} measured as the truth, {refused.total()} refused or held, "
            f"{self.said['wrong']} wrong. Another {self.said['unfit']} pairs cannot be applied to one study.",
            "",
            f"Refused or held: {codes}.",
        ]


def every() -> Iterator[tuple[Transformation, Transformation]]:
    """All pairs except two transformations of bytes, which ``tests/appliance/dicom/test_habits.py`` pairs."""
    for one, other in combinations(EVERY.values(), 2):
        if one.on != "files" or other.on != "files":
            yield one, other


def said_of(pair: Sequence[Transformation]) -> str:
    """Send one pair; its names determine order and pauses.

    Raises
    ------
    ThirdThing
        The result is neither the truth nor a refusal.
    """
    chance = random.Random(repr(pair))
    chosen = chance.sample(list(pair), len(pair))
    try:
        files, truth = transformed(chosen, chance.choice(("contours", "segment")))
    except Unfit:
        return "unfit"
    if chance.random() < 0.5:
        order = chance.sample(sorted(files), len(files))
        pauses = [chance.choice(PAUSES) for _ in range(chance.randrange(5))]
    else:
        parts = blocks(files)
        parts = chance.sample(parts, len(parts))
        order = [name for part in parts for name in part]
        pauses = [pause for part in parts for pause in (*[0.0] * (len(part) - 1), chance.choice(PAUSES))]
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        return verdict(*send(files, Path(folder), order=order, pauses=pauses), truth)


def sample() -> list[tuple[Transformation, Transformation]]:
    """A sample that takes some minutes; the number of pairs determines which."""
    pairs = list(every())
    return random.Random(len(pairs)).sample(pairs, _SAMPLE)


def tried(pairs: Sequence[Sequence[Transformation]]) -> Pairs:
    """Send pairs, one after the other."""
    started = time.monotonic()
    found = Pairs()
    for pair in pairs:
        try:
            found.said[said_of(pair)] += 1
        except ThirdThing as third:
            found.said["wrong"] += 1
            found.wrong.append(f"{' + '.join(map(repr, pair))}: {third}")
            print("WRONG  ", found.wrong[-1], flush=True)
    found.minutes = (time.monotonic() - started) / 60
    return found


if __name__ == "__main__":
    logs.logger.setLevel("CRITICAL")
    found = tried(list(every()))
    print(*found.lines, f"{found.minutes:.1f} minutes", sep="\n")
    sys.exit(bool(found.wrong))
