"""The table reader accepts what is documented, and says what is wrong with anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import ALL_FEATURES
from lungstage.training.cohorts.cohort import CUT_COLUMN, Cohort, read_cohort
from lungstage.training.cohorts.description import UNDECLARED
from tests.training.conftest import Rows, make_rows

Write = Callable[..., Path]
A, B = ALL_FEATURES[:2]


def test_reads_values_in_the_order_of_the_contract(write_table: Write) -> None:
    rows = [dict(reversed(row.items())) for row in make_rows()]
    cohort = read_cohort(write_table(rows))
    assert cohort.features == ALL_FEATURES[:20]
    assert cohort.values[7, 1] == float(rows[7][B])
    assert cohort.labels.tolist() == [row["stage"] == "advanced" for row in rows]
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


def _copy_column(rows: Rows) -> Rows:
    return [r | {B: r[A]} for r in rows]


def _copy_patient(rows: Rows) -> Rows:
    return [rows[0] | {"patient_id": "P002"} if i == 2 else r for i, r in enumerate(rows)]


BAD: dict[str, tuple[Callable[[Rows], Rows], tuple[str, ...]]] = {
    "text in a number": (_set(A, "n/d"), (A, "line 4", "'P002'", "'n/d'")),
    "digit separator": (_set(A, "1_0"), (A, "line 4", "'P002'", "'1_0'")),
    "infinite": (_set(B, "-inf"), (B, "line 4", "'P002'", "'-inf'")),
    "overflowing": (_set(B, "1e999"), (B, "line 4", "'P002'", "'1e999'")),
    "constant": (_each(A, "3.5"), (A, "constant", "3.5")),
    "all missing": (_each(B, ""), (B, "no value")),
    "unknown stage": (_set("stage", "IIIa"), ("stage", "line 4", "'P002'", "'IIIa'")),
    "missing stage": (_set("stage", "NA"), ("stage", "line 4", "'P002'", "missing")),
    "one class": (_each("stage", "early"), ("stage", "'advanced' in 0 ")),
    "same patient": (_set("patient_id", "P000"), ("Lines 2 and 4", "same patient_id", "'P000'")),
    "one tumour, two patients": (_copy_patient, ("Lines 2 and 4", "'P000'", "'P002'")),
    "one column, two names": (_copy_column, (A, B, "same values")),
    "no patient": (_set("patient_id", " "), ("patient_id", "line 4")),
    "no stage": (lambda rows: [{k: v for k, v in r.items() if k != "stage"} for r in rows], ("stage",)),
    "unknown feature": (_each("original_shape_Roundness", "1"), ("original_shape_Roundness",)),
    "few rows": (lambda rows: rows[:29], ("29", "30")),
    "few features": (lambda rows: [dict(list(r.items())[:16]) for r in rows], ("14", "15")),
    "odd flag": (_each(CUT_COLUMN, "maybe"), (CUT_COLUMN, "line 2", "'P000'", "'maybe'")),
    "no rows": (lambda rows: [], ("no rows",)),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_is_named_by_column_line_patient_and_value(fault: str, write_table: Write) -> None:
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
    assert refusal.value.reason.message.count("\n") == 0


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_neither_the_order_of_columns_nor_that_of_rows_matters(seed: int, write_table: Write) -> None:
    rng = np.random.default_rng(seed)
    rows = [row | {"age": str(40 + i % 30), CUT_COLUMN: str(i % 7 == 0)} for i, row in enumerate(make_rows())]
    columns, order = rng.permutation(list(rows[0])), rng.permutation(len(rows))
    shuffled = [{name: rows[i][name] for name in columns} for i in order]
    one = read_cohort(write_table(rows), covariates=("age",))
    two = read_cohort(write_table(shuffled), covariates=("age",))
    assert one.features == two.features
    assert (one.covariates, one.excluded, one.rows, one.warnings) == (
        two.covariates, two.excluded, two.rows, two.warnings,
    )  # fmt: skip
    assert _by_patient(one) == _by_patient(two)


def _by_patient(cohort: Cohort) -> dict[str, tuple[bool, bytes, bytes]]:
    assert cohort.covariate_values is not None
    rows = zip(cohort.labels.tolist(), cohort.values, cohort.covariate_values, strict=True)
    return {
        patient: (label, x.tobytes(), c.tobytes()) for patient, (label, x, c) in zip(cohort.patients, rows, strict=True)
    }


def test_energy_and_total_energy_may_be_the_same(write_table: Write) -> None:
    energy, total = "original_firstorder_Energy", "original_firstorder_TotalEnergy"
    rows = [row | {energy: row[A], total: row[A]} for row in make_rows()]
    rows = [{name: cell for name, cell in row.items() if name != A} for row in rows]
    assert {energy, total} <= set(read_cohort(write_table(rows)).features)


def test_two_patients_of_whom_nothing_was_measured_are_no_copies(write_table: Write) -> None:
    rows = make_rows()
    for i in (3, 8):
        rows[i] = rows[i] | dict.fromkeys(ALL_FEATURES[:20], "")
    assert len(read_cohort(write_table(rows)).patients) == 60


def test_features_asked_for_come_in_that_order_and_must_be_there(write_table: Write) -> None:
    table = write_table(make_rows())
    cohort = read_cohort(table, features=(B, A))
    assert cohort.features == (B, A)
    np.testing.assert_array_equal(cohort.values, read_cohort(table).values[:, [1, 0]])
    with pytest.raises(Refused, match=ALL_FEATURES[30]):
        read_cohort(table, features=(A, ALL_FEATURES[30]))


def _rate(folder: Path, icc: dict[str, float | str]) -> Path:
    file = folder / "icc.csv"
    file.write_text("feature,icc\n" + "".join(f"{name},{value}\n" for name, value in icc.items()))
    return file


def test_features_that_do_not_repeat_are_left_out(write_table: Write, tmp_path: Path) -> None:
    rated: dict[str, float | str] = dict.fromkeys(ALL_FEATURES, 0.9) | {A: 0.74, B: 0.75, ALL_FEATURES[5]: -0.1}
    cohort = read_cohort(write_table(make_rows()), repeatability=(_rate(tmp_path, rated), 0.75))
    assert set(ALL_FEATURES[:20]) - set(cohort.features) == {A, ALL_FEATURES[5]}
    assert cohort.values.shape == (60, 18)
    assert cohort.repeatability is not None
    assert dict(cohort.repeatability.left_out) == {A: 0.74, ALL_FEATURES[5]: -0.1}
    assert (cohort.repeatability.table, cohort.repeatability.minimum) == ("icc.csv", 0.75)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({B: "high"}, "icc.csv: Column icc, line 3: 'high' is not a number."),
        ({B: 1.5}, "no ICC between -1 and 1"),
        ({B: ""}, "no ICC between -1 and 1"),
        (dict.fromkeys(ALL_FEATURES[:6], 0.1), "14 feature columns with an ICC of at least 0.75"),
    ],
)
def test_an_icc_table_that_is_not_one(
    change: dict[str, float | str], told: str, write_table: Write, tmp_path: Path
) -> None:
    rated: dict[str, float | str] = dict.fromkeys(ALL_FEATURES[:20], 0.9) | change
    with pytest.raises(Refused, match=told):
        read_cohort(write_table(make_rows()), repeatability=(_rate(tmp_path, rated), 0.75))


def test_a_feature_whose_repeatability_is_unknown_passes_no_bar(write_table: Write, tmp_path: Path) -> None:
    rated: dict[str, float | str] = dict.fromkeys(ALL_FEATURES[1:20], 0.9)
    with pytest.raises(Refused, match=f"has no ICC for {A}\\."):
        read_cohort(write_table(make_rows()), repeatability=(_rate(tmp_path, rated), 0.75))


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
    assert (len(cohort.patients), int(cohort.labels.sum()), dict(cohort.excluded)) == (160, 98, {CUT_COLUMN: 35})
    assert cohort.features == ALL_FEATURES


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((1000, 700, 300), ("300 of 1000 listed studies were refused during measurement.",)),
        ((4, 2, 1), ("2 of 4 listed studies were refused or unavailable during measurement.",)),
        ((4, 3, 1), ("1 of 4 listed studies was refused during measurement.",)),
        ((4, 4, 0), ()),
    ],
)
def test_studies_that_were_refused_are_noted(
    counts: tuple[int, int, int], told: tuple[str, ...], write_table: Write, tmp_path: Path
) -> None:
    (tmp_path / "features.toml").write_text(
        'name="x"\nsource="s"\nlicence="l"\ncitation="c"\nnotes=["Known."]\n[extraction]\nbinWidth=25\n[measured]\n'
        "listed={}\nmeasured={}\nrefused={}\n".format(*counts)
    )
    assert read_cohort(write_table(make_rows())).description.notes == ("Known.", *told)
