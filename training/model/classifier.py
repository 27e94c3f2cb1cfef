"""The seed ensemble of networks as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from lungstage.training.model.members import Member, inner_splits
from lungstage.training.model.network import NetworkSettings, ensemble_logits, single_threaded, train
from lungstage.training.run import Ensemble

Array = npt.NDArray[np.float64]


def binary_labels(estimator: Any, X: Any, y: Any) -> tuple[Array, npt.NDArray[np.bool_], npt.NDArray[Any]]:  # noqa: N803
    """Check `X` and `y` as scikit-learn requires. Returns X (n, d), True for the second class (n,), and the classes.

    Raises
    ------
    ValueError
        `y` does not have two classes.
    """
    x, y = validate_data(estimator, X, y, dtype=np.float64)
    check_classification_targets(y)
    if type_of_target(y) != "binary":
        raise ValueError(f"Only binary classification is supported. The type of the target is {type_of_target(y)}.")
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("Two classes are needed, but y has one class.")
    return x, codes == 1, classes


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Turn scikit-learn's ``random_state`` into a seed. An integer is used as it is."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


class DeepClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An ensemble of multilayer perceptrons whose logits are averaged.

    Parameters
    ----------
    members
        Networks in the ensemble.
    inner_folds
        Folds of the inner split. Every network uses one of them for early stopping.
    hidden
        Widths of the hidden layers.
    dropout
        Share of hidden units left out at each step of training.
    learning_rate
        Learning rate of AdamW.
    weight_decay
        Weight decay of AdamW.
    batch_size
        Rows per step.
    max_epochs
        Largest number of passes over the training rows.
    patience
        Number of passes without a lower loss on the stopping fold after which training ends.
    random_state
        Seed.

    Attributes
    ----------
    classes_ : (2,) array
        The classes; logits are those of the second.
    ensemble_ : Ensemble
        The trained networks, float64.
    """

    def __init__(
        self,
        *,
        members: int = 10,
        inner_folds: int = 5,
        hidden: tuple[int, ...] = (64, 32),
        dropout: float = 0.3,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-3,
        batch_size: int = 32,
        max_epochs: int = 100,
        patience: int = 12,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.members = members
        self.inner_folds = inner_folds
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.random_state = random_state

    def network_settings(self) -> NetworkSettings:
        """Return the hyper-parameters of one network."""
        return NetworkSettings(
            tuple(self.hidden), self.dropout, self.learning_rate, self.weight_decay, self.batch_size,
            self.max_epochs, self.patience,
        )  # fmt: skip

    def fit(self, X: Any, y: Any) -> DeepClassifier:  # noqa: N803
        """Train the ensemble on standardised `X` (n, d) and the two classes of `y` (n,)."""
        x, labels, self.classes_ = binary_labels(self, X, y)
        seed = np.random.SeedSequence([seed_of(self.random_state)])
        splits = inner_splits(labels, np.arange(len(x)), self.members, self.inner_folds, seed)
        with single_threaded():
            networks = train([Member(x, labels, *split) for split in splits], self.network_settings())
        self.ensemble_: Ensemble = networks.ensemble(slice(None))
        return self

    def decision_function(self, X: Any) -> Array:  # noqa: N803
        """Mean logit of the second class; (n,)."""
        check_is_fitted(self)
        return ensemble_logits(self.ensemble_, validate_data(self, X, dtype=np.float64, reset=False))

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """Probabilities of both classes, uncalibrated; (n, 2)."""
        second = expit(self.decision_function(X))
        return np.column_stack([1.0 - second, second])

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the more probable class; (n,)."""
        second = self.decision_function(X) > 0
        labels: npt.NDArray[Any] = self.classes_[second.astype(int)]
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
