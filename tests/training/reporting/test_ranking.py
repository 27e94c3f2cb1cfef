"""The figures of a comparison are readable: nothing covers a label."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lungstage.training.comparison import statistics
from lungstage.training.reporting.figures import ranking
from lungstage.training.reporting.figures.canvas import BLACK, Picture


@pytest.mark.parametrize("spread", [0.01, 0.4, 1.0])
def test_the_bars_of_what_is_not_told_apart_cross_no_label(monkeypatch: pytest.MonkeyPatch, spread: float) -> None:
    drawn: list[Figure] = []
    whole = ranking.picture

    def caught(figure: Figure, *words: Any) -> Picture:
        drawn.append(figure)
        return whole(figure, *words)

    monkeypatch.setattr(ranking, "picture", caught)
    names = ["gl_rfe", *(f"selector {i}" for i in range(13))]
    ranks = {name: 7.5 + spread * (i - 6.5) for i, name in enumerate(names)}
    difference = statistics.critical_difference(len(names), 22, 0.05)
    cliques = statistics.cliques(ranks, difference)
    own = {"mean_rank": ranks, "critical_difference": difference, "cliques": cliques, "friedman": None}
    record = {"classifiers": {"network": own}, "labels": {name: name for name in names}, "tables": [None] * 22}
    ranking.critical_difference(record, "network")
    (axes,) = drawn[0].axes
    bars = [line.get_window_extent() for line in axes.lines if to_hex(line.get_color()) == BLACK]
    assert len(bars) == len(cliques) > 0
    labels = [text.get_window_extent() for text in (*axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels())]
    assert len(labels) > 2 * len(names)
    for bar in bars:
        assert drawn[0].bbox.x1 > bar.x1
        assert not [label for label in labels if label.padded(1).overlaps(bar)]
