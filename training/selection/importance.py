"""How much each input matters to trained networks: gradients with respect to the inputs, in several readings.

``loss`` is the published one. All are taken for each network at rows that it was not trained on, and then put together
over networks that differ in seed and in training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import gumbel_r, norm, rankdata

from lungstage.training.model.members import Batch, Member
from lungstage.training.model.network import Networks, dropout_masks, forward

Array = npt.NDArray[np.float64]
Importance = Literal["loss", "logit", "input_gradient", "integrated", "effects"]
Aggregate = Literal["mean", "rank"]

PATH_STEPS = 16  # of the integral, at its midpoints
SHARPNESS = 4
UNADJUSTED = 0.1


def gradients(networks: Networks, x: torch.Tensor, masks: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
    """``∂logit/∂x`` at each row of `x` (members, rows, k)."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(forward(networks, x, masks).sum(), x)
    return gradient


def held_out_importance(
    networks: Networks, members: Sequence[Member], kind: Importance = "loss", masks: int = 0, dropout: float = 0.0
) -> Array:
    """Mean importance of each feature over each member's stopping rows; (members, k).

    Parameters
    ----------
    networks, members
        What was trained, and what it was trained on.
    kind
        ``loss``: ``|∂loss/∂x_j|``. ``logit``: ``|∂logit/∂x_j|``, which does not fade where the fit is good.
        ``input_gradient``: ``|x_j ∂logit/∂x_j|``. ``integrated``: ``|x_j ∫ ∂logit/∂x_j(αx) dα|``, from the mean patient
        to the row (Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017).
    masks, dropout
        Average over so many random masks of hidden units at this rate; 0 leaves dropout off.

    Notes
    -----
    The stopping rows are held out from the weights: on fitted rows the gradient of the loss vanishes where the fit is
    good and leans on mislabelled rows.
    """
    held_out = Batch.of(members, [member.stop_rows for member in members])
    widths = [layer.shape[2] for layer in networks.layers[0:-2:2]]
    streams = [np.random.default_rng(member.seed.spawn(1)[0]) for member in members]
    drawn = [dropout_masks(held_out, streams, widths, dropout) for _ in range(masks)]
    passes = [_importance(networks, held_out, kind, mask) for mask in drawn or (None,)]
    # Padding rows weigh nothing.
    share = held_out.real / held_out.real.sum(1, keepdim=True)
    return (torch.stack(passes).mean(0).double() * share[..., None]).sum(1).numpy()


def _importance(networks: Networks, rows: Batch, kind: Importance, mask: Sequence[torch.Tensor] | None) -> torch.Tensor:
    """Absolute importance of each feature at each row; (members, rows, k)."""
    x = rows.inputs
    if kind == "integrated":
        points = [(step + 0.5) / PATH_STEPS for step in range(PATH_STEPS)]
        return (x * torch.stack([gradients(networks, point * x, mask) for point in points]).mean(0)).abs()
    gradient = gradients(networks, x, mask)
    if kind == "loss":
        gradient = gradient * rows.error(forward(networks, x, mask))[..., None]
    elif kind == "input_gradient":
        gradient = x * gradient
    return gradient.abs()


def aggregate(importances: Array, how: Aggregate) -> Array:
    """Combine the members' importances (members, k) into one per feature (k,)."""
    if how == "rank":
        ranks: Array = rankdata(importances, axis=1).mean(axis=0)
        return ranks
    total = importances.sum(axis=1, keepdims=True)
    normalised: Array = np.divide(importances, total, out=np.zeros_like(importances), where=total > 0).mean(axis=0)
    return normalised


