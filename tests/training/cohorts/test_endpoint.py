"""Any binary endpoint, survival with censoring, and covariates: what is read, and what is refused and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.spec import STAGE_GROUP, Covariate, Endpoint
from lungstage.training.cohorts.cohort import CUT_COLUMN, Cohort, read_cohort
from lungstage.training.cohorts.covariates import encode_covariates, is_tnm
from lungstage.training.cohorts.endpoint import STAGE, Target, read_outcome
from lungstage.training.cohorts.survival import ALL_OBSERVED
from lungstage.training.cohorts.table import Table, parse_table
from lungstage.training.model.preprocessing import Standardise
from tests.training.conftest import Rows, make_rows

Write = Callable[..., Path]


def _table(**columns: list[Any]) -> Table:
    n = len(next(iter(columns.values())))
    cells = {name: [str(cell) for cell in column] for name, column in columns.items()}
    return Table({"patient_id": [f"P{i}" for i in range(n)], **cells}, list(range(2, n + 2)))


def _with(rows: Rows, **columns: Callable[[int], object]) -> Rows:
    return [row | {name: str(cell(i)) for name, cell in columns.items()} for i, row in enumerate(rows)]


# Two classes of a column


def test_stage_is_what_is_predicted_unless_something_else_is_asked_for(write_table: Write) -> None:
    table = write_table(make_rows())
    assert read_cohort(table).endpoint == STAGE_GROUP
    asked = read_cohort(table, target=Target(target="stage", positive="advanced", negative="early"))
    assert asked.endpoint == STAGE_GROUP
    turned = read_cohort(table, target=Target(target="stage", positive="early"))
    assert turned.endpoint == Endpoint("stage", "advanced", "early")
    np.testing.assert_array_equal(turned.labels, ~asked.labels)


def test_any_column_of_two_values_can_be_predicted_without_a_stage(write_table: Write) -> None:
    rows = _with(make_rows(), invasive=lambda i: i % 3 == 0)
    rows = [{name: cell for name, cell in row.items() if name != "stage"} for row in rows]
    cohort = read_cohort(write_table(rows), target=Target(target="invasive", positive="True"))
    assert cohort.endpoint == Endpoint("invasive", "False", "True")
    assert cohort.labels.tolist() == [i % 3 == 0 for i in range(60)]
    named = Target(target="invasive", positive="True", negative="False", name="invasiveness")
    assert read_cohort(write_table(rows), target=named).endpoint.name == "invasiveness"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"target": "stagee", "positive": "x"}, "no column 'stagee'; the nearest is 'stage'"),
        ({"target": "grade", "positive": "high"}, "Column grade, line 4, patient 'P2': 'mid' is a third value"),
        ({"target": "grade", "positive": "high", "negative": "low"}, "line 4, patient 'P2': 'mid' is neither low nor"),
        ({"target": "grade", "positive": "top"}, "never contains 'top'. Its values are: 'high', 'low', 'mid'"),
        ({"target": "gap", "positive": "a"}, "Column gap, line 3, patient 'P1': the outcome is missing"),
        ({"target": "same", "positive": "a"}, "contains 'a' in every row"),
        ({"target": "odd", "positive": "a"}, "cannot be written in a report"),
    ],
)
def test_an_outcome_that_is_not_one_is_named_by_column_line_and_patient(target: dict[str, Any], told: str) -> None:
    table = _table(
        stage=["early"] * 4, grade=["high", "low", "mid", "high"], gap=["a", "", "b", "a"], same=["a"] * 4,
        odd=["a", "back\\slash", "a", "a"],
    )  # fmt: skip
    with pytest.raises(Refused) as refusal:
        read_outcome(table, Target(**target))
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"target": "grade"}, "positive is missing"),
        ({"horizon_days": 730}, "belong together"),
        ({"event": "death"}, "belong together"),
        ({"target": "days", "event": "days", "horizon_days": 1}, "two columns"),
        ({"target": "days", "event": "death", "horizon_days": 0}, "horizon_days"),
        ({"target": "grade", "positive": "a", "negative": "a"}, "must differ"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_target_that_says_too_little_or_too_much(target: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Target(**target)


@pytest.mark.parametrize("column", ["original_shape_Elongation", "patient_id", CUT_COLUMN])
def test_what_a_model_is_told_cannot_be_predicted(column: str, write_table: Write) -> None:
    rows = _with(make_rows(), **{CUT_COLUMN: lambda i: i % 2 == 0})
    with pytest.raises(Refused, match="cannot be the target"):
        read_cohort(write_table(rows), target=Target(target=column, positive="True"))


def test_a_covariate_cannot_be_predicted_from_itself(write_table: Write) -> None:
    rows = _with(make_rows(), histology=lambda i: "ab"[i % 2])
    target = Target(target="histology", positive="a")
    assert read_cohort(write_table(rows), target=target).endpoint.negative == "b"
    with pytest.raises(Refused, match="histology is a covariate"):
        read_cohort(write_table(rows), target=target, covariates=("histology",))


# Survival

SURVIVAL = Target(target="survival_days", horizon_days=730, event="death_observed")


def test_who_is_lost_before_the_horizon_is_neither() -> None:
    table = _table(
        survival_days=[0, 729, 730, 731, 0, 729, 730, 731],
        death_observed=[1, "True", "1", "TRUE", 0, "False", "0", "0"],
    )
    outcome = read_outcome(table, SURVIVAL)
    assert outcome.labels.tolist() == [True, True, True, False, False, False, False, False]
    assert outcome.unclassified.tolist() == [False, False, False, False, True, True, False, False]
    assert outcome.endpoint == Endpoint("survival at 2 years", "survival beyond 2 years", "death within 2 years")
    assert SURVIVAL.is_called("survival at 2 years")
    assert SURVIVAL.is_called("death within 730 days"), "the name in an earlier release"
    relapse = Target(target="survival_days", horizon_days=730, event="relapse")
    table.columns["relapse"] = table.columns["death_observed"]
    assert read_outcome(table, relapse).endpoint == Endpoint("relapse within 730 days", "no", "yes")
    named = Target(
        target="survival_days", horizon_days=730, event="death_observed", name="2-year death", negative="alive",
        positive="dead",
    )  # fmt: skip
    assert read_outcome(table, named).endpoint == Endpoint("2-year death", "alive", "dead")


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 1000),
    st.integers(1, 1000),
)
def test_a_later_horizon_takes_no_event_away_and_loses_more(
    seen: list[tuple[int, bool]], horizon: int, more: int
) -> None:
    table = _table(days=[days for days, _ in seen], event=[event for _, event in seen])
    early, late = (
        read_outcome(table, Target(target="days", event="event", horizon_days=h)) for h in (horizon, horizon + more)
    )
    assert (late.labels | ~early.labels).all()
    assert (late.unclassified | ~early.unclassified).all()
    assert not (early.labels & early.unclassified).any()


def test_rows_left_out_are_counted_once_and_warned_of(write_table: Write) -> None:
    rows = _with(
        make_rows(n=80), survival_days=lambda i: 100 if i % 2 else 900, death_observed=lambda i: int(i % 4 != 3),
        **{CUT_COLUMN: lambda i: i < 8},
    )  # fmt: skip
    table = write_table(rows)
    cohort = read_cohort(table, target=SURVIVAL)
    # Every fourth patient is lost at day 100: 20 rows. Two of these are also cut and count as cut.
    assert dict(cohort.excluded) == {CUT_COLUMN: 8, "censored before day 730": 18}
    assert len(cohort.patients) == cohort.rows - sum(cohort.excluded.values())
    assert len(cohort.warnings) == 1
    assert cohort.warnings[0].startswith("25% of the rows were censored before day 730")
    assert cohort.survival is not None
    assert (len(cohort.survival.days), len(cohort.survival.censored_days)) == (54, 18)
    assert cohort.survival.weights.sum() == pytest.approx(72), "the weights of known patients include the lost patients"
    assert cohort.prevalence < cohort.labels.mean()
    assert dict(read_cohort(table, target=SURVIVAL, keep_cut_rows=True).excluded) == {
        CUT_COLUMN: 0, "censored before day 730": 20,
    }  # fmt: skip
    few = [row | ({"death_observed": "1"} if i % 16 != 15 else {}) for i, row in enumerate(rows)]
    cohort = read_cohort(write_table(few), target=SURVIVAL)
    assert (dict(cohort.excluded)["censored before day 730"], cohort.warnings) == (5, ())


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("survival_days", "", "missing or negative"),
        ("survival_days", "-3", "missing or negative"),
        ("survival_days", "long", "'long' is not a number"),
        ("death_observed", "", "neither True nor False"),
        ("death_observed", "2", "neither True nor False"),
    ],
)
def test_a_survival_cell_that_is_not_one(column: str, cell: str, told: str) -> None:
    table = _table(survival_days=[800, 900], death_observed=[0, 1])
    table.columns[column][1] = cell
    with pytest.raises(Refused, match=f"Column {column}, line 3, patient 'P1': .*{told}"):
        read_outcome(table, SURVIVAL)


def test_follow_up_that_tells_nothing_is_refused_in_its_own_words(write_table: Write) -> None:
    def cohort_of(days: Callable[[int], int], died: Callable[[int], int]) -> Cohort:
        return read_cohort(write_table(_with(make_rows(), survival_days=days, death_observed=died)), target=SURVIVAL)

    with pytest.raises(
        Refused, match=r"The event is known to have occurred by day 730 in 0 usable rows .*more patients with the event"
    ):
        cohort_of(lambda i: 900 + i, lambda _: 0)
    with pytest.raises(Refused, match=r"Follow-up to day 730 without the event is known in 0 usable rows .*shorter"):
        cohort_of(lambda i: 100 + i, lambda _: 1)
    nobody_lost = cohort_of(lambda i: 100 + 20 * i, lambda _: 1)
    assert nobody_lost.warnings == (ALL_OBSERVED,)
    assert nobody_lost.weights is not None
    assert (nobody_lost.weights == 1).all()


def test_two_year_survival_of_lung1(shared_data: Path) -> None:
    cohort = read_cohort(shared_data / "lung1" / "features.csv", target=SURVIVAL, covariates=("age", "histology"))
    assert cohort.rows == 195
    assert sum(cohort.excluded.values()) + len(cohort.patients) == 195
    assert set(cohort.covariates[1].levels) == {"squamous cell carcinoma", "large cell", "adenocarcinoma", "nos"}
    assert cohort.warnings
    assert cohort.endpoint.name == "survival at 2 years"
    assert (len(cohort.labels), int(cohort.labels.sum()), cohort.excluded["censored before day 730"]) == (134, 79, 26)
    assert cohort.prevalence == pytest.approx(0.5288, abs=1e-4)


# Covariates


def test_covariates_are_encoded_with_their_reference_first(write_table: Write) -> None:
    rows = _with(
        make_rows(),
        age_years=lambda i: "" if i == 5 else 50 + i % 20,
        sex=lambda i: ("M", "female", "Male", "f", "O")[i % 5],
        histology=lambda i: "rare" if i < 4 else ("Squamous_cell  cancer", "adeno", "squamous cell cancer", "")[i % 4],
    )
    cohort = read_cohort(write_table(rows), covariates=("age", "sex", "histology"))
    assert cohort.covariates == (
        Covariate("age"), Covariate("sex", ("F", "M")), Covariate("histology", ("squamous cell cancer", "adeno")),
    )  # fmt: skip
    assert cohort.covariate_values is not None
    np.testing.assert_array_equal(
        cohort.covariate_values[[0, 1, 4, 5, 7]],
        [[50, 1, np.nan], [51, 0, np.nan], [54, np.nan, 0], [np.nan, 1, 1], [57, 1, np.nan]],
    )


def test_an_age_of_nought_is_missing_as_at_the_appliance(write_table: Write) -> None:
    rows = _with(make_rows(), age=lambda i: 0 if i == 3 else 50 + i % 20)
    values = read_cohort(write_table(rows), covariates=("age",)).covariate_values
    assert values is not None
    assert np.flatnonzero(np.isnan(values[:, 0])).tolist() == [3]


def test_a_histology_that_winsorising_would_take_for_the_reference_is_missing(write_table: Write) -> None:
    """Five rows of 600 lie beyond the 99 % quantile of their column."""
    rows = _with(make_rows(n=600), histology=lambda i: "rare" if i < 5 else "few" if i < 20 else "ab"[i % 2])
    cohort = read_cohort(write_table(rows), covariates=("histology",))
    assert cohort.covariates == (Covariate("histology", ("a", "b", "few")),)
    assert cohort.covariate_values is not None
    assert np.isnan(cohort.covariate_values[:5]).all()
    levels = Standardise().fit(cohort.covariate_values).parameters_
    assert (levels.upper == 1).all()


def test_a_model_s_levels_are_kept_in_another_table() -> None:
    levels = (Covariate("sex", ("F", "M")), Covariate("histology", ("b", "a")))
    encoded = encode_covariates(_table(sex=["m", "M", ""], histology=["A", "c", "b"]), levels)
    np.testing.assert_array_equal(encoded, [[1, 1], [1, np.nan], [np.nan, 0]])


@pytest.mark.parametrize(
    ("covariates", "columns", "told"),
    [
        (("age",), {"age": lambda i: 121 if i == 2 else i}, "Column age, line 4, patient 'P002': 121 is no age"),
        (("age",), {"age": lambda i: -1 if i == 2 else 60 + i % 9}, "-1 is no age between 0 and 120"),
        (("age",), {"age": lambda i: "old" if i == 2 else 60}, "'old' is not a number"),
        (("age",), {}, "no column 'age_years'; the nearest is 'stage'"),
        (("age",), {"age": lambda i: 60}, "Column age is constant"),
        (("sex",), {"sex": lambda i: "x" if i == 2 else "m"}, "Column sex, line 4, patient 'P002': 'x' is neither"),
        (("sex",), {"sex": lambda i: "m"}, "Column sex is constant"),
        (("histology",), {"histology": lambda i: f"h{i // 4}"}, "fewer than two values with at least 5"),
        (("histology",), {"histology": lambda i: "h" * (70 + i % 2)}, "longer than the 64 characters"),
        (("agee",), {}, "no covariate 'agee'; the nearest is 'age'"),
        (("age", "age"), {"age": lambda i: i}, "given twice"),
        (("clinical_t",), {"clinical_t": lambda i: i % 4}, "'clinical_t' cannot be a covariate. T, N and M define"),
        (("stage",), {}, "T, N and M define the stage"),
    ],
)  # fmt: skip
def test_a_covariate_that_is_not_one(
    covariates: tuple[str, ...], columns: dict[str, Callable[[int], object]], told: str, write_table: Write
) -> None:
    table = write_table(_with(make_rows(), **columns))
    with pytest.raises(Refused) as refusal:
        read_cohort(table, covariates=covariates)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    "name",
    ["T", "n", "pT", "cN", "ypN", "M1", "clinical_t", "clinical_n", "clinical_m", "clinicalT", "Clinical.T.Stage",
     "tnm", "cTNM", "overall_stage", "Overall.Stage", "ajcc_pathologic_n", "t_category", "N-category", "pathologic_m",
     "uicc8", "stage"],
)  # fmt: skip
def test_every_spelling_of_tnm_is_known(name: str) -> None:
    assert is_tnm(name)


@pytest.mark.parametrize("name", ["age", "sex", "histology", "smoking", "center", "mutation", "ecog", "treatment"])
def test_nothing_else_is_taken_for_tnm(name: str) -> None:
    assert not is_tnm(name)


@given(order=st.permutations(range(40)))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_levels_do_not_depend_on_the_order_of_rows(order: list[int], write_table: Write) -> None:
    rows = _with(make_rows(n=40), histology=lambda i: "aabbcd"[i % 6], sex=lambda i: "fm"[i % 2])
    cohort = read_cohort(write_table([rows[i] for i in order]), covariates=("histology", "sex"))
    assert cohort.covariates == (Covariate("histology", ("a", "b", "c", "d")), Covariate("sex", ("F", "M")))


def test_columns_beside_are_ignored_whatever_they_hold(write_table: Write) -> None:
    plain = make_rows()
    told = _with(plain, clinical_t=lambda i: i, overall_stage=lambda i: "IV", age=lambda i: "x", sex=lambda i: "?")
    one, two = read_cohort(write_table(plain)), read_cohort(write_table(told))
    np.testing.assert_array_equal(one.values, two.values)
    assert two.features == one.features
    assert two.covariate_values is None


def test_a_table_need_not_have_a_stage_to_be_parsed() -> None:
    assert parse_table(b"patient_id,x\nP,1\n", ("patient_id",)).numbers("x").tolist() == [1.0]
    assert STAGE.columns == ("stage",)
