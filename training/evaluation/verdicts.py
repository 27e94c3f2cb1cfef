"""Verdicts of an evaluation in words: whether GL-RFE adds value, and warnings of implausibly good metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint
from lungstage.training.evaluation.metrics import Interval

SIMPLE: Final = ("sphericity_volume", "volume", "best_single_lr", "covariates_alone")
"""Models of at most two features, or of covariates. What a primary tumour shows of the stage is mostly its size."""
MARGIN: Final = 0.1
MAX_AUC: Final = 0.95
MAX_ACCURACY, FEW_PATIENTS = 0.9, 300
LEAK: Final = "Assume data leakage until you have excluded it."

Records = Mapping[str, Mapping[str, Any]]
"""The ``methods`` of ``evaluation.json``."""


def verdict(
    reference: str, against: str, label: str, difference: Interval, corrected: Interval | None = None
) -> dict[str, Any]:
    """Decide whether the reference adds value over one method.

    Parameters
    ----------
    reference
        Label of the reference.
    against, label
        Name and label of the other method.
    difference
        Paired difference: AUC of the reference minus that of the other. Its interval covers the choice of the scored
        patients.
    corrected
        The same difference with an interval that also covers the choice of the training patients, if available.

    Returns
    -------
    dict
        ``adds_value``: True if both intervals lie above 0, False if both lie below 0, None if one includes 0.
    """
    intervals = [difference] if corrected is None else [difference, corrected]
    bounds = [f"{_signed(one['low'])} to {_signed(one['high'])}" for one in intervals]
    figures = f"AUC difference {_signed(difference['value'])} ({'; corrected for training '.join(bounds)})"
    if all(one["low"] > 0 for one in intervals):
        adds, sentence = True, f"{reference} adds value over {label}: {figures}."
    elif all(one["high"] < 0 for one in intervals):
        adds, sentence = False, f"{reference} is worse than {label}: {figures}."
    else:
        adds, sentence = None, f"No difference between {reference} and {label} is shown: {figures}."
    return {"against": against, "adds_value": adds, "sentence": sentence}


def warnings(methods: Records, endpoint: Endpoint, patients: int) -> list[str]:
    """List implausibly good metrics, in plain sentences.

    Parameters
    ----------
    methods
        Every method's record.
    endpoint
        What is predicted. Stage largely depends on nodes and metastases, which features of a primary tumour do not
        contain. So no method should be far above the best of :data:`SIMPLE` on the same table. Far means by more than
        :data:`MARGIN`, with the whole interval above it.
    patients
        Number of scored patients.
    """
    best = max((methods[name] for name in SIMPLE if name in methods), key=_auc, default=None)

    def named(metric: str, limit: float) -> str:
        return ", ".join(
            f"{one['label']} ({one['metrics'][metric]['value']:.2f})"
            for one in methods.values()
            if one["metrics"][metric]["value"] > limit
        )

    said = []
    if endpoint == STAGE_GROUP and best is not None:
        honest = max(_auc(best), 0.5)  # a simple model can be worse than chance
        far_above = [
            f"{one['label']} ({_auc(one):.2f})"
            for one in methods.values()
            if _auc(one) > honest + MARGIN and one["metrics"]["auc"]["low"] > honest
        ]
        if far_above:
            said.append(
                f"AUC more than {MARGIN:.1f} above that of {best['label']} ({_auc(best):.2f}) on the same patients: "
                f"{', '.join(far_above)}. {LEAK}"
            )
    if found := named("auc", MAX_AUC):
        said.append(f"AUC above {MAX_AUC:.2f}: {found}. {LEAK}")
    if patients < FEW_PATIENTS and (found := named("accuracy", MAX_ACCURACY)):
        said.append(f"Accuracy above {MAX_ACCURACY:.2f} in {patients} patients: {found}. {LEAK}")
    return said


def _auc(method: Mapping[str, Any]) -> float:
    value: float = method["metrics"]["auc"]["value"]
    return value


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
