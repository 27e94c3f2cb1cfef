"""Tables as users have them: unusable parts are left out and named, and a table that is too small is refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import Refused
from lungstage.training.comparison import tables
from lungstage.training.comparison.tables import FeatureTable, find_tables, read_table
from tests.training.comparison.made_up import Columns, columns_of, written


def read(folder: Path, columns: Columns, name: str = "t.csv", features: int = 5, folds: int = 5) -> FeatureTable:
    return read_table(written(folder / name, columns), name="t", features=features, folds=folds)


def refusal(folder: Path, columns: Columns, **asked: int) -> str:
    with pytest.raises(Refused) as caught:
        read(folder, columns, **asked)
    assert caught.value.reason.code == "table_invalid"
    return caught.value.reason.message


def test_a_plain_table_is_read_whole(tmp_path: Path) -> None:
    columns = columns_of(rows=60, features=9)
    found = read(tmp_path, columns)
    assert found.features == tuple(f"f{i}" for i in range(9))
    assert (found.rows, len(found.labels), found.labels.sum()) == (60, 60, 30)
    np.testing.assert_array_equal(found.values[:, 4], [float(cell) for cell in columns["f4"]])
    np.testing.assert_array_equal(found.labels, [cell == "1" for cell in columns["Target"]])
    assert not found.left_out_rows
    assert not found.left_out_columns


def test_gzipped_and_plain_tables_are_found_and_nothing_else(tmp_path: Path) -> None:
    columns = columns_of()
    for name in ("a.csv", "b.csv.gz", "c.gz", "D.CSV"):
        written(tmp_path / name, columns)
    for name in ("README.md", ".hidden.csv", "x.xlsx"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "folder.csv").mkdir()
    found = find_tables(tmp_path)
    assert sorted(found) == ["D", "a", "b", "c"]
    one, other = (read_table(found[name], name=name, features=5, folds=5) for name in ("a", "b"))
    np.testing.assert_array_equal(one.values, other.values)
    written(tmp_path / "a.csv.gz", columns)
    with pytest.raises(Refused, match=r"a.csv and a.csv.gz give the same table name"):
        find_tables(tmp_path)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="contains no table"):
        find_tables(tmp_path)


@pytest.mark.parametrize(
    ("no", "yes"),
    [("0", "1"), ("False", "True"), ("FALSE", "TRUE"), ("0.0", "1.0"), ("no", "yes"), ("benign", "malignant")],
)
def test_a_target_is_any_two_values(tmp_path: Path, no: str, yes: str) -> None:
    columns = columns_of()
    columns["Target"] = [yes if cell == "1" else no for cell in columns["Target"]]
    assert read(tmp_path, columns).labels.tolist() == [cell == yes for cell in columns["Target"]]


def test_a_target_of_three_values_is_refused(tmp_path: Path) -> None:
    columns = columns_of()
    columns["Target"][3:6] = ["2"] * 3
    assert "Column Target has 3 values ('0', '1', '2', ...); exactly two are needed." in refusal(tmp_path, columns)


@pytest.mark.parametrize("name", ["ID", "Target"])
def test_a_column_that_must_be_there_is_missed_by_name(tmp_path: Path, name: str) -> None:
    columns = columns_of()
    del columns[name]
    assert refusal(tmp_path, columns) == f"These columns are missing from the table: ['{name}']."


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    columns = columns_of(rows=60)
    columns["Target"][0] = ""
    columns["ID"][1] = ""
    columns["ID"][2] = columns["ID"][3] = columns["ID"][4]
    for name in (f"f{i}" for i in range(8)):
        columns[name][10] = columns[name][11]
    found = read(tmp_path, columns)
    assert found.left_out_rows == {
        "without Target": 1,
        "without ID": 1,
        "of an ID that was there before": 2,
        "the same in every feature as a row before": 1,
    }
    assert (found.rows, len(found.labels)) == (60, 55)
    assert found.values[0, 0] == float(columns["f0"][2]), "the first row of an ID is kept"


def test_columns_that_cannot_be_used_are_named_by_reason(tmp_path: Path) -> None:
    columns = columns_of(rows=60, features=8)
    columns |= {
        "text": ["a"] * 60, "some text": ["1"] * 59 + ["?"], "infinite": ["1"] * 59 + ["inf"], "empty": [""] * 60,
        "constant": ["7"] * 60, "constant but missing": ["7"] * 30 + ["NA"] * 30, "copy": list(columns["f3"]),
        "copy in other words": [f"{float(cell):.20f}" for cell in columns["f2"]],
    }  # fmt: skip
    columns["f5"][7] = "NaN"
    found = read(tmp_path, columns)
    assert found.left_out_columns == {
        "text or infinite": ("text", "some text", "infinite"),
        "empty": ("empty",),
        "constant": ("constant", "constant but missing"),
        "the same as a column before": ("copy", "copy in other words"),
    }
    assert found.features == tuple(f"f{i}" for i in range(8))
    assert np.isnan(found.values).sum() == np.isnan(found.values[7, 5]) == 1


def test_a_column_is_judged_by_the_rows_that_are_used(tmp_path: Path) -> None:
    columns = columns_of(rows=60)
    columns["f0"] = ["1"] * 59 + ["2"]
    columns["Target"][59] = ""
    assert read(tmp_path, columns).left_out_columns == {"constant": ("f0",)}


def test_too_little_is_refused_and_the_least_is_not(tmp_path: Path) -> None:
    assert "The table has 29 usable rows; at least 30" in refusal(tmp_path, columns_of(rows=29))
    assert "The smaller class has 9 usable rows; at least 10" in refusal(tmp_path, columns_of(rows=51, positives=9))
    assert "at least 12 are needed" in refusal(tmp_path, columns_of(rows=51, positives=11), folds=12)
    assert "The table has 5 usable features; more than 5" in refusal(tmp_path, columns_of(features=5))
    only_text = {**columns_of(features=0), "a": ["x"] * 60}
    assert "The table has 0 usable features" in refusal(tmp_path, only_text)
    assert read(tmp_path, columns_of(rows=51, positives=12, features=2000), features=15).values.shape == (51, 2000)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8bbroken", gzip.compress(b"ID,Target,a\n1,1,1\n" * 9)[:-9], b"plain,not\ngzipped"],
    ids=["empty", "broken", "cut", "not packed"],
)
def test_what_cannot_be_unpacked_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.gz").write_bytes(content)
    with pytest.raises(Refused, match=r"t.gz cannot be unpacked|columns are missing"):
        read_table(tmp_path / "t.gz", name="t", features=5, folds=5)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_BYTES", 1 << 20)
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"0" * (2 << 20)))
    with pytest.raises(Refused, match="unpacks to more than 1 MB"):
        read_table(tmp_path / "t.gz", name="t", features=5, folds=5)


@pytest.mark.parametrize(
    ("whose", "name", "no_feature"),
    [
        ("PyRadiomics", "original_firstorder_Mean{}", "diagnostics_Image-original_Spacing"),
        ("PyRadiomics", "original_firstorder_Median{}", "Label"),
        ("PyRadiomics", "GTV_wavelet-LLH_glcm_Contrast{}", "GTV_diagnostics_Versions_Numpy"),
        ("PyRadiomics", "log-sigma-2-0-mm-3D_gldm_DependenceEntropy_t1c{}", "diagnostics_Mask-interpolated_VolumeNum"),
        ("WORC", "PREDICT_original_sf_area_avg_2.5D{}", "feature_labels"),
        ("other", "Intensity {}", None),
    ],
)
def test_whose_names_they_are_says_what_is_no_feature(
    tmp_path: Path, whose: str, name: str, no_feature: str | None
) -> None:
    columns = columns_of(features=8, name=name)
    if no_feature is not None:
        columns[no_feature] = list(columns[name.format(0)][::-1])
    found = read(tmp_path, columns)
    assert found.names == whose
    assert found.left_out_columns == ({"no feature": (no_feature,)} if no_feature else {})


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("original_shape_MeshVolume", "original_shape_Sphericity"), (1, 0)),
        (("a_original_shape_Sphericity", "b_original_shape_VoxelVolume", "a_original_shape_VoxelVolume"), (0, 2)),
        (("Volume", "Sphericity"), (1, 0)),
        (("original_shape_Sphericity_t1", "original_shape_MeshVolume_t2"), None),
        (("vol", "Sphericity"), None),
        (("Mean", "Entropy"), None),
    ],
)
def test_sphericity_and_volume_are_those_of_one_region(names: tuple[str, ...], pair: tuple[int, int] | None) -> None:
    table = FeatureTable("t", "", "other", names, np.empty((0, len(names))), np.empty(0, dtype=bool), 0, {}, {})
    assert table.sphericity_and_volume == pair


@given(st.lists(st.sampled_from(["", "NA", "1", "-0.0", "0", "1e3", "x", "inf", "1_0"]), min_size=1, max_size=8))
def test_a_column_is_numbers_or_nothing(cells: list[str]) -> None:
    found = tables._numbers(cells)
    if {"x", "inf", "1_0"} & set(cells):
        assert found is None
    else:
        assert found is not None
        assert [np.isnan(value) for value in found] == [cell in ("", "NA") for cell in cells]
        assert not np.signbit(found[~np.isnan(found)]).any(), "equal numbers have equal bytes"


def test_the_hash_is_that_of_the_file(tmp_path: Path, digest: Callable[[Path], str]) -> None:
    file = written(tmp_path / "t.csv.gz", columns_of())
    assert read_table(file, name="t", features=5, folds=5).sha256 == digest(file)
