"""Follow-up of a cohort: who was seen for how long, and what those stand for who were lost sight of.

Whether somebody died within two years is unknown of whoever was last seen alive before. Such patients cannot teach a
classifier, but leaving them out of a figure would count deaths too often: a death is known however early it comes, a
survival only after the whole two years. So each patient whose outcome is known counts in a figure for those like them
who were lost: by inverse probability of censoring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, ecdf

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ALL_OBSERVED: Final = (
    "No row is censored: every patient's event was observed. Where patients who were last seen without it were entered "
    "as if it had happened that day, every figure is wrong."
)


@dataclass(frozen=True, slots=True)
class Survival:
    """Follow-up of the n used rows, and the m rows that were censored before the horizon.

    Attributes
    ----------
    horizon_days
        Within which the event is predicted.
    days, observed
        (n,) days until event or last news, and whether it was the event.
    weights
        (n,) inverse probabilities of not being censored before the outcome was known.
    censored_days
        (m,) days until last news of those whose outcome is not known: nothing is trained on them.
    censored_values
        (m, d) their features.
    censored_covariates
        (m, c) their clinical inputs; None where the model takes none.
    """

    horizon_days: float
    days: Array
    observed: Bools
    weights: Array
    censored_days: Array
    censored_values: Array
    censored_covariates: Array | None

    @property
    def every_day(self) -> Array:
        """Days of all n + m rows, the used ones first; (n + m,)."""
        return np.concatenate([self.days, self.censored_days])

    @property
    def every_observed(self) -> Bools:
        """Whether the event was observed, of all n + m rows; (n + m,)."""
        return np.concatenate([self.observed, np.zeros(len(self.censored_days), dtype=np.bool_)])


def kaplan_meier(days: Array, observed: Bools) -> Any:
    """Estimate the survival function; a right-continuous step function as :func:`scipy.stats.ecdf` gives it.

    Notes
    -----
    Kaplan EL, Meier P. Nonparametric estimation from incomplete observations. J Am Stat Assoc 53, 1958.
    """
    return ecdf(CensoredData(uncensored=days[observed], right=days[~observed])).sf


def censoring_weights(days: Array, observed: Bools, horizon_days: float) -> Array:
    """Weight each row by the inverse probability that its outcome at the horizon became known.

    Parameters
    ----------
    days, observed
        (n,) of all rows, those censored before the horizon included.
    horizon_days
        The horizon.

    Returns
    -------
    (n,)
        0 for those censored before the horizon; the weights sum to n, and the weighted share of events is one less
        the Kaplan-Meier estimate at the horizon, as far as anybody was followed for so long.

    Notes
    -----
    Robins JM, Finkelstein DM. Biometrics 56, 2000; for classifiers Vock DM et al., J Biomed Inform 61, 2016. The
    probability of not being censored is the Kaplan-Meier estimate with the roles exchanged: it assumes that who is
    lost does not depend on the tumour. Of an event and a censoring on the same day the event comes first.
    """
    lost = ~observed & (days < horizon_days)
    if not (~observed).any():
        return np.ones(len(days))
    # A hair earlier, so that who has the event on a day is no longer at risk of being lost on it.
    still_followed = kaplan_meier(np.where(observed, np.nextafter(days, -np.inf), days), ~observed)
    until = np.minimum(days, horizon_days)
    chance = np.asarray(still_followed.evaluate(np.nextafter(until, -np.inf)))
    return np.where(lost, 0.0, 1.0 / np.where(lost, 1.0, chance))
