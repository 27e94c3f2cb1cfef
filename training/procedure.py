"""The whole procedure by which a model is evaluated and fitted: every setting in one frozen value."""

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
"""Constants that were chosen like settings. Users do not need to change them."""


@dataclass(frozen=True, slots=True)
class Procedure:
    """Every setting of a fit and of its evaluation.

    Attributes
    ----------
    folds, repeats
        Folds and repeats of the outer cross-validation.
    members, inner_folds
        Networks of the final ensemble, and folds of the inner split for early stopping.
    alpha
        Error rate of the conformal thresholds: each class is ruled out wrongly in at most this share of its cases.
        On LUNG1, where tumour features reach an AUC of 0.7, an alpha of 0.1 leaves two thirds of the cases
        indeterminate, and 0.2 slightly more than one third. Of the decided cases 0.7 are right with both.
    seed
        Seed of everything random.
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
        """Hex SHA-256 of settings and :data:`CONSTANTS`. It shows that they did not change after an evaluation."""
        chosen = asdict(self) | {"constants": dict(CONSTANTS)}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


HARDENED: Final = Procedure()
"""The default. docs/selection.md says how it was chosen."""
PAPER: Final = Procedure(selection=elimination.PUBLISHED)
"""The published method as far as it is known."""
QUICK: Final = Procedure(
    folds=3,
    repeats=1,
    members=2,
    selection=SelectionSettings(step=0.5, fine_below=16, members=2),
    network=NetworkSettings(max_epochs=15),
)
"""Tiny settings that run everything in seconds. The figures have no value."""

PRESETS: Final[Mapping[str, Procedure]] = MappingProxyType({"hardened": HARDENED, "paper": PAPER, "quick": QUICK})
