"""Generated tables of any study."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np

Columns = dict[str, list[str]]


def columns_of(
    rows: int = 60,
    features: int = 8,
    positives: int | None = None,
    *,
    seed: int = 0,
    signal: float = 1.0,
    name: str = "f{}",
) -> Columns:
    """A table of normally distributed features; the first two differ between the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) < (rows // 2 if positives is None else positives)
    values = rng.normal(size=(rows, features))
    values[:, :2] += signal * labels[:, None]
    return {
        "ID": [f"p{i}" for i in range(rows)],
        "Target": [str(int(label)) for label in labels],
        **{name.format(i): [repr(float(value)) for value in column] for i, column in enumerate(values.T)},
    }


def written(file: Path, columns: Columns) -> Path:
    """Write the columns as CSV, gzipped if the name ends in .gz."""
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(columns)
    out.writerows(zip(*columns.values(), strict=True))
    content = text.getvalue().encode()
    file.write_bytes(gzip.compress(content, mtime=0) if file.name.endswith("gz") else content)
    return file
