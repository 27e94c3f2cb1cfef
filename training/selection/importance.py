"""How much each input matters to trained networks: gradients with respect to the inputs, in several readings.

``loss`` is the published one. All are taken for each network at rows that it was not trained on, and then put together
over networks that differ in seed and in training rows.
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

PATH_STEPS = 16  # of the integral, at its midpoints


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
    streams = Streams.of([member.seed.spawn(1)[0] for member in members], held_out)
    drawn = [streams.dropout_masks(widths, dropout) for _ in range(masks)]
    passes = [_importance(networks, held_out, kind, mask) for mask in drawn or (None,)]
    # Padding rows weigh nothing.
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
    """How strongly the ensemble's logit depends on each feature, in the spread between its networks; (features,).

    Parameters
    ----------
    networks, members
        The members of one task, so all have the same inputs.
    terms
        Features of each input: one, or the two whose product it is; inputs beyond them are padding.
    features
        How many there are.

    Notes
    -----
    ``mean |∂logit/∂x_j|`` adds a feature's effects up over all partners, noise included: among a hundred features one
    true partner is lost in it. Here signs cancel over rows and networks before anything is made absolute, and a feature
    counts by its strongest term.
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
    """Mean effect over the members (members, …), absolute, in units of the usual spread between members; (…)."""
    spread = float(np.sqrt(np.median(effects.var(axis=0, ddof=1)))) if len(effects) > 1 and effects.size else 0.0
    ratio: Array = np.abs(effects.mean(axis=0)) / max(spread, float(np.finfo(np.float32).tiny))
    return np.minimum(ratio, 1e6)
