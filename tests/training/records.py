"""Generated run.json and evaluation.json in the format that ``fit`` and ``evaluate`` write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from lungstage.appliance.contract.spec import ALL_FEATURES, STAGE_GROUP, Endpoint
from lungstage.training.cohorts.survival import Survival
from lungstage.training.evaluation.folds import OutOfFold
from lungstage.training.evaluation.survival import Scored, survival_record
from lungstage.training.procedure import HARDENED

Record = dict[str, Any]

METRICS = (
    "auc", "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1",
    "sensitivity", "specificity", "brier", "calibration_slope", "ece",
)  # fmt: skip
SELECTORS = {
    "gl_rfe": "GL-RFE-15", "gl_rfe_paper": "GL-RFE-15 as in the paper", "anova": "ANOVA-15", "mrmr": "mRMR-15",
    "mutual_information": "mutual information-15", "rfe_lr": "RFE-LR-15", "lasso": "LASSO", "lassonet": "LassoNet",
    "random": "random 15",
}  # fmt: skip
BASELINES = {
    "majority": ("majority class", "majority", 0.5), "volume": ("tumour volume alone", "logistic", 0.64),
    "shape_lr": ("shape features, LR", "logistic", 0.65), "l2_lr": ("all features, L2-LR", "logistic", 0.66),
    "random_forest": ("all features, random forest", "forest", 0.67),
    "gradient_boosting": ("all features, gradient boosting", "boosting", 0.655),
}  # fmt: skip
SELECTOR_AUC = dict(zip(SELECTORS, (0.715, 0.66, 0.69, 0.685, 0.67, 0.64, 0.675, 0.665, 0.63), strict=True))


def interval(value: float, half: float) -> Record:
    return {"value": round(value, 5), "low": round(value - half, 5), "high": round(value + 1.1 * half, 5)}


def _figures(auc: float) -> Record:
    values = dict(zip(METRICS, (auc, auc - 0.04, auc - 0.09, auc - 0.05, auc - 0.09, auc - 0.08), strict=False))
    values |= {"sensitivity": 0.8, "specificity": auc - 0.26, "brier": 0.36 - auc / 5, "ece": 0.74 - auc}
    values["calibration_slope"] = 4 * (auc - 0.5)
    return {name: interval(values[name], 0.4 if name == "calibration_slope" else 0.075) for name in METRICS}


def _curves(auc: float, prevalence: float) -> Record:
    """Curves of a binormal score with this AUC."""
    apart = float(np.sqrt(2) * norm.ppf(auc))
    rate = np.linspace(0, 1, 101)
    roc = [norm.cdf(norm.ppf(rate) + apart + shift) for shift in (0, -0.25, 0.25)]
    threshold = np.arange(5, 96) / 100
    cut = (np.log(threshold / (1 - threshold)) - np.log(prevalence / (1 - prevalence))) / max(apart, 1e-6) + apart / 2
    true, false = 1 - norm.cdf(cut - apart), 1 - norm.cdf(cut)
    benefit = prevalence * true - (1 - prevalence) * false * threshold / (1 - threshold)
    predicted = np.linspace(0.25, 0.85, 8)
    counts = (60, 90, 120, 130, 150, 120, 80, 50)
    observed = np.clip(0.5 + (predicted - 0.5) * 0.9 + 0.05 * np.sin(9 * predicted), 0, 1)
    return {
        "roc": {
            "false_positive_rate": rate.tolist(),
            **{key: curve.tolist() for key, curve in zip(("true_positive_rate", "low", "high"), roc, strict=True)},
        },
        "calibration": {
            "slope": 4 * (auc - 0.5),
            "intercept": 0.05,
            "bins": [
                {"predicted": p, "observed": o, "low": max(0.0, o - 0.14), "high": min(1.0, o + 0.13), "count": c}
                for p, o, c in zip(predicted.tolist(), observed.tolist(), counts, strict=True)
            ],
        },
        "decision_curve": {
            "threshold": threshold.tolist(),
            "net_benefit": benefit.tolist(),
            "low": (benefit - 0.05).tolist(),
            "high": (benefit + 0.05).tolist(),
        },
    }  # fmt: skip


def _frequency(features: Sequence[str], order: Sequence[int], sharpness: float) -> Record:
    share = np.round(1 / (1 + np.exp(sharpness * (np.arange(len(features)) - 14))) * 25) / 25
    return {features[i]: float(s) for i, s in zip(order, share, strict=True) if s > 0}


def evaluation_record(
    features: Sequence[str] = ALL_FEATURES, endpoint: Endpoint = STAGE_GROUP, only: Sequence[str] = ()
) -> Record:
    """An evaluation.json of all methods, or only the named ones; with all methods it has the covariate ablation."""
    rng = np.random.default_rng(1)
    named: dict[str, tuple[str, str | None, str, float]] = {}
    for selector, label in SELECTORS.items():
        named[f"{selector}_dnn"] = (f"{label} + network", selector, "network", SELECTOR_AUC[selector])
        named[f"{selector}_lr"] = (f"{label} + LR", selector, "logistic", SELECTOR_AUC[selector] - 0.012)
    named |= {name: (label, None, how, auc) for name, (label, how, auc) in BASELINES.items()}
    named["gl_rfe_dnn_covariates"] = ("GL-RFE-15 + age, sex, histology + network", "gl_rfe", "network", 0.73)
    named["covariates_lr"] = ("age, sex, histology, LR", None, "logistic", 0.59)
    orders = {selector: rng.permutation(len(features)) for selector in SELECTORS}
    named = {name: of for name, of in named.items() if not only or name in only}
    methods: Record = {}
    for i, (name, (label, selector, classifier, auc)) in enumerate(named.items()):
        apart = interval(0.715 - auc, 0.02 + 0.002 * i)
        methods[name] = {
            "label": label,
            "selector": selector,
            "classifier": classifier,
            "metrics": _figures(auc),
            "difference": None if name == "gl_rfe_dnn" else {metric: dict(apart) for metric in METRICS},
            "difference_corrected": None if name == "gl_rfe_dnn" else interval(0.715 - auc, 0.03 + 0.003 * i),
            "stability": interval(0.75 - 0.06 * list(SELECTORS).index(selector), 0.05) if selector else None,
            "selection_frequency": _frequency(features, orders[selector], 0.25) if selector else None,
            "conformal": {
                "coverage": {endpoint.negative: 0.79 + 0.002 * i, endpoint.positive: 0.82 - 0.002 * i},
                "indeterminate": min(1.0, 1.1 - auc),
                "accuracy_where_decided": None if name == "majority" else auc,
            },
            **_curves(auc, 0.6125),
        }
    honest = {metric: methods["gl_rfe_dnn"]["metrics"][metric] for metric in ("auc", "accuracy", "macro_f1")}
    variants = (("selection_before_split", "selected on all rows", "the test rows chose the features", 0.81),
                ("smote_before_split", "oversampled before the split", "test rows have copies among the training rows",
                 0.93))  # fmt: skip
    threshold = np.arange(5, 96) / 100
    return {
        "schema_version": 2,
        "settings": asdict(HARDENED),
        "procedure_sha256": HARDENED.digest(),
        "seed": 0,
        "table": table_record(),
        "cohort": "Made-up cohort",
        "endpoint": asdict(endpoint),
        "covariates": [{"name": "age", "levels": []}, {"name": "sex", "levels": ["female", "male"]}],
        "repeatability": {"table": "icc.csv", "sha256": "cd" * 32, "minimum": 0.75, "left_out": {features[-1]: 0.5}},
        "interval": "95 % percentile bootstrap over patients of the mean over repeats.",
        "versions": {"python": "3.11.2", "torch": "2.13.0", "lungstage": "0.1.0"},
        "reference": "gl_rfe_dnn",
        "methods": methods,
        "decision_curve_treat_all": (0.6125 - 0.3875 * threshold / (1 - threshold)).tolist(),
        "verdicts": [
            {
                "against": name,
                "adds_value": True if one["difference"]["auc"]["low"] > 0 else None,
                "sentence": f"GL-RFE-15 + network against {one['label']}: made-up verdict.",
            }
            for name, one in methods.items()
            if one["difference"]
        ],
        "covariate_ablation": None
        if only
        else {"with": "gl_rfe_dnn_covariates", "without": "gl_rfe_dnn", "alone": "covariates_lr"},
        "leakage": {
            "warning": "These figures are wrong on purpose: they show what a leak does.",
            "variants": [
                {"name": name, "label": label, "what_is_wrong": wrong,
                 "metrics": {metric: interval(auc - 0.03 * j, 0.03) for j, metric in enumerate(honest)}}
                for name, label, wrong, auc in variants
            ],
            "honest": honest,
        },
        "halves": {
            selector: {
                "pairs": 10,
                "frequency": _frequency(features, orders[selector], 0.2),
                "nogueira": interval(0.55 - 0.05 * i, 0.06),
            }
            for i, selector in enumerate(SELECTORS)
            if any(one["selector"] == selector for one in methods.values())
        },
        "warnings": ["An AUC above 0.75 on this cohort would be implausible (made up)."],
    }  # fmt: skip


def table_record() -> Record:
    return {
        "name": "features.csv", "sha256": "ab" * 32, "rows": 195, "used": 160,
        "excluded": {"roi_touches_crop_edge": 35}, "positives": 98,
    }  # fmt: skip


def _rounds(features: Sequence[str], k: int, rng: np.random.Generator) -> list[Record]:
    """An elimination of the features in their order, last first."""
    remaining, rounds = list(features), []
    while True:
        count = len(remaining)
        step = 0 if count <= k else min(count - k, 1 if count <= 30 else max(1, count // 10))
        weight = 1.0 / (np.arange(count) + 5) * rng.uniform(0.7, 1.3, count)
        weight = np.sort(weight)[::-1] / weight.sum()
        removed = remaining[count - step :]
        rounds.append({"remaining": count, "removed": removed,
                       "importance": dict(zip(remaining, weight.tolist(), strict=True))})  # fmt: skip
        if not step:
            return rounds
        remaining = remaining[: count - step]


def run_record(features: Sequence[str] = ALL_FEATURES, endpoint: Endpoint = STAGE_GROUP, k: int = 15) -> Record:
    """A run.json of `k` features out of `features`."""
    rng = np.random.default_rng(2)
    d = len(features)
    order = [features[i] for i in rng.permutation(d)]
    chosen = [name for name in features if name in order[:k]]
    block = np.sort(rng.integers(0, 9, d))
    latent = rng.normal(size=(160, 9))
    data = latent[:, block] + rng.uniform(0.2, 1.2, d) * rng.normal(size=(160, d))
    spearman = np.round(np.corrcoef(data, rowvar=False), 6)
    np.fill_diagonal(spearman, 1.0)
    ks = np.arange(1, 41)
    auc = 0.71 - 0.12 * np.exp(-ks / 5) - 0.0004 * ks
    levels = ("0.05", "0.25", "0.5", "0.75", "0.95")

    def quantiles(shift: float, scale: float, skewed: bool) -> Record:
        values = shift + scale * norm.ppf([float(level) for level in levels])
        return dict(zip(levels, (np.exp(values) if skewed else values).tolist(), strict=True))

    return {
        "schema_version": 2,
        "seed": 0,
        "settings": asdict(HARDENED),
        "procedure_sha256": HARDENED.digest(),
        "table": table_record(),
        "endpoint": asdict(endpoint),
        "covariates": [{"name": "age", "levels": []}, {"name": "sex", "levels": ["female", "male"]}],
        "cohort": {
            "name": "Made-up cohort", "source": "nowhere: made up for the tests", "licence": "CC0",
            "citation": "none", "stages_absent": ["IV"], "notes": ["A note on the cohort."], "skew": None,
        },
        "extraction": {"binWidth": 25, "resampledPixelSpacing": [1, 1, 1], "interpolator": "sitkLinear"},
        "warnings": ["A made-up warning of the table."],
        "repeatability": {"table": "icc.csv", "sha256": "cd" * 32, "minimum": 0.75, "left_out": {features[-1]: 0.5}},
        "cut_rows": {
            "used_only": {"rows": 160, "auc": interval(0.701, 0.08)},
            "all_rows": {"rows": 195, "auc": interval(0.662, 0.07)},
            "all_rows_scored_on_used": {"rows": 160, "auc": interval(0.693, 0.08)},
        },
        "selection": {"features": chosen, "rounds": _rounds(order, k, rng), "modes": ["loss"]},
        "stability_selection": {
            "frequency": _frequency(features, [features.index(name) for name in order], 0.3),
            "pairs": 25,
            "nogueira": interval(0.71, 0.05),
        },
        "curve": {
            "k": ks.tolist(), "auc": auc.tolist(), "se": (0.018 + 0.0 * ks).tolist(), "best": 17, "one_se": 9,
            "chosen": k,
        },
        "correlation": {"features": list(features), "spearman": spearman.tolist(), "selected": chosen},
        "distributions": {
            name: {
                endpoint.negative: quantiles(1.0 + i % 4, 1.0 + i % 3, i % 2 == 0),
                endpoint.positive: quantiles(1.4 + i % 4, 1.0 + i % 3, i % 2 == 0),
            }
            for i, name in enumerate(chosen)
        },
        "envelope": {name: {"0.05": 0.0, "0.5": 1.0, "0.95": 2.0} for name in chosen},
        "domain": {"quantiles": {"0.5": 3.1, "0.95": 5.2, "0.99": 5.9, "1": 6.4}},
        "conformal": {
            "alpha": 0.2, "early_min_probability": 0.31, "advanced_min_probability": 0.55,
            "coverage": {endpoint.negative: 0.82, endpoint.positive: 0.82}, "indeterminate": 0.39,
            "accuracy_where_decided": 0.7,
        },
        "calibration": {"slope": 0.62, "intercept": 0.11, "informative": True},
        "versions": {"python": "3.11.2", "torch": "2.13.0", "lungstage": "0.1.0"},
    }  # fmt: skip


def write_run(folder: Path, run: Record | None, evaluation: Record | None) -> Path:
    """Write the given records into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in (("run.json", run), ("evaluation.json", evaluation)):
        if record is not None:
            text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder


def followed(evaluation: Record) -> Record:
    """Change an evaluation's record to survival at 2 years, of 200 patients; some were lost before."""
    random = np.random.default_rng(8)
    risk = random.uniform(0.2, 0.8, 200)
    days, until = random.exponential(900 * (1 - risk)), random.uniform(100, 3000, 200)
    observed = days <= until
    days = np.minimum(days, until)
    lost = ~observed & (days < 730)
    order = np.argsort(lost, kind="stable")
    days, observed, p = days[order], observed[order], risk[order][None]
    known = int((~lost).sum())
    survival = Survival(730.0, days[:known], observed[:known], np.ones(known), days[known:], np.empty((0, 0)), None)
    whole = OutOfFold(p, p[:, :known], np.ones((1, known, 2), bool), np.zeros((1, known), int), None, p[:, known:])
    methods = {name: Scored(one["label"], whole) for name, one in evaluation["methods"].items()}
    record = survival_record(survival, methods, evaluation["reference"], np.zeros((1, 200), int), 0)
    return {**evaluation, "survival": record, "table": {**evaluation["table"], "prevalence": 0.5}}
