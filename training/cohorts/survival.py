"""Follow-up of a cohort, and weights for patients who were lost to follow-up.

If a patient was last seen alive before two years, it is not known whether they died within two years. A classifier
cannot be trained on such patients. But leaving them out of a metric would count deaths too often: a death is known at
once, a survival only after the full two years. So patients with known outcome are weighted in metrics for those who
were lost: inverse probability of censoring.
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
    "No row is censored: every patient's event was observed. Check the table. If patients without the event were "
    "entered as if it had occurred on the day of the last follow-up, every metric is wrong."
)


@dataclass(frozen=True, slots=True)
class Survival:
    """Follow-up of the n used rows, and the m rows that were censored before the horizon.

    Attributes
    ----------
    horizon_days
        Time within which the event is predicted.
    days, observed
        (n,) days until event or last follow-up, and whether the event was observed.
    weights
        (n,) inverse probabilities of not being censored before the outcome was known.
    censored_days
        (m,) days until last follow-up of patients with unknown outcome. Nothing is trained on them.
    censored_values
        (m, d) their features.
    censored_covariates
        (m, c) their covariates; None for a model without covariates.
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
        """Whether the event was observed, for all n + m rows; (n + m,)."""
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
        (n,) of all rows, including those censored before the horizon.
    horizon_days
        The horizon.

    Returns
    -------
    (n,)
        0 for rows censored before the horizon. The weights sum to n. The weighted share of events is 1 minus the
        Kaplan-Meier estimate at the horizon, if at least one patient was followed that long.

    Notes
    -----
    Robins JM, Finkelstein DM. Biometrics 56, 2000; for classifiers Vock DM et al., J Biomed Inform 61, 2016. The
    probability of not being censored is the Kaplan-Meier estimate with event and censoring exchanged. It assumes that
    loss to follow-up does not depend on the tumour. An event counts before a censoring on the same day.
    """
    lost = ~observed & (days < horizon_days)
    if not (~observed).any():
        return np.ones(len(days))
    # Events are moved to just before their day: such a patient cannot also be censored on that day.
    still_followed = kaplan_meier(np.where(observed, np.nextafter(days, -np.inf), days), ~observed)
    until = np.minimum(days, horizon_days)
    chance = np.asarray(still_followed.evaluate(np.nextafter(until, -np.inf)))
    return np.where(lost, 0.0, 1.0 / np.where(lost, 1.0, chance))
