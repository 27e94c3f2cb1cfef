"""The site's reference cases: the first run records their results, and every later run must give the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lungstage.appliance.commissioning.acceptance import largest_difference, relative_difference
from lungstage.appliance.commissioning.instrument import Instrument, answer_of, environment
from lungstage.appliance.commissioning.plan import PlanError, ReferenceCase, Thresholds
from lungstage.appliance.commissioning.verdict import Cell, Check, Verdict, worst

_EXACT = ("status", "code", "answer", "voxels")


def check_reference_cases(
    cases: Sequence[ReferenceCase],
    instrument: Instrument,
    expected: Path,
    thresholds: Thresholds,
    now: datetime,
    *,
    record: bool,
) -> Check:
    """Compare the results of reference cases with the recorded ones.

    Parameters
    ----------
    cases
        Studies that are expected to be refused or answered.
    instrument
        The appliance that gives the answers now.
    expected
        File of the recorded results and of the software that gave them. It is written if it does not exist.
    thresholds
        How much numbers may differ.
    now
        Time of the record.
    record
        Replace the recorded results by the new ones.

    Raises
    ------
    PlanError
        The recorded results cannot be read.
    """
    found = {case.study.name: answer_of(instrument.stage(case.study)) for case in cases}
    missed = [
        f"{case.study.name}: {_word(found[case.study.name])}, not {case.expect}"
        for case in cases
        if case.expect and case.expect != _word(found[case.study.name])
    ]
    about = environment(instrument.bundle)
    before = {} if record else _read(expected)
    if not before:
        rows = tuple(_row(name, None, answer, thresholds)[1] for name, answer in found.items())
        if missed:
            return Check("reference cases", Verdict.FAIL, " ".join([*_sentence(missed), "Nothing was recorded."]), rows)
        _write(expected, found, about, now)
        finding = f"{len(found)} cases were recorded. Later runs are compared with these results."
        return Check("reference cases", Verdict.NOTE, finding, rows)
    verdicts, rows = zip(*(_row(n, before["cases"].get(n), a, thresholds) for n, a in found.items()), strict=True)
    gone = sorted(before["cases"].keys() - found.keys())
    told = [
        f"{sum(v is Verdict.PASS for v in verdicts)} of {len(found)} cases give the result that was recorded on "
        f"{before['recorded'][:10]} by lungstage {before['environment']['lungstage']}."
    ]
    if before["environment"]["bundle digest"] != about["bundle digest"]:
        told.append(
            "The record was made with another bundle, so different answers are expected. "
            "Accept the new bundle, then run the command with --record."
        )
    if gone:
        told.append(f"No longer in the list: {', '.join(gone)}.")
    told += _sentence(missed)
    every = [*verdicts, Verdict.WARN if gone else Verdict.PASS, Verdict.FAIL if missed else Verdict.PASS]
    return Check("reference cases", worst(every), " ".join(told), rows)


def _sentence(missed: Sequence[str]) -> list[str]:
    return [f"Not as the list expects: {'; '.join(missed)}."] if missed else []


def _word(answer: Mapping[str, Any]) -> str:
    return str(answer["code"] or answer["status"])


def _row(
    name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any], thresholds: Thresholds
) -> tuple[Verdict, Mapping[str, Cell]]:
    """Compare one case with its record, and return its verdict and its row."""
    if before is None:
        verdict, what = Verdict.NOTE, "nothing expected"
    else:
        verdict, what = _compare(before, now, thresholds)
    said = now["answer"] or _word(now)
    return verdict, {"case": name, "answer": said, "probability": now["probability"], "verdict": verdict, "why": what}


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], thresholds: Thresholds) -> tuple[Verdict, str]:
    for key in _EXACT:
        if before[key] != now[key]:
            return Verdict.FAIL, f"{key} was {before[key]}, is {now[key]}"
    if before == now:
        return Verdict.PASS, "identical to the last bit"
    features = largest_difference(before["features"] or {}, now["features"] or {})
    distance = relative_difference(before["distance"], now["distance"])
    probability = abs((now["probability"] or 0.0) - (before["probability"] or 0.0))
    differ = f"features differ by {features:.1e}, distance by {distance:.1e} relative, probability by {probability:.1e}"
    within = max(features, distance) <= thresholds.feature_tolerance and probability <= thresholds.probability_tolerance
    return (Verdict.PASS if within else Verdict.FAIL), differ


def _read(path: Path) -> dict[str, Any]:
    try:
        recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        recorded["recorded"], recorded["environment"]["lungstage"], recorded["environment"]["bundle digest"]
        for answer in recorded["cases"].values():
            {key: answer[key] for key in (*_EXACT, "probability", "distance", "features")}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(
            f"The recorded results in {path.name} cannot be read ({type(error).__name__}). Restore the file, or remove "
            "it to record the results again."
        ) from error
    return recorded


def _write(path: Path, cases: Mapping[str, Any], about: Mapping[str, str], now: datetime) -> None:
    content = {"recorded": now.isoformat(timespec="seconds"), "environment": dict(about), "cases": dict(cases)}
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
