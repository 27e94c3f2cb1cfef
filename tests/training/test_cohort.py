"""The table reader takes what is documented, and names what is wrong with anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ReasonCode, Refused
from appliance.spec import ALL_FEATURES
from training.cohort import CUT_COLUMN, UNDECLARED, read_cohort

from .conftest import Rows, make_rows

Write = Callable[..., Path]
A, B = ALL_FEATURES[:2]


def test_reads_values_in_the_order_of_the_contract(write_table: Write) -> None:
    rows = [dict(reversed(row.items())) for row in make_rows()]
    cohort = read_cohort(write_table(rows))
    assert cohort.features == ALL_FEATURES[:20]
    assert cohort.values[7, 1] == float(rows[7][B])
    assert cohort.stage.tolist() == [row["stage"] == "advanced" for row in rows]
    assert cohort.patients[3] == "P003"
    assert cohort.description == UNDECLARED
    assert cohort.description.extraction == {"binWidth": 25.0}


def test_ignores_other_columns_and_the_redundant_volume(write_table: Write) -> None:
    rows = [row | {"clinical_t": "x", "original_shape_VoxelVolume": "not read"} for row in make_rows()]
    assert read_cohort(write_table(rows)).features == ALL_FEATURES[:20]


def test_missing_cells_are_kept_as_nan(write_table: Write) -> None:
    rows = make_rows()
    rows[4][A], rows[5][A] = "", "NaN"
    assert np.isnan(read_cohort(write_table(rows)).values[[4, 5], 0]).all()


def test_cut_rows_are_left_out_and_counted_unless_asked_for(write_table: Write) -> None:
    rows = [row | {CUT_COLUMN: str(i < 6)} for i, row in enumerate(make_rows())]
    table = write_table(rows)
    cohort = read_cohort(table)
    assert (len(cohort.patients), cohort.rows, dict(cohort.excluded)) == (54, 60, {CUT_COLUMN: 6})
    assert "P005" not in cohort.patients
    kept = read_cohort(table, keep_cut_rows=True)
    assert (len(kept.patients), dict(kept.excluded)) == (60, {CUT_COLUMN: 0})


def _set(column: str, value: str, row: int = 2) -> Callable[[Rows], Rows]:
    return lambda rows: [r | {column: value} if i == row else r for i, r in enumerate(rows)]


def _each(column: str, value: str) -> Callable[[Rows], Rows]:
    return lambda rows: [r | {column: value} for r in rows]


BAD: dict[str, tuple[Callable[[Rows], Rows], tuple[str, ...]]] = {
    "text in a number": (_set(A, "n/d"), (A, "line 4", "'n/d'")),
    "digit separator": (_set(A, "1_0"), (A, "line 4", "'1_0'")),
    "infinite": (_set(B, "-inf"), (B, "line 4", "'-inf'")),
    "overflowing": (_set(B, "1e999"), (B, "line 4", "'1e999'")),
    "constant": (_each(A, "3.5"), (A, "constant", "3.5")),
    "all missing": (_each(B, ""), (B, "no value")),
    "unknown stage": (_set("stage", "IIIa"), ("stage", "line 4", "'IIIa'")),
    "one class": (_each("stage", "early"), ("stage", "'advanced' in 0 ")),
    "same patient": (_set("patient_id", "P000"), ("Lines 2 and 4", "patient_id")),
    "no patient": (_set("patient_id", " "), ("patient_id", "line 4")),
    "no stage": (lambda rows: [{k: v for k, v in r.items() if k != "stage"} for r in rows], ("stage",)),
    "unknown feature": (_each("original_shape_Roundness", "1"), ("original_shape_Roundness",)),
    "few rows": (lambda rows: rows[:29], ("29", "30")),
    "few features": (lambda rows: [dict(list(r.items())[:16]) for r in rows], ("14", "15")),
    "odd flag": (_each(CUT_COLUMN, "maybe"), (CUT_COLUMN, "line 2", "'maybe'")),
    "no rows": (lambda rows: [], ("no rows",)),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_is_named_by_column_line_and_value(fault: str, write_table: Write) -> None:
    change, words = BAD[fault]
    rows = make_rows()
    table = write_table(rows)
    if changed := change(rows):
        table = write_table(changed)
    else:
        table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(Refused) as refusal:
        read_cohort(table)
    assert refusal.value.reason.code is ReasonCode.TABLE_INVALID
    for word in words:
        assert word in refusal.value.reason.message
    assert "P00" not in refusal.value.reason.message, "a message must not name the patient"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "patient_id"),
        (b"\xff\xfe", "UTF-8"),
        (b"patient_id,stage,stage\n", "more than once"),
        (b"patient_id,stage\nP1\n", "Line 2"),
    ],
)
def test_what_is_not_a_table_is_refused(content: bytes, word: str, tmp_path: Path) -> None:
    table = tmp_path / "features.csv"
    table.write_bytes(content)
    with pytest.raises(Refused, match=word):
        read_cohort(table)


DESCRIPTION = 'name="{}"\nsource="s"\nlicence="l"\ncitation="c"\n[extraction]\nbinWidth=10\n'


def test_a_given_description_comes_before_the_one_beside_the_table(write_table: Write, tmp_path: Path) -> None:
    table = write_table(make_rows())
    (tmp_path / "features.toml").write_text(DESCRIPTION.format("beside"))
    given = tmp_path / "given.toml"
    given.write_text(DESCRIPTION.format("given"))
    assert read_cohort(table).description.name == "beside"
    assert read_cohort(table, given).description.name == "given"
    assert read_cohort(table).description.extraction == {"binWidth": 10}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('name="x"', "source"),
        (DESCRIPTION.format("x") + "[colour]\n", "colour"),
        ("name=", "TOML"),
        (f'table_sha256="{"0" * 64}"\n' + DESCRIPTION.format("x"), "another table"),
    ],
)
def test_a_wrong_description_is_refused(text: str, word: str, write_table: Write, tmp_path: Path) -> None:
    table = write_table(make_rows())
    (tmp_path / "features.toml").write_text(text)
    with pytest.raises(Refused, match=word):
        read_cohort(table)


def test_the_lung1_table_is_known_by_its_hash(shared_data: Path) -> None:
    cohort = read_cohort(shared_data / "lung1" / "features.csv")
    assert cohort.description.name == "NSCLC-Radiomics (LUNG1)"
    assert cohort.description.licence == "CC BY-NC 3.0"
    assert cohort.description.extraction == {
        "binWidth": 25, "interpolator": "sitkLinear", "resampledPixelSpacing": [1, 1, 1],
    }  # fmt: skip
    assert (len(cohort.patients), int(cohort.stage.sum()), dict(cohort.excluded)) == (160, 98, {CUT_COLUMN: 35})
    assert cohort.features == ALL_FEATURES
