"""Self-contained HTML page of a comparison of selectors over tables. The same results give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lungstage.training.reporting.figures import ranking
from lungstage.training.reporting.figures.canvas import estimate
from lungstage.training.reporting.report import printable

Record = Mapping[str, Any]


def render(results: Record) -> str:
    """Write the page.

    Parameters
    ----------
    results
        Content of ``results.json``.

    Returns
    -------
    str
        HTML.
    """
    record = printable(results)
    environment = Environment(
        loader=PackageLoader("lungstage.training.reporting", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"estimate": estimate, "svg": Markup}
    return environment.get_template("comparison.html.j2").render(
        record=record,
        figures=[
            figure
            for classifier in record["classifiers"]
            for figure in (ranking.critical_difference(record, classifier), ranking.differences(record, classifier))
        ]
        + [ranking.stability(record)],
    )
