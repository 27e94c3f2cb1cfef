"""Results of the tests of a comparison in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def verdicts(tests: Sequence[Mapping[str, Any]], labels: Mapping[str, str], alpha: float) -> list[str]:
    """Say for each tested comparator whether GL-RFE is shown to be better, worse or neither."""
    said = []
    for test in tests:
        better = test["difference"]["value"] > 0
        verdict = (
            "is not shown to differ from" if test["p_holm"] >= alpha
            else "is better than" if better
            else "is worse than"
        )  # fmt: skip
        said.append(
            f"GL-RFE + {test['classifier']} {verdict} {labels[test['against']]}: AUC difference "
            f"{_interval(test['difference'])}, {test['wins']} tables won, {test['losses']} lost; p {test['p']:.3f}, "
            f"{test['p_holm']:.3f} after Holm's correction."
        )
    return said


def _interval(entry: Mapping[str, Any]) -> str:
    def signed(value: float) -> str:
        return f"{value:.3f}".replace("-", "−")

    if entry["low"] is None:
        return f"{signed(entry['value'])} (one table, no interval)"
    return f"{signed(entry['value'])} ({signed(entry['low'])} to {signed(entry['high'])})"
