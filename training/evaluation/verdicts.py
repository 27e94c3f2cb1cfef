"""What the figures of an evaluation say in words: whether GL-RFE adds value, and what is too good to be true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint
from lungstage.training.evaluation.metrics import Interval

SIMPLE: Final = ("sphericity_volume", "volume", "best_single_lr", "covariates_alone")
"""Models of two features at most, or of clinical inputs: of the stage, a primary tumour shows mostly its size."""
MARGIN: Final = 0.1
MAX_AUC: Final = 0.95
MAX_ACCURACY, FEW_PATIENTS = 0.9, 300

Records = Mapping[str, Mapping[str, Any]]
"""The ``methods`` of ``evaluation.json``."""


def verdict(
    reference: str, against: str, label: str, difference: Interval, corrected: Interval | None = None
) -> dict[str, Any]:
    """Say whether the reference adds value over one method.

    Parameters
    ----------
    reference
        Label of the reference.
    against, label
        Name and label of the other method.
    difference
        AUC of the reference less that of the other, paired; its interval says which patients were scored by chance.
    corrected
        The same with the interval that also allows for what was trained on by chance, where there is one.

    Returns
    -------
    dict
        ``adds_value``: True where both intervals lie above 0, False where both lie below, None where one includes 0.
    """
    intervals = [difference] if corrected is None else [difference, corrected]
    bounds = [f"{_signed(one['low'])} to {_signed(one['high'])}" for one in intervals]
    figures = f"AUC difference {_signed(difference['value'])} ({'; with chance in training '.join(bounds)})"
    if all(one["low"] > 0 for one in intervals):
        adds, sentence = True, f"{reference} adds value over {label}: {figures}."
    elif all(one["high"] < 0 for one in intervals):
        adds, sentence = False, f"{reference} is worse than {label}: {figures}."
    else:
        adds, sentence = None, f"No difference between {reference} and {label} could be shown: {figures}."
    return {"against": against, "adds_value": adds, "sentence": sentence}


def warnings(methods: Records, endpoint: Endpoint, patients: int) -> list[str]:
    """Name what is implausibly good, in plain sentences.

    Parameters
    ----------
    methods
        Every method's record.
    endpoint
        What is predicted. Stage is for a large part in nodes and metastases, which a primary tumour's features cannot
        see. So no method should be far above the best of :data:`SIMPLE` on the same table: by more than
        :data:`MARGIN`, with its whole interval above it.
    patients
        How many were scored.
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
        honest = max(_auc(best), 0.5)  # a simple model may be worse than chance
        far_above = [
            f"{one['label']} ({_auc(one):.2f})"
            for one in methods.values()
            if _auc(one) > honest + MARGIN and one["metrics"]["auc"]["low"] > honest
        ]
        if far_above:
            said.append(
                f"An AUC more than {MARGIN:.1f} above that of {best['label']} ({_auc(best):.2f}) on the same patients "
                f"means a leak until shown otherwise: {', '.join(far_above)}."
            )
    if found := named("auc", MAX_AUC):
        said.append(f"An AUC above {MAX_AUC:.2f} means a leak until shown otherwise: {found}.")
    if patients < FEW_PATIENTS and (found := named("accuracy", MAX_ACCURACY)):
        said.append(
            f"An accuracy above {MAX_ACCURACY:.2f} in {patients} patients means a leak until shown otherwise: {found}."
        )
    return said


def _auc(method: Mapping[str, Any]) -> float:
    value: float = method["metrics"]["auc"]["value"]
    return value


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
