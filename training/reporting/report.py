"""Self-contained HTML page of a run: figures, tables, and two reporting checklists.

The page loads no fonts, scripts or images, and its content security policy forbids it. All names are untrusted input
and are escaped. The same run gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import STAGE_GROUP
from lungstage.appliance.report.vocabulary import CONCEPTS
from lungstage.training.evaluation.survival import CLAIM, censoring
from lungstage.training.files import write_whole
from lungstage.training.reporting import checklists, figures
from lungstage.training.reporting.facts import known
from lungstage.training.reporting.figures.canvas import METRIC_LABELS, estimate, unit_of
from lungstage.training.reporting.figures.comparison import in_order
from lungstage.training.run import differences, prevalence

Record = Mapping[str, Any]

RUN, EVALUATION = "run.json", "evaluation.json"
SCHEMA_VERSION: Final = 2
_WRITTEN_BY: Final = {RUN: "fit", EVALUATION: "evaluate"}
_BOTH: Final = (
    "schema_version", "settings", "procedure_sha256", "seed", "table", "endpoint", "covariates", "repeatability",
    "versions",
)  # fmt: skip
_NEEDED: Final = {
    RUN: (*_BOTH, "cohort", "selection", "warnings", "cut_rows"),
    EVALUATION: (
        *_BOTH, "cohort", "interval", "reference", "methods", "decision_curve_treat_all", "verdicts",
        "covariate_ablation", "leakage", "warnings",
    ),
}  # fmt: skip
# Characters that no page can show: control characters, single surrogates, and marks that change the reading direction.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_DISCRIMINATION: Final = ("auc", "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the run in `folder`.

    Parameters
    ----------
    folder
        Folder with ``run.json``, ``evaluation.json`` or both.
    out
        The page; None for ``report.html`` in `folder`.

    Returns
    -------
    Path
        Path of the page. It is written completely or not at all.

    Raises
    ------
    Refused
        ``table_invalid``: both records are missing, or one cannot be read.
    OSError
        The page cannot be written.
    """
    page = render(*read(folder))
    target = folder / "report.html" if out is None else out
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, page.encode("utf-8"))
    return target


def read(folder: Path) -> tuple[Record | None, Record | None]:
    """Read a run's records, each None without its file; see :func:`write` for the refusals."""
    run, evaluation = (_record(folder / name) for name in (RUN, EVALUATION))
    if run is None and evaluation is None:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{folder} contains neither {RUN} nor {EVALUATION}. `lungstage-train fit` and `lungstage-train evaluate` "
            "write them.",
        )
    return run, evaluation


def _record(file: Path) -> Record | None:
    try:
        record = printable(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{file.name} is not JSON in UTF-8: {error}. `lungstage-train {_WRITTEN_BY[file.name]}` writes a new one.",
        ) from error
    missing = [key for key in _NEEDED[file.name] if not isinstance(record, dict) or key not in record]
    if missing or record.get("schema_version") != SCHEMA_VERSION:
        found = record.get("schema_version") if isinstance(record, dict) else None
        what = (
            f"has schema version {found}, but {SCHEMA_VERSION} is needed"
            if found != SCHEMA_VERSION
            else "is incomplete"
        )
        absent = f" These keys are missing: {', '.join(missing)}." if missing else ""
        raise Refused(
            ReasonCode.TABLE_INVALID,
            f"{file.name} {what}.{absent} `lungstage-train {_WRITTEN_BY[file.name]}` writes a new one.",
        )
    checked: Record = record
    return checked


