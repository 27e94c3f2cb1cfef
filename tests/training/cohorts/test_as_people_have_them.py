"""Tables as users have them: other separators, other names, Roman numerals for stages, and PyRadiomics' additions."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.contract.spec import ALL_FEATURES, STAGE_GROUP, Endpoint
from lungstage.training.cohorts.cohort import read_cohort
from lungstage.training.cohorts.endpoint import Target, read_outcome
from lungstage.training.cohorts.table import column_names, parse_table
from tests.training.conftest import Rows, make_rows

Write = Callable[..., Path]
A = ALL_FEATURES[0]
EARLY = ("I", "IA", "IA1", "IA2", "IA3", "IB", "II", "IIA", "IIB")
ADVANCED = ("III", "IIIA", "IIIB", "IIIC")


def renamed(rows: Rows, **names: str) -> Rows:
    return [{names.get(name, name): cell for name, cell in row.items()} for row in rows]


# Separators

WORDS = st.text(st.characters(codec="utf-8", exclude_characters='",;\t\r\n\x00'), min_size=1).filter(
    lambda word: word.strip() == word != "" and not word.startswith("\ufeff")
)
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00")).map(str.strip)


@given(
    mark=st.sampled_from(",;\t"),
    header=st.lists(WORDS, min_size=2, max_size=5, unique=True),
    cells=st.lists(st.lists(CELLS, min_size=5, max_size=5), min_size=1, max_size=4),
)
def test_a_table_says_the_same_whatever_separates_it(mark: str, header: list[str], cells: list[list[str]]) -> None:
    rows = [[f"P{number}", *row[1 : len(header)]] for number, row in enumerate(cells)]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=mark).writerows([header, *rows])
    content = file.getvalue().encode()
    assert column_names(content) == tuple(header)
    table = parse_table(content, header[:1])
    assert [list(row) for row in zip(*table.columns.values(), strict=True)] == rows


def test_a_separator_within_quotes_separates_nothing() -> None:
    assert column_names(b'patient_id,"a;b;c;d"\n') == ("patient_id", "a;b;c;d")
    assert column_names(b"\xff\xfe") == ()


def with_commas(rows: Rows, mark: str, path: Path) -> Path:
    lines = [list(rows[0]), *([cell.replace(".", ",") for cell in row.values()] for row in rows)]
    path.write_text("\n".join(mark.join(line) for line in lines))
    return path


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        (";", "write decimal points, not commas"),
        ("\t", "write decimal points"),
        (",", "decimal commas, which split a cell"),
    ],
)
def test_decimal_commas_are_refused_as_such(mark: str, told: str, tmp_path: Path) -> None:
    """Otherwise 1,234 could be read as a number a thousand times too large."""
    with pytest.raises(Refused, match=told):
        read_cohort(with_commas(make_rows(), mark, tmp_path / "t.csv"))


def test_a_semicolon_table_with_points_is_read(write_table: Write, tmp_path: Path) -> None:
    plain = write_table(make_rows())
    other = tmp_path / "other.csv"
    other.write_text(plain.read_text().replace(",", ";"))
    np.testing.assert_array_equal(read_cohort(other).values, read_cohort(plain).values)


# Transposed tables


@pytest.mark.parametrize("corner", ["", "patient_id"])
def test_features_as_rows_are_named_as_such(corner: str, tmp_path: Path) -> None:
    rows = make_rows()
    lines = [[corner, *(row["patient_id"] for row in rows)]]
    lines += [["diagnostics_Versions_PyRadiomics", *["3.0.1"] * len(rows)]]
    lines += [[name, *(row[name] for row in rows)] for name in rows[0] if name != "patient_id"]
    file = tmp_path / "t.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(lines)
    with pytest.raises(Refused, match=r"is transposed: its rows are features.*each row is a patient"):
        read_cohort(file)


# Other columns of PyRadiomics


def test_what_pyradiomics_adds_is_left_out_and_filtered_images_are_counted(write_table: Write) -> None:
    added = {
        "Image": "a.nii.gz", "Mask": "b.nii.gz", "Label": "1", "diagnostics_Versions_Numpy": "1.26",
        "diagnostics_Image-original_Mean": "-3", "wavelet-LLH_glcm_Idm": "0.1", "wavelet-HHH_firstorder_Mean": "2",
        "log-sigma-1-0-mm-3D_glszm_ZoneEntropy": "x", "lbp-3D-m1_gldm_DependenceEntropy": "1",
        "square_ngtdm_Busyness": "1",
    }  # fmt: skip
    plain = read_cohort(write_table(make_rows()))
    cohort = read_cohort(write_table([row | added for row in make_rows()], "more.csv"))
    assert cohort.features == plain.features
    np.testing.assert_array_equal(cohort.values, plain.values)
    (note,) = cohort.notes
    assert note.startswith("5 columns of filtered images (lbp*, log*, square*, wavelet*) were left out")
    assert plain.notes == ()


def test_a_feature_that_the_appliance_cannot_measure_is_named(write_table: Write) -> None:
    rows = [row | {"original_shape2D_Perimeter": "1"} for row in make_rows()]
    with pytest.raises(Refused, match=r"cannot measure: \['original_shape2D_Perimeter'\]. Remove them"):
        read_cohort(write_table(rows))


def test_what_stands_before_a_features_name_is_named(write_table: Write) -> None:
    rows = [
        {f"GTV_{name}" if name in ALL_FEATURES else name: cell for name, cell in row.items()} for row in make_rows()
    ]
    with pytest.raises(Refused, match=rf"Column GTV_{A} and 19 more have a prefix before .*removeprefix"):
        read_cohort(write_table(rows))


@pytest.mark.parametrize("name", ["MeshVolume", "Sphericity"])
def test_scaled_features_are_warned_of(name: str, write_table: Write) -> None:
    column = f"original_shape_{name}"
    rows = [row | {column: str(0.1 + i)} for i, row in enumerate(make_rows())]
    assert read_cohort(write_table(rows)).warnings == ()
    rows[4] = rows[4] | {column: "-0.1"}
    (warning,) = read_cohort(write_table(rows)).warnings
    assert warning.startswith(
        f"{column} is below 0 in 1 row, which is impossible for a tumour: the features were scaled."
    )
    rows[4] = rows[4] | {column: "nan"}
    assert read_cohort(write_table(rows)).warnings == ()


# The column of the patient


def test_another_column_names_the_patients(write_table: Write) -> None:
    rows = renamed(make_rows(), patient_id="ID")
    cohort = read_cohort(write_table(rows), id_column="ID")
    assert cohort.patients == read_cohort(write_table(make_rows(), "plain.csv")).patients
    with pytest.raises(Refused, match=r"columns are missing from the table: \['patient_id'\].*--id-column"):
        read_cohort(write_table(rows))
    with pytest.raises(Refused, match=r"columns are missing from the table: \['Case'\]"):
        read_cohort(write_table(rows), id_column="Case")
    with pytest.raises(Refused, match=f"Column {A}, line 6, patient 'P004': 'x' is not"):
        read_cohort(write_table([row | {A: "x"} if row["ID"] == "P004" else row for row in rows]), id_column="ID")
    with pytest.raises(Refused, match="Lines 2 and 3 have the same ID, 'P000'"):
        read_cohort(write_table([rows[0], rows[0] | {A: "7"}, *rows[2:]]), id_column="ID")
    with pytest.raises(Refused, match="Column ID is not an outcome"):
        read_cohort(write_table(rows), id_column="ID", target=Target(target="ID", positive="P000"))


def test_the_column_that_is_asked_for_outranks_patient_id(write_table: Write) -> None:
    rows = [row | {"case": f"C{number}"} for number, row in enumerate(make_rows())]
    assert read_cohort(write_table(rows), id_column="case").patients[3] == "C3"


# Stages

SPELLINGS: tuple[Callable[[str], str], ...] = (str, str.lower, "Stage {}".format, "stage{}".format, " {} ".format)


@given(
    stages=st.lists(st.tuples(st.sampled_from(EARLY + ADVANCED), st.sampled_from(SPELLINGS)), min_size=60, max_size=60)
)
def test_stages_from_one_to_three_are_early_or_advanced(stages: list[tuple[str, Callable[[str], str]]]) -> None:
    lines = "".join(f"P{number},{spell(stage)}\n" for number, (stage, spell) in enumerate(stages))
    for target in (Target(target="s", positive="advanced"), Target(target="s", positive="advanced", negative="early")):
        outcome = read_outcome(parse_table(f"patient_id,s\n{lines}".encode(), ("patient_id",)), target)
        assert outcome.labels.tolist() == [stage in ADVANCED for stage, _ in stages]
        assert outcome.endpoint == STAGE_GROUP


def staged(rows: Rows, column: str = "stage") -> Rows:
    stages = [(EARLY, ADVANCED)[number % 2][number % 3] for number in range(len(rows))]
    return [{k: v for k, v in row.items() if k != "stage"} | {column: s} for row, s in zip(rows, stages, strict=True)]


def test_stages_make_the_question_that_words_make(write_table: Write) -> None:
    words = read_cohort(write_table(make_rows()))
    for column, target in (("stage", Target()), ("Overall.Stage", Target(target="Overall.Stage", positive="advanced"))):
        numerals = read_cohort(write_table(staged(make_rows(), column), "n.csv"), target=target)
        assert numerals.endpoint == words.endpoint == STAGE_GROUP
        np.testing.assert_array_equal(numerals.labels, words.labels)


@pytest.mark.parametrize("odd", ["IV", "IVA", "0", "occult", "IIID", "IA4", "early-ish", "3A"])
def test_what_is_no_stage_of_the_question_is_named(odd: str, write_table: Write) -> None:
    rows = [row | {"stage": odd} if row["patient_id"] == "P004" else row for row in staged(make_rows())]
    with pytest.raises(Refused, match=f"Column stage, line 6, patient 'P004': '{odd}' is no stage from I to IIIC"):
        read_cohort(write_table(rows))


def test_words_and_numerals_in_one_column_are_not_guessed_at(write_table: Write) -> None:
    rows = [row | {"stage": "IIIA"} if row["patient_id"] == "P004" else row for row in make_rows()]
    with pytest.raises(Refused, match="'IIIA' is neither early nor advanced"):
        read_cohort(write_table(rows))


def test_a_positive_that_is_a_stage_is_a_value_like_any(write_table: Write) -> None:
    rows = [row | {"group": "I" if row["stage"] == "early" else "III"} for row in make_rows()]
    cohort = read_cohort(write_table(rows), target=Target(target="group", positive="III"))
    assert cohort.endpoint == Endpoint("group", "I", "III")