@dataclass(frozen=True, slots=True)
class Effects:
    """How strongly the ensemble's logit depends on each feature, in the spread between its networks; (k,) each.

    Attributes
    ----------
    single
        The feature's own effect: mean of ``∂logit/∂x_j`` over the held-out rows.
    paired
        Its strongest effect together with another feature: ``∂²logit/∂x_j∂x_k``.
    """

    single: Array
    paired: Array

    @classmethod
    def of(
        cls, networks: Networks, members: Sequence[Member], pairs: Array | None = None, *, copies: float = 0.0
    ) -> Effects:
        """Read them off trained networks.

        Parameters
        ----------
        networks, members
            The members of one task, so all have the same inputs.
        pairs
            (members, k, k) mixed derivatives of networks of second order on the same rows
            (:func:`training.model.network.train_second_order`); None looks at single effects only.
        copies
            How far a step in one feature takes its near copies along: each by this share of the fourth power of its
            correlation. Which of several copies the networks lean on is chance.

        Notes
        -----
        ``mean |∂logit/∂x_j|`` adds a feature's effects up over all partners, noise included: among a hundred features
        one true partner is lost in it. Here signs cancel between networks before anything is made absolute, and a
        feature counts by its strongest effect.
        """
        held_out = Batch.of(members, [member.stop_rows for member in members])
        share = (held_out.real / held_out.real.sum(1, keepdim=True))[..., None]
        own = (gradients(networks, held_out.inputs).double() * share).sum(1).numpy()
        k = own.shape[1]
        if copies:
            rows = np.union1d(members[0].fit_rows, members[0].stop_rows)
            with np.errstate(invalid="ignore", divide="ignore"):
                correlation = np.nan_to_num(np.corrcoef(members[0].inputs[rows], rowvar=False).reshape(k, k))
            np.fill_diagonal(correlation, 0.0)
            own = own + copies * own @ (np.sign(correlation) * np.abs(correlation) ** SHARPNESS)
        strength = np.zeros((k, k))
        if pairs is not None and k > 1:
            upper = np.triu_indices(k, 1)
            strength[upper] = _in_spreads(pairs[:, *upper])
        return cls(_in_spreads(own), np.maximum(strength, strength.T).max(axis=1))


@dataclass(frozen=True, slots=True)
class Chance:
    """How strong effects come out where there are none: those of networks that learned permuted labels.

    Attributes
    ----------
    scale
        Of the half-normal distribution of single effects.
    location, width
        Of the Gumbel distribution of paired ones, each the largest over its partners.
    features
        How many were looked at.
    """

    scale: float
    location: float
    width: float
    features: int

    @classmethod
    def of(cls, null: Sequence[Effects]) -> Chance:
        """Fit to the effects under several permutations, by moments."""
        single, paired = (np.concatenate([getattr(one, name) for one in null]) for name in ("single", "paired"))
        width = float(paired.std() * np.sqrt(6.0) / np.pi)
        tiny = float(np.finfo(np.float32).eps)
        return cls(
            max(float(np.sqrt((single**2).mean())), tiny),
            float(paired.mean()) - np.euler_gamma * width,
            max(width, tiny),
            len(null[0].paired),
        )

    def evidence(self, effects: Effects) -> Array:
        """``-log`` of the p-value of the likelier way in which each feature matters, adjusted; (k,).

        Notes
        -----
        Permuted labels are the null importances of Altmann et al., Bioinformatics 26(10), 2010. Single and paired
        effects are each adjusted for all features that were looked at, those eliminated since included (Benjamini and
        Hochberg, JRSS B 57(1), 1995): where no pair stands out single effects decide, and the other way round. A tenth
        of the unadjusted evidence orders what stands out in neither way.
        """
        alone = np.log(2.0) + norm.logsf(np.minimum(effects.single / self.scale, 1e3))
        paired = np.minimum(effects.paired, self.location + 500.0 * self.width)
        together = gumbel_r.logsf(paired, self.location, self.width)
        adjusted = np.minimum(self._adjust(alone), self._adjust(together))
        evidence: Array = -adjusted - UNADJUSTED * np.minimum(alone, together)
        return evidence

    def _adjust(self, log_p: Array) -> Array:
        """Benjamini and Hochberg's adjustment of logarithmic p-values (k,)."""
        order = np.argsort(log_p)  # the most convincing first
        adjusted = log_p[order] + np.log(self.features / np.arange(1, len(order) + 1))
        back = np.empty_like(log_p)
        back[order] = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 0.0)
        return back


def _in_spreads(effects: Array) -> Array:
    """Mean effect over the members (members, …), absolute, in units of the usual spread between members; (…)."""
    spread = float(np.sqrt(np.median(effects.var(axis=0, ddof=1)))) if len(effects) > 1 and effects.size else 0.0
    ratio: Array = np.abs(effects.mean(axis=0)) / max(spread, float(np.finfo(np.float32).tiny))
    return np.minimum(ratio, 1e6)
