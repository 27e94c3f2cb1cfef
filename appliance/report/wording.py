"""Words and codes for a model's answer in a report: for stage groups, for survival, and for any other endpoint.

The codes are private on purpose: (399537006, SCT, Clinical TNM stage grouping) and similar codes would present the
output of a model as a clinical finding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.sr.coding import Code

from lungstage.appliance.contract.horizon import Horizon
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint, Stage
from lungstage.appliance.report.vocabulary import private, stage_code

PREDICTED_STAGE = private("STAGEGROUP", "Predicted stage group (radiomics model, research)")
PROBABILITY = private("PADVANCED", "Model probability of advanced stage (research)")
CONTRIBUTION = private("CONTRIBUTION", "Contribution to the model's logit of advanced stage")

_LONGEST_MEANING = 64  # Code Meaning is a Long String


@dataclass(frozen=True, slots=True)
class Wording:
    """Codes and words for the answers of one model.

    Attributes
    ----------
    predicted, probability, contribution
        Concept names of the answer, of the probability of the positive class and of an input's contribution.
    classes
        Coded values of the answer.
    endpoint
        What is predicted, in one or two words.
    positive
        Name of the positive class within a sentence.
    target
        Name of the positive class after "probability of".
    kind
        What the classes are.
    disclaimer
        What the answer is not, as a sentence without capital and full stop.
    """

    predicted: Code
    probability: Code
    contribution: Code
    classes: Mapping[Stage, Code]
    endpoint: str
    positive: str
    target: str
    kind: str
    disclaimer: str


def wording(endpoint: Endpoint, stages_absent: Collection[str] = ()) -> Wording:
    """Choose the words.

    Parameters
    ----------
    endpoint
        What the model predicts.
    stages_absent
        Stage groups that are not in the training cohort: they decide what *advanced* covers.
    """
    if endpoint == STAGE_GROUP:
        return Wording(
            predicted=PREDICTED_STAGE,
            probability=PROBABILITY,
            contribution=CONTRIBUTION,
            classes=MappingProxyType({stage: stage_code(stage, stages_absent) for stage in Stage}),
            endpoint="stage",
            positive="advanced stage",
            target="advanced stage",
            kind="stage group",
            disclaimer="it is not a clinical stage",
        )
    if (horizon := Horizon.of(endpoint)) is not None:
        return _survival(horizon)
    # A code value of a private scheme must not have different meanings in different bundles.
    name = hashlib.sha256("\n".join((endpoint.name, endpoint.negative, endpoint.positive)).encode()).hexdigest()[:10]
    return Wording(
        predicted=private(f"CLASS-{name}", _meaning("Predicted class: {} (radiomics model, research)", endpoint.name)),
        probability=private(f"PROB-{name}", _meaning("Model probability of class {} (research)", endpoint.positive)),
        contribution=private(
            f"CONTR-{name}", _meaning("Contribution to the model's logit of class {}", endpoint.positive)
        ),
        classes=MappingProxyType(
            {
                Stage.EARLY: private(f"NEG-{name}", endpoint.negative),
                Stage.ADVANCED: private(f"POS-{name}", endpoint.positive),
                Stage.INDETERMINATE: private("INDETERMINATE", "indeterminate"),
            }
        ),
        endpoint=endpoint.name,
        positive=f"of class {endpoint.positive}",
        target=f"class {endpoint.positive}",
        kind="class",
        disclaimer="it is neither a diagnosis nor a prognosis",
    )


def _survival(horizon: Horizon) -> Wording:
    """Return words and codes of survival: the same for every bundle with the same horizon."""
    endpoint, code = horizon.endpoint, horizon.code
    return Wording(
        predicted=private(f"SURVIVAL-{code}", f"Predicted {endpoint.name} (radiomics model, research)"),
        probability=private(f"PDEATH-{code}", f"Model probability of {endpoint.positive} (research)"),
        contribution=private(f"CDEATH-{code}", f"Contribution to the model's logit of {endpoint.positive}"),
        classes=MappingProxyType(
            {
                Stage.EARLY: private(f"SURVIVES-{code}", endpoint.negative),
                Stage.ADVANCED: private(f"DIES-{code}", endpoint.positive),
                Stage.INDETERMINATE: private("INDETERMINATE", "indeterminate"),
            }
        ),
        endpoint="outcome",
        positive=f"dead within {horizon}",
        target=endpoint.positive,
        kind="class of outcome",
        disclaimer="it is not a prognosis",
    )


def _meaning(template: str, name: str) -> str:
    """Insert a name into a code meaning; a name that is too long is cut."""
    room = _LONGEST_MEANING - len(template.format(""))
    return template.format(name if len(name) <= room else f"{name[: room - 1]}…")
