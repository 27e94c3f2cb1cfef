"""One piece of a comparison: every selector on the training rows of one fold, or on one half, of one table.

A piece depends only on its table, its protocol and the software. So any process can do it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit

from lungstage.appliance.config.logs import defect
from lungstage.training.comparison.protocol import Protocol
from lungstage.training.comparison.tables import FeatureTable, read_table
from lungstage.training.evaluation.folds import assign_folds, prepare
from lungstage.training.evaluation.methods import Method, predict
from lungstage.training.model.network import single_threaded
from lungstage.training.run import versions
from lungstage.training.selection.elimination import Task
from lungstage.training.selection.registry import selectors

Indices = npt.NDArray[np.intp]
Part = Literal["fold", "half"]

ALL_FEATURES: Final = "all_features"
SPHERICITY_VOLUME: Final = "sphericity_volume"
REFERENCES: Final = {ALL_FEATURES: "all features, L2 logistic", SPHERICITY_VOLUME: "sphericity + volume, logistic"}
"""Models without a selector, by their names in results."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The work order of a worker.

    Attributes
    ----------
    table, file, sha256
        The table's name, its file, and the file's hash.
    part, repeat, number
        Number of the fold or half, and its repeat. Halves 2i and 2i + 1 are disjoint.
    protocol, software
        The protocol, and the software versions.
    """

    table: str
    file: Path
    sha256: str
    part: Part
    repeat: int
    number: int
    protocol: Protocol
    software: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[str, str, Part, int, int]:
        """Unique key of the piece in a run."""
        return self.table, self.sha256, self.part, self.repeat, self.number


def pieces_of(table: FeatureTable, file: Path, protocol: Protocol) -> Iterator[Piece]:
    """Split the work on one table into pieces."""
    software = tuple(sorted(versions().items()))
    for repeat in range(protocol.repeats):
        parts: list[tuple[Part, int]] = [("fold", number) for number in range(protocol.folds)]
        parts += [("half", number) for number in range(2 * protocol.halves)]
        for part, number in parts:
            yield Piece(table.name, file, table.sha256, part, repeat, number, protocol, software)


def do_piece(piece: Piece) -> dict[str, Any]:
    """Do one piece. Runs in a worker and always returns an answer.

    Returns
    -------
    dict
        ``selected``: columns by selector, the best first. For a fold also ``auc`` on the left-out rows, by classifier
        and selector, and ``references``. ``seconds``: CPU time of each selector. Or ``failed``: the reason for a
        failure, and ``defect``: whether it is an internal error.
    """
    if dict(piece.software) != versions():
        return {"failed": "a worker has other versions of the software; install the same versions", "defect": False}
    try:
        with single_threaded():
            return _done(piece)
    except OSError as error:
        return {"failed": str(error), "defect": False}
    except Exception as error:  # an error on one table must not stop the others
        found = defect(error)
        return {
            "failed": f"internal error (please report it): {found['error']} at {found['frames']}",
            "defect": True,
        }


@lru_cache(maxsize=2)
def _table(file: Path, name: str, sha256: str, features: int, folds: int) -> FeatureTable:
    table = read_table(file, name=name, features=features, folds=folds)
    if table.sha256 != sha256:
        raise OSError(f"{file.name} has changed since the run began")
    return table


def _done(piece: Piece) -> dict[str, Any]:
    protocol, procedure = piece.protocol, piece.protocol.procedure
    table = _table(piece.file, piece.table, piece.sha256, protocol.features, protocol.folds)
    rows = _training_rows(piece, table)
    purpose = 1 if piece.part == "fold" else 8
    task = prepare(table.values, rows, (protocol.seed, purpose, piece.repeat, piece.number))
    offered = selectors(procedure.selection, procedure.network)
    selected: dict[str, Indices] = {}
    seconds: dict[str, float] = {}
    for name in protocol.selectors:
        start = time.process_time()
        # With the preset `paper`, the published variant is GL-RFE itself and not a separate selector.
        chosen = offered.get(name, offered["gl_rfe"])
        (selected[name],) = chosen([task], table.labels, protocol.features)
        seconds[name] = time.process_time() - start
    done: dict[str, Any] = {
        "selected": {name: columns.tolist() for name, columns in selected.items()},
        "seconds": seconds,
    }
    if piece.part == "fold":
        start = time.process_time()
        done |= _scored(task, table, selected, protocol)
        seconds["classifiers"] = time.process_time() - start
    return done


def _training_rows(piece: Piece, table: FeatureTable) -> Indices:
    protocol = piece.protocol
    if piece.part == "fold":
        fold = assign_folds(table.labels, protocol.folds, protocol.repeats, protocol.seed)
        return np.flatnonzero(fold[piece.repeat] != piece.number)
    seed = int(np.random.SeedSequence([protocol.seed, 8, piece.repeat]).generate_state(1)[0] % 2**31)
    parting = StratifiedShuffleSplit(protocol.halves, test_size=0.5, random_state=seed)
    halves = [half for both in parting.split(table.labels, table.labels) for half in both]
    return np.sort(halves[piece.number])


def _scored(task: Task, table: FeatureTable, selected: dict[str, Indices], protocol: Protocol) -> dict[str, Any]:
    """AUC of every classifier on every selection, and of the references, on the left-out rows."""
    away = np.setdiff1d(np.arange(len(table.labels)), task.rows)

    def aucs(method: Method, columns: list[Indices]) -> list[float]:
        """AUC of one method on several selections with the same number of columns; networks are trained together."""
        logits = predict(method, protocol.procedure, [task] * len(columns), table.labels, np.stack(columns))
        return [float(roc_auc_score(table.labels[away], own[away])) for own in logits]

    by_size: dict[int, list[str]] = {}
    for name, columns in selected.items():
        by_size.setdefault(len(columns), []).append(name)
    scores: dict[str, dict[str, float]] = {}
    for classifier in protocol.classifiers:
        found: dict[str, float] = {}
        for names in by_size.values():
            found |= zip(names, aucs(Method("", classifier), [np.sort(selected[name]) for name in names]), strict=True)
        scores[classifier] = {name: found[name] for name in selected}
    every = np.arange(len(table.features))
    references = {ALL_FEATURES: aucs(Method("", "tuned_logistic"), [every])[0]}
    if (pair := table.sphericity_and_volume) is not None:
        references[SPHERICITY_VOLUME] = aucs(Method("", "logistic"), [np.array(pair, dtype=np.intp)])[0]
    return {"auc": scores, "references": references}
