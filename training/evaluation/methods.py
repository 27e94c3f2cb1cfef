"""Methods that are evaluated: GL-RFE with its networks, and the comparators (selectors and classifiers)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lungstage.training.evaluation.verdicts import SIMPLE
from lungstage.training.model.members import Member, inner_splits
from lungstage.training.model.network import ensemble_logits, train
from lungstage.training.procedure import Procedure
from lungstage.training.run import Ensemble
from lungstage.training.selection.classifiers import CLASSIFIERS, ClassifierName
from lungstage.training.selection.elimination import Task
from lungstage.training.selection.registry import BEST_SINGLE, seed_for, selectors
from lungstage.training.selection.registry import GL_RFE as GL_RFE_SELECTOR

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

GL_RFE: Final = "gl_rfe_dnn"
NO_COVARIATES: Final = "gl_rfe_dnn_no_covariates"
COVARIATES_ALONE: Final = "covariates_alone"
MAJORITY: Final = "majority"
SPHERICITY_VOLUME: Final = "sphericity_volume"
VOLUME: Final = "original_shape_MeshVolume"
SPHERICITY: Final = "original_shape_Sphericity"
SHAPE: Final = "original_shape_"


@dataclass(frozen=True, slots=True)
class Method:
    """A method that computes log odds from features.

    Attributes
    ----------
    label
        Its name for readers.
    classifier
        The seed ensemble of networks, or one of :data:`training.selection.classifiers.CLASSIFIERS`.
    selector
        The selector of its features; None without one.
    columns
        The features that it uses if it has no selector.
    covariates
        Whether it also uses the covariates.
    """

    label: str
    classifier: Literal["network"] | ClassifierName
    selector: str | None = None
    columns: tuple[int, ...] = ()
    covariates: bool = True


def methods(procedure: Procedure, features: Sequence[str], *, covariates: bool = False) -> dict[str, Method]:
    """Return the methods by name, GL-RFE with its networks first.

    Parameters
    ----------
    procedure
        Gives the selection and the networks of GL-RFE.
    features
        Names of the d features. Methods that need a missing feature are left out.
    covariates
        Whether there are covariates; adds the methods of their ablation.
    """
    found: dict[str, Method] = {}
    for name, selector in selectors(procedure.selection, procedure.network).items():
        label = selector.label
        if selector.at_most is None:
            label += f"-{selector.features(procedure.selection.features, len(features))}"
        found[f"{name}_dnn"] = Method(f"{label} + network", "network", name)
        found[f"{name}_lr"] = Method(f"{label} + logistic", "logistic", name)
    every = tuple(range(len(features)))
    shape = tuple(i for i in every if features[i].startswith(SHAPE))
    found[MAJORITY] = Method("majority class", "majority", covariates=False)
    if VOLUME in features:
        found["volume"] = Method("volume alone", "logistic", columns=(features.index(VOLUME),), covariates=False)
    if {VOLUME, SPHERICITY} <= set(features):
        both = tuple(features.index(name) for name in (SPHERICITY, VOLUME))
        found[SPHERICITY_VOLUME] = Method("sphericity + volume, logistic", "logistic", columns=both, covariates=False)
    if shape:
        found["shape_lr"] = Method("shape features, logistic", "logistic", columns=shape, covariates=False)
    found["l2_lr"] = Method("all features, L2 logistic", "tuned_logistic", columns=every)
    found["random_forest"] = Method("all features, random forest", "forest", columns=every)
    found["gradient_boosting"] = Method("all features, boosting", "boosting", columns=every)
    if covariates:
        found[NO_COVARIATES] = replace(found[GL_RFE], label=f"{found[GL_RFE].label}, no covariates", covariates=False)
        found[COVARIATES_ALONE] = Method("covariates alone, logistic", "logistic")
    return found


def methods_of(named: Iterable[str], procedure: Procedure, features: Sequence[str]) -> list[str]:
    """Return the names of the methods for a comparison with some selectors only.

    It always includes GL-RFE, the majority class and :data:`training.evaluation.verdicts.SIMPLE`, which are needed to
    judge a model's performance. With covariates it also includes their ablation.

    Parameters
    ----------
    named
        Names of selectors (:data:`training.selection.registry.LABELS`).
    procedure, features
        As for :func:`methods`.

    Raises
    ------
    ValueError
        A name is not the name of a selector.
    """
    wanted = {name.strip() for name in named} - {""}
    offered = methods(procedure, features, covariates=True)
    known = [method.selector for method in offered.values() if method.selector]
    if unknown := sorted(wanted - {*known}):
        raise ValueError(f"there is no selector {', '.join(unknown)}; known are {', '.join(dict.fromkeys(known))}")
    kept = {GL_RFE_SELECTOR, BEST_SINGLE, *wanted}
    plain = {*SIMPLE, MAJORITY, NO_COVARIATES}
    return [name for name, method in offered.items() if method.selector in kept or name in plain]


def select(selector: str, procedure: Procedure, tasks: Sequence[Task], labels: Bools) -> Indices:
    """Select features in each task by the name of a selector; (tasks, k), each ascending."""
    chosen = selectors(procedure.selection, procedure.network)[selector]
    return np.sort(np.stack(chosen(tasks, labels, procedure.selection.features, in_order=False)), axis=1)


def predict(method: Method, procedure: Procedure, tasks: Sequence[Task], labels: Bools, columns: Indices) -> Array:
    """Fit a method to each task on its `columns` (tasks, k); log odds of all rows (tasks, n)."""
    if not method.covariates:
        tasks = [replace(task, covariates=None) for task in tasks]
    if method.classifier == "network":
        ensembles = fit_ensembles(tasks, columns, labels, procedure)
        return np.stack(
            [ensemble_logits(e, model_inputs(t, c)) for e, t, c in zip(ensembles, tasks, columns, strict=True)]
        )
    fit = CLASSIFIERS[method.classifier]
    inputs = [model_inputs(task, own) for task, own in zip(tasks, columns, strict=True)]
    return np.stack(
        [fit(x[task.rows], labels[task.rows], x, seed_for(task, 5)) for x, task in zip(inputs, tasks, strict=True)]
    )


def fit_ensembles(tasks: Sequence[Task], columns: Indices, labels: Bools, procedure: Procedure) -> list[Ensemble]:
    """Train one seed ensemble per task, on that task's `columns` (tasks, k) and the covariates, if any."""
    splits = {
        id(task): inner_splits(
            labels, task.rows, procedure.members, procedure.inner_folds, np.random.SeedSequence([*task.seed, 2])
        )
        for task in {id(task): task for task in tasks}.values()  # a task can occur several times, with other columns
    }
    members = []
    for task, own in zip(tasks, columns, strict=True):
        inputs = model_inputs(task, own)
        members += [Member(inputs, labels, *split) for split in splits[id(task)]]
    networks = train(members, procedure.network)
    return [networks.ensemble(slice(i * procedure.members, (i + 1) * procedure.members)) for i in range(len(tasks))]


def model_inputs(task: Task, columns: Indices) -> Array:
    """Return the inputs of a model of some features: those columns, then the covariates; (n, k + c)."""
    features = task.inputs[:, columns]
    return features if task.covariates is None else np.hstack([features, task.covariates])
