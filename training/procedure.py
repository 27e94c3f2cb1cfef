"""The whole procedure that is evaluated and that a model is then fitted by: every setting, in one frozen value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Final

from lungstage.training.model import preprocessing
from lungstage.training.model.network import NetworkSettings
from lungstage.training.selection import elimination, importance, screening
from lungstage.training.selection.elimination import SelectionSettings

CONSTANTS: Final[Mapping[str, object]] = MappingProxyType(
    {
        "products": elimination.PRODUCTS,
        "pair_weight": screening.PAIR_WEIGHT,
        "scanned_pairs": screening.SCANNED_PAIRS,
        "path_steps": importance.PATH_STEPS,
        "winsor_percent": preprocessing.WINSOR_PERCENT,
        "lambda_limit": preprocessing.LAMBDA_LIMIT,
    }
)
"""What was chosen like a setting and is not one, because nobody should have to turn it."""


@dataclass(frozen=True, slots=True)
class Procedure:
    """Every setting of a fit and of its evaluation.

    Attributes
    ----------
    folds, repeats
        Of the outer cross-validation.
    members, inner_folds
        Networks of the final ensemble, and the folds of the inner split that they stop early on.
    alpha
        Error rate of the conformal thresholds: each class is ruled out wrongly in at most this share of its cases.
        On LUNG1, where tumour features reach an AUC of 0.7, an alpha of 0.1 leaves two cases in three
        indeterminate, 0.2 a good third, and what is decided is right in 0.7 either way.
    seed
        The one seed that everything random derives from.
    selection, network
        See there.
    """

    folds: int = 5
    repeats: int = 5
    members: int = 10
    inner_folds: int = 5
    alpha: float = 0.2
    seed: int = 0
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)

    def digest(self) -> str:
        """Hex SHA-256 of settings and :data:`CONSTANTS`: written down before an evaluation, and the same after it."""
        chosen = asdict(self) | {"constants": dict(CONSTANTS)}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


HARDENED: Final = Procedure()
"""The default; how it was chosen stands in docs/selection.md."""
PAPER: Final = Procedure(selection=elimination.PUBLISHED)
"""The published method, as far as it is known."""
QUICK: Final = Procedure(
    folds=3,
    repeats=1,
    members=2,
    selection=SelectionSettings(step=0.5, fine_below=16, members=2),
    network=NetworkSettings(max_epochs=15),
)
"""Tiny settings that run everything in seconds; the figures are not worth reading."""

PRESETS: Final[Mapping[str, Procedure]] = MappingProxyType({"hardened": HARDENED, "paper": PAPER, "quick": QUICK})
