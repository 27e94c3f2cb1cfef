"""Whether a run's model is shown to be better than chance and than the best simple model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.manifest import EstimateEntry, RivalName, WorthEntry
from lungstage.appliance.report import evidence
from lungstage.appliance.report.translation import Translator
from lungstage.training.evaluation.verdicts import SIMPLE
from lungstage.training.run import Run


def worth_of(run: Run) -> WorthEntry | None:
    """Compare the model's procedure with chance and with the best simple model, on the same patients and folds.

    Parameters
    ----------
    run
        The run. Its ``evaluation.json`` is used if it belongs to this model, otherwise the metrics of the fit.

    Returns
    -------
    WorthEntry
        None if the run has no out-of-fold metrics.

    Notes
    -----
    The model beats chance if the interval of its AUC lies above 0.5. Simple models have at most two features, or
    covariates only; the one with the highest AUC is compared. The model beats it if the verdict says so: both intervals
    of the paired difference lie above 0, the one over scored patients and the one corrected for training.
    """
    record, evaluation = run.record, run.own_evaluation
    if evaluation is None:
        own, others = record.get("out_of_fold", {}), record.get("comparators", {})
        verdicts = record.get("verdicts", ())
    else:
        own = evaluation["methods"][evaluation["reference"]]["metrics"]
        others = {name: one["metrics"] for name, one in evaluation["methods"].items()}
        verdicts = evaluation["verdicts"]
    if "auc" not in own:
        return None
    simple = [name for name in SIMPLE if name in others]
    rival = max(simple, key=lambda name: float(others[name]["auc"]["value"]), default=None)
    return WorthEntry(
        auc=_entry(own["auc"]),
        beats_chance=own["auc"]["low"] > 0.5,
        rival=cast(RivalName, rival) if rival in get_args(RivalName) else None,
        rival_auc=None if rival is None else _entry(others[rival]["auc"]),
        beats_rival=any(one["against"] == rival and one["adds_value"] is True for one in verdicts),
    )


def _entry(figure: Mapping[str, Any]) -> EstimateEntry:
    return EstimateEntry(value=float(figure["value"]), low=float(figure["low"]), high=float(figure["high"]))


def sentence(worth: WorthEntry | None) -> str:
    """Say that a model is not shown to be better than chance or the simple model, or not compared; else empty."""
    return evidence.worth(None if worth is None else worth.worth, Translator("en"))


def require_shown(worth: WorthEntry | None) -> None:
    """Refuse a model that is not shown to be better than chance and than the best simple model.

    Raises
    ------
    Refused
        ``worth_not_shown``.
    """
    if told := sentence(worth):
        raise Refused(
            ReasonCode.WORTH_NOT_SHOWN,
            f"{told} Nothing was written. Without --strict the bundle is written, with this warning.",
        )