def printable(value: Any) -> Any:
    """Replace characters that no page can show, in all strings of a record."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [printable(one) for one in value]
    if isinstance(value, dict):
        return {printable(key): printable(one) for key, one in value.items()}
    return value


def render(run: Record | None, evaluation: Record | None) -> str:
    """Write the page.

    Parameters
    ----------
    run, evaluation
        Results of :func:`read`; one of them can be None.

    Returns
    -------
    str
        HTML.
    """
    # The template is in the same folder as this module.
    environment = Environment(
        loader=PackageLoader("lungstage.training.reporting", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"estimate": estimate, "code": _code, "unit": unit_of, "svg": Markup}
    facts = known(run, evaluation)
    record: Record = evaluation or run or {}
    methods = evaluation["methods"] if evaluation else {}
    return environment.get_template("report.html.j2").render(
        run=run,
        evaluation=evaluation,
        record=record,
        facts=facts,
        is_stage=record["endpoint"] == asdict(STAGE_GROUP),
        prevalence=prevalence(record["table"]),
        survival=(told := record.get("survival")),
        survival_told=censoring(told) if told else "",
        survival_claim=CLAIM,
        warnings=list(
            dict.fromkeys(
                [*(differences(run, evaluation) if run and evaluation else ()), *_warnings(evaluation), *_warnings(run)]
            )
        ),
        summary=list(_summary(evaluation)) if evaluation else [figures.NO_EVALUATION],
        metrics=(_DISCRIMINATION, tuple(name for name in METRIC_LABELS if name not in _DISCRIMINATION)),
        metric_labels=METRIC_LABELS,
        order=in_order(methods, evaluation["reference"]) if evaluation else [],
        concepts=CONCEPTS,
        removals=list(_removals(run)) if run else [],
        settings=sorted(_flat(record["settings"])),
        figures={
            "features": list(figures.of_features(run)),
            "selection": list(figures.of_selection(run, evaluation)),
            "performance": list(figures.of_performance(evaluation)),
            "survival": list(figures.of_survival(record)),
            "covariates": list(figures.of_covariates(evaluation)),
            "leakage": list(figures.of_leakage(evaluation)),
        },
        checklists=(
            ("tripod-ai", "TRIPOD+AI", checklists.answer(checklists.TRIPOD_AI, facts)),
            ("metrics-checklist", "METRICS", checklists.answer(checklists.METRICS, facts)),
        ),
        standings=tuple(checklists.Standing),
        no_run=figures.NO_RUN,
        no_evaluation=figures.NO_EVALUATION,
    )


def _code(text: str) -> Markup:
    """Escape `text`, and mark text between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped right here


def _flat(settings: Record, prefix: str = "") -> Iterator[tuple[str, str]]:
    """List nested settings under dotted names."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value)


def _warnings(record: Record | None) -> list[str]:
    said: list[str] = record["warnings"] if record else []
    return said


def _summary(evaluation: Record) -> Iterator[str]:
    """Summarise the results in sentences."""
    methods, reference, table = evaluation["methods"], evaluation["reference"], evaluation["table"]
    own, endpoint = methods[reference], evaluation["endpoint"]
    share = prevalence(table)
    more = endpoint["positive"] if share >= 0.5 else endpoint["negative"]
    yield (
        f"{own['label']}: AUC {estimate(own['metrics']['auc'])}, accuracy {estimate(own['metrics']['accuracy'])}, "
        f"balanced accuracy {estimate(own['metrics']['balanced_accuracy'])}, out of fold. Calling every case {more} is "
        f"right in {max(share, 1 - share):.3f} of these patients (balanced accuracy 0.5, AUC 0.5)."
    )
    selectors = [name for name in in_order(methods, reference) if methods[name]["selector"]]
    ahead = [name for name in selectors if methods[name]["metrics"]["auc"]["value"] > own["metrics"]["auc"]["value"]]
    yield f"By AUC it has rank {len(ahead) + 1} of {len(selectors)} methods with feature selection."
    apart = {name: one["difference"]["auc"] for name, one in methods.items() if one["difference"]}
    better = [methods[name]["label"] for name in sorted(apart) if apart[name]["low"] > 0]
    worse = [methods[name]["label"] for name in sorted(apart) if apart[name]["high"] < 0]
    yield (
        f"The interval of the paired AUC difference lies above 0 against {_counted(better)} of {len(apart)} other "
        f"methods, and below 0 against {_counted(worse)}. It includes 0, so no difference is shown, against "
        f"{len(apart) - len(better) - len(worse)}."
    )
    corrected = {name: one["difference_corrected"] for name, one in methods.items() if one["difference_corrected"]}
    firm = [methods[name]["label"] for name in sorted(corrected) if corrected[name]["low"] > 0]
    yield (
        "The interval with Nadeau and Bengio's correction also covers the choice of the training patients. It lies "
        f"above 0 against {_counted(firm)} of {len(corrected)}."
    )
    answers = own["conformal"]
    yield (
        f"{100 * answers['indeterminate']:.1f} % of the cases are indeterminate. The conformal set contains the true "
        f"class in {answers['coverage'][endpoint['negative']]:.3f} of the {endpoint['negative']} and "
        f"{answers['coverage'][endpoint['positive']]:.3f} of the {endpoint['positive']} cases."
    )
    if own["stability"]:
        yield f"Stability of its selection over the outer folds (Nogueira): {estimate(own['stability'])}."


def _counted(labels: list[str]) -> str:
    return f"{len(labels)} ({'; '.join(labels)})" if labels else "0"


def _removals(run: Record) -> Iterator[tuple[int, list[str]]]:
    """For each round, the number of remaining features and the eliminated ones, the least important last."""
    for passed in run["selection"]["rounds"]:
        if passed["removed"]:
            yield passed["remaining"], sorted(passed["removed"], key=lambda name: -passed["importance"][name])
