"""Run every selector on every table of a folder, piece by piece, and combine the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.training.comparison import statistics
from lungstage.training.comparison.pieces import REFERENCES, Piece, do_piece, pieces_of
from lungstage.training.comparison.protocol import Protocol, ProtocolError
from lungstage.training.comparison.tables import FeatureTable, find_tables, read_table
from lungstage.training.comparison.verdicts import verdicts
from lungstage.training.evaluation.stability import nogueira
from lungstage.training.files import write_whole
from lungstage.training.long_runs.journal import open_lines
from lungstage.training.run import versions
from lungstage.training.selection.registry import GL_RFE, LABELS

Array = npt.NDArray[np.float64]
Answer = Mapping[str, Any]
Run = Callable[[Callable[[Piece], Answer], Iterable[Piece]], Iterator[tuple[Piece, Answer | None]]]
"""Runs pieces in several processes. The result is None if the processes die on a piece."""

PROTOCOL, JOURNAL, RESULTS, TIMINGS = "protocol.json", "journal.jsonl", "results.json", "timings.json"
_DIED: Final = "every process that worked on it was killed; it may need more memory than this machine has"


@dataclass(frozen=True, slots=True)
class Done:
    """A finished piece: its answer, and whether it came from the journal."""

    piece: Piece
    answer: Answer
    recalled: bool


@dataclass(frozen=True, slots=True)
class Folder:
    """The usable tables of a folder with their files, and the reasons why the others are left out."""

    tables: Mapping[str, FeatureTable]
    files: Mapping[str, Path]
    refused: Mapping[str, str]


def read_folder(folder: Path, protocol: Protocol) -> Folder:
    """Read every table of a folder.

    Raises
    ------
    Refused
        ``table_invalid``: there is no table, or no usable one.
    """
    files = find_tables(folder)
    tables: dict[str, FeatureTable] = {}
    refused: dict[str, str] = {}
    for name, file in files.items():
        try:
            tables[name] = read_table(file, name=name, features=protocol.features, folds=protocol.folds)
        except Refused as error:
            refused[name] = error.reason.message
        except OSError as error:
            refused[name] = f"The file cannot be read: {error.strerror}."
    if not tables:
        name, why = next(iter(refused.items()))
        raise Refused(ReasonCode.TABLE_INVALID, f"None of {len(files)} tables can be used; {name}: {why}")
    return Folder(tables, files, refused)


def settle(out: Path, protocol: Protocol) -> None:
    """Write the protocol before the run starts.

    Raises
    ------
    ProtocolError
        The folder contains a run with another protocol.
    OSError
        The folder cannot be written to.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / PROTOCOL
    with suppress(FileNotFoundError):
        there = None
        with suppress(ValueError):
            there = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(there, dict) or there.get("sha256") != protocol.digest():
            raise ProtocolError(
                f"{out} contains a run with another protocol or other settings of GL-RFE. Choose another folder (-o)."
            )
        return
    write_whole(file, as_json(protocol.record()))


def all_pieces(folder: Folder, protocol: Protocol) -> list[Piece]:
    """Return the pieces of a run. Pieces of large tables come first, so that no long piece is left for the end."""
    by_size = sorted(folder.tables.values(), key=lambda table: (-table.values.size, table.name))
    return [piece for table in by_size for piece in pieces_of(table, folder.files[table.name], protocol)]


def compare(pieces: Sequence[Piece], out: Path, run: Run, *, fresh: bool = False) -> Iterator[Done]:
    """Do the pieces that are not in the journal.

    Parameters
    ----------
    pieces
        See :func:`all_pieces`.
    out
        The folder of the results, which contains the journal.
    run
        Runs the work in several processes, e.g. :func:`training.long_runs.processes.run`.
    fresh
        Delete the content of the journal.

    Yields
    ------
    Done
        One for each piece; those from the journal come first. Failed pieces are not written to the journal, so the next
        run tries them again.
    """
    with open_lines(out / JOURNAL, fresh=fresh) as journal:
        known: dict[tuple[Any, ...], Answer] = {}
        method = {"protocol_sha256": pieces[0].protocol.digest(), "software": dict(pieces[0].software)}
        for line in journal.found:
            with suppress(KeyError, TypeError):
                if {key: line[key] for key in method} == method:
                    known[tuple(line["piece"])] = line["answer"]
        for piece in pieces:
            if piece.key in known:
                yield Done(piece, known[piece.key], recalled=True)
        for piece, answer in run(do_piece, [piece for piece in pieces if piece.key not in known]):
            if answer is None:
                answer = {"failed": _DIED, "defect": False}
            if "failed" not in answer:
                journal.add({"piece": piece.key, **method, "answer": answer})
            yield Done(piece, answer, recalled=False)


