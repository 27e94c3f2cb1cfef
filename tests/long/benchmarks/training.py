"""Compare the batched trainer with a loop over networks, and time one whole selection, in one run on one core.

``make bench`` runs this. The ratios are within one run; the seconds hold for this machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from lungstage.training.benchmarking.synthetic import make_table
from lungstage.training.model.members import Member, inner_splits
from lungstage.training.model.network import NetworkSettings, single_threaded, train
from lungstage.training.model.preprocessing import Standardise
from lungstage.training.procedure import HARDENED
from lungstage.training.selection.elimination import Task, eliminate, selected

REPEATS = 5
NETWORKS = (10, 50, 100)


def seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median processor time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    truth = make_table("mixed", 0)
    inputs = Standardise().fit_transform(truth.values)
    rows = np.arange(len(inputs))
    # Every network has the same number of epochs, so that both ways do the same work.
    settings = NetworkSettings(max_epochs=20, patience=10**6)
    print(f"{len(inputs)} patients, {inputs.shape[1]} features, 20 epochs, one core, median of {REPEATS}")
    print(f"{'networks':>10}{'batched':>10}{'loop':>10}{'ratio':>8}")
    with single_threaded():
        for count in NETWORKS:
            splits = inner_splits(truth.labels, rows, count, 5, np.random.SeedSequence(0))
            members = [Member(inputs, truth.labels, *split) for split in splits]
            batched = seconds(lambda m=members: train(m, settings))
            loop = seconds(lambda m=members: [train([one], settings) for one in m], 1)
            print(f"{count:>10}{batched:>9.2f}s{loop:>9.2f}s{loop / batched:>7.1f}x")
        task = Task(inputs, rows, (0,))
        selection = HARDENED.selection
        start = time.perf_counter()
        (trace,) = eliminate([task], truth.labels, selection, HARDENED.network)
        spent = time.perf_counter() - start
    print(
        f"GL-RFE {inputs.shape[1]} -> {len(selected(trace))} with {selection.members} seeds, {len(trace)} rounds: "
        f"{spent:.1f} s"
    )


if __name__ == "__main__":
    main()
