"""Importance of each input of trained networks: gradients with respect to the inputs, in several definitions.

``loss`` is the published one. All are computed for each network on rows that it was not trained on, and then combined
over networks that differ in seed and training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from lungstage.training.model.members import Batch, Member, Streams
from lungstage.training.model.network import Networks, forward

Array = npt.NDArray[np.float64]
Importance = Literal["loss", "logit", "input_gradient", "integrated", "effects"]
Aggregate = Literal["mean", "rank"]

PATH_STEPS = 16  # steps of the integral, evaluated at their midpoints


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
        The trained networks and their training data.
    kind
        ``loss``: ``|∂loss/∂x_j|``. ``logit``: ``|∂logit/∂x_j|``, which does not become small where the fit is good.
        ``input_gradient``: ``|x_j ∂logit/∂x_j|``. ``integrated``: ``|x_j ∫ ∂logit/∂x_j(αx) dα|``, from the mean patient
        to the row (Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017).
    masks, dropout
        Average over this many random dropout masks at this rate; 0 means no dropout.

    Notes
    -----
    The weights were not fitted on the stopping rows. On fitted rows the gradient of the loss vanishes where the fit is
    good, and mislabelled rows dominate it.
    """
    held_out = Batch.of(members, [member.stop_rows for member in members])
    widths = [layer.shape[2] for layer in networks.layers[0:-2:2]]
    streams = Streams.of([member.seed.spawn(1)[0] for member in members], held_out)
    drawn = [streams.dropout_masks(widths, dropout) for _ in range(masks)]
    passes = [_importance(networks, held_out, kind, mask) for mask in drawn or (None,)]
    # Padding rows have weight 0.
    share = held_out.real / held_out.counts[:, None]
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


def effects(networks: Networks, members: Sequence[Member], terms: Sequence[Sequence[int]], features: int) -> Array:
    """Effect of each feature on the ensemble's logit, in units of the spread between its networks; (features,).

    Parameters
    ----------
    networks, members
        The members of one task; all have the same inputs.
    terms
        Features of each input: one feature, or the two of a product. Inputs beyond them are padding.
    features
        Number of features.

    Notes
    -----
    ``mean |∂logit/∂x_j|`` adds up a feature's effects over all partners, including noise. Among a hundred features, one
    true partner is not visible in it. Here the signed effects are averaged over rows and networks before the absolute
    value is taken, and a feature gets the value of its strongest term.
    """
    held_out = Batch.of(members, [member.stop_rows for member in members])
    share = (held_out.real / held_out.counts[:, None])[..., None]
    each = (gradients(networks, held_out.inputs).double() * share).sum(1).numpy()
    own = _in_spreads(each[:, : len(terms)])
    strongest = np.zeros(features)
    for term, strength in zip(terms, own, strict=True):
        strongest[list(term)] = np.maximum(strongest[list(term)], strength)
    return strongest


def _in_spreads(effects: Array) -> Array:
    """Absolute mean effect over the members (members, …), in units of the median spread between members; (…)."""
    spread = float(np.sqrt(np.median(effects.var(axis=0, ddof=1)))) if len(effects) > 1 and effects.size else 0.0
    ratio: Array = np.abs(effects.mean(axis=0)) / max(spread, float(np.finfo(np.float32).tiny))
    return np.minimum(ratio, 1e6)