def results(folder: Folder, protocol: Protocol, done: Iterable[Done]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of ``results.json`` and ``timings.json``.

    Raises
    ------
    Refused
        ``table_invalid``: no table has all its pieces.
    """
    answers = {one.piece.key: one.answer for one in done}
    refused = dict(folder.refused)
    figures: dict[str, Any] = {}
    seconds: dict[str, Any] = {}
    for name, table in folder.tables.items():
        pieces = list(pieces_of(table, folder.files[name], protocol))
        failed = sorted({answers[piece.key]["failed"] for piece in pieces if "failed" in answers[piece.key]})
        if failed:
            refused[name] = f"The comparison on this table failed: {'; '.join(failed)}."
            continue
        own = [(piece, answers[piece.key]) for piece in pieces]
        figures[name] = _figures(table, protocol, own)
        seconds[name] = {
            selector: float(
                np.mean([answer["seconds"][selector] for _, answer in own if selector in answer["seconds"]])
            )
            for selector in (*protocol.selectors, "classifiers")
        }
    if not figures:
        name, why = next(iter(refused.items()))
        raise Refused(ReasonCode.TABLE_INVALID, f"No table could be compared; {name}: {why}")
    labels = {name: LABELS[name] for name in protocol.selectors} | REFERENCES
    tests = _tests(protocol, figures)
    record = {
        "schema_version": 1,
        "protocol": protocol.record(),
        "versions": versions(),
        "labels": labels,
        "tables": {name: _table_record(folder.tables[name]) for name in figures},
        "refused": refused,
        "figures": figures,
        "classifiers": {classifier: _over_tables(classifier, protocol, figures) for classifier in protocol.classifiers},
        "tests": tests,
        "verdicts": verdicts(tests, labels, protocol.alpha),
        "stability": _stability_over_tables(protocol, figures),
    }
    timings = {
        "schema_version": 1,
        "unit": "mean CPU seconds of one selection, or of all classifiers of one fold",
        "tables": seconds,
        "mean": {
            selector: float(np.mean([of[selector] for of in seconds.values()]))
            for selector in (*protocol.selectors, "classifiers")
        },
    }
    return record, timings


def as_json(record: Mapping[str, Any]) -> bytes:
    """Write a record as JSON; the same record gives the same bytes."""
    return (json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _table_record(table: FeatureTable) -> dict[str, Any]:
    return {
        "sha256": table.sha256,
        "names": table.names,
        "rows": table.rows,
        "used": len(table.labels),
        "positives": int(table.labels.sum()),
        "features": len(table.features),
        "left_out_rows": dict(table.left_out_rows),
        "left_out_columns": {why: list(names) for why, names in table.left_out_columns.items()},
    }


def _figures(table: FeatureTable, protocol: Protocol, own: Sequence[tuple[Piece, Answer]]) -> dict[str, Any]:
    """AUC of every fold, ordered by repeat, and each selector's stability on one table."""
    folds = [(piece, answer) for piece, answer in own if piece.part == "fold"]
    auc = {
        classifier: {name: [answer["auc"][classifier][name] for _, answer in folds] for name in protocol.selectors}
        for classifier in protocol.classifiers
    }
    references = {
        name: [answer["references"][name] for _, answer in folds]
        for name in REFERENCES
        if name in folds[0][1]["references"]
    }
    return {
        "auc": auc,
        "references": references,
        "stability": {
            name: {
                "folds": _stability(table, name, own, "fold", protocol.folds),
                "halves": _stability(table, name, own, "half", 2),
            }
            for name in protocol.selectors
        },
    }


def _stability(table: FeatureTable, name: str, own: Sequence[tuple[Piece, Answer]], part: str, together: int) -> float:
    """Mean stability over groups of selections: the folds of a repeat, or two halves."""
    selections = [answer["selected"][name] for piece, answer in own if piece.part == part]
    held = np.zeros((len(selections), len(table.features)), dtype=bool)
    for row, columns in zip(held, selections, strict=True):
        row[columns] = True
    return float(np.mean([nogueira(held[i : i + together])[0] for i in range(0, len(held), together)]))


def _means(figures: Mapping[str, Any], classifier: str, name: str) -> Array:
    """Mean AUC of a selector with a classifier on each table; (tables,)."""
    return np.array([np.mean(one["auc"][classifier][name]) for one in figures.values()])


def _over_tables(classifier: str, protocol: Protocol, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Ranks of the selectors with one classifier, and how GL-RFE compares with each of them and with the references."""
    scores = np.column_stack([_means(figures, classifier, name) for name in protocol.selectors])
    mean_ranks = dict(zip(protocol.selectors, statistics.ranks(scores).mean(axis=0).tolist(), strict=True))
    difference = statistics.critical_difference(len(protocol.selectors), len(scores), protocol.alpha)
    against = {
        name: statistics.compared(scores[:, protocol.selectors.index(GL_RFE)], scores[:, i], protocol.alpha)
        for i, name in enumerate(protocol.selectors)
        if name != GL_RFE
    }
    for name in REFERENCES:
        with_it = {table: one for table, one in figures.items() if name in one["references"]}
        if with_it:
            own = _means(with_it, classifier, GL_RFE)
            other = np.array([np.mean(one["references"][name]) for one in with_it.values()])
            against[name] = statistics.compared(own, other, protocol.alpha)
    return {
        "mean_auc": {
            name: statistics.mean_interval(scores[:, i], protocol.alpha) for i, name in enumerate(protocol.selectors)
        },
        "mean_rank": mean_ranks,
        "friedman": statistics.friedman(scores),
        "critical_difference": difference,
        "cliques": statistics.cliques(mean_ranks, difference),
        "against": against,
    }


def _tests(protocol: Protocol, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test GL-RFE against the protocol's comparators, over all classifiers together, by Holm's procedure."""
    named = [(classifier, name) for classifier in protocol.classifiers for name in protocol.tested]
    found = [
        statistics.compared(_means(figures, classifier, GL_RFE), _means(figures, classifier, name), protocol.alpha)
        for classifier, name in named
    ]
    adjusted = statistics.holm([one["p"] for one in found])
    return [
        {"classifier": classifier, "against": name, **one, "p_holm": p}
        for (classifier, name), one, p in zip(named, found, adjusted, strict=True)
    ]


def _stability_over_tables(protocol: Protocol, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            kind: statistics.mean_interval(
                np.array([one["stability"][name][kind] for one in figures.values()]), protocol.alpha
            )
            for kind in ("halves", "folds")
        }
        for name in protocol.selectors
    }
