"""A NIfTI pair is read in its stored position, or refused with a sentence that names file and fault."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungstage.appliance.contract.errors import ReasonCode, Refused, Unavailable
from lungstage.appliance.radiomics.nifti import read_pair

SHAPE = (6, 7, 8)


def write(path: Path, array: npt.NDArray[Any], **geometry: Any) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.get("spacing", (0.75, 0.75, 2.5)))
    image.SetOrigin(geometry.get("origin", (-12.5, 20.0, 30.0)))
    image.SetDirection(geometry.get("direction", (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    sitk.WriteImage(image, str(path))
    return path


def hu() -> npt.NDArray[np.int16]:
    return np.random.default_rng(3).integers(-900, 200, SHAPE).astype(np.int16)


def drawn(*labels: int) -> npt.NDArray[np.uint8]:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for place, label in enumerate(labels or (1,)):
        mask[1 + 2 * place : 3 + 2 * place, 2:5, 2:6] = label
    return mask


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "image.nii", hu()), write(tmp_path / "mask.nii.gz", drawn())


def refusal(*arguments: Any) -> tuple[ReasonCode, str]:
    with pytest.raises(Refused) as refused:
        read_pair(*arguments)
    return refused.value.reason.code, refused.value.reason.message


def test_volume_and_mask_as_they_lie(pair: tuple[Path, Path]) -> None:
    found = read_pair(*pair)
    np.testing.assert_array_equal(found.volume.array, hu())
    assert found.volume.array.dtype == np.int16
    np.testing.assert_array_equal(found.mask, drawn() == 1)
    assert found.volume.spacing == (2.5, 0.75, 0.75)
    np.testing.assert_allclose(found.volume.position, (-12.5, 20, 30))
    assert (found.others, found.is_placed) == ((), True)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_the_pixel_type_is_the_files(kind: str, tmp_path: Path) -> None:
    image = write(tmp_path / "i.nii", np.abs(hu()).astype(kind))
    mask = write(tmp_path / "m.nii", drawn().astype(kind))
    found = read_pair(image, mask)
    assert found.volume.array.dtype == kind
    np.testing.assert_array_equal(found.mask, drawn() == 1)


def test_a_rescaled_file_holds_what_pyradiomics_sees(pair: tuple[Path, Path]) -> None:
    _patch(112, "2f", 2.0, -1024.0)(pair[0])
    array = read_pair(*pair).volume.array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(sitk.ReadImage(str(pair[0]))))
    np.testing.assert_array_equal(array, hu() * 2.0 - 1024)


TURNS = [
    turn.reshape(3, 3) * np.array(signs)
    for turn in np.eye(3)[[(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]]
    for signs in np.array(np.meshgrid(*[(1, -1)] * 3)).reshape(3, -1).T
]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(image=st.sampled_from(TURNS), mask=st.sampled_from(TURNS), origin=st.tuples(*[st.floats(-500, 500)] * 3))
def test_a_mask_whose_axes_run_another_way_is_turned_to_its_image(
    image: npt.NDArray[Any], mask: npt.NDArray[Any], origin: tuple[float, float, float], tmp_path: Path
) -> None:
    """However both files are stored, the mask contains the same places of the patient."""
    _turned(tmp_path / "image.nii", hu(), image, origin)
    _turned(tmp_path / "mask.nii", drawn(1, 2), mask, origin)
    _turned(tmp_path / "same.nii", drawn(1, 2), image, origin)
    found = read_pair(tmp_path / "image.nii", tmp_path / "mask.nii", 2)
    same = read_pair(tmp_path / "image.nii", tmp_path / "same.nii", 2)
    np.testing.assert_array_equal(found.mask, same.mask)
    assert sorted(found.volume.array[found.mask]) == sorted(hu()[drawn(1, 2) == 2])
    assert found.others == (1,)


def _turned(path: Path, array: npt.NDArray[Any], turn: npt.NDArray[Any], origin: tuple[float, float, float]) -> None:
    """Store a volume along other axes, in the same place of the patient."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.75, 0.8, 2.5))
    image.SetOrigin(np.float32(origin).astype(float).tolist())
    axes = np.abs(turn).argmax(axis=0).tolist()
    flips = [bool(turn[axis, column] < 0) for column, axis in enumerate(axes)]
    sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(image, axes), flips), str(path))


def _patch(offset: int, form: str, *values: float) -> Callable[[Path], None]:
    def patch(path: Path) -> None:
        content = bytearray(path.read_bytes())
        struct.pack_into(f"<{form}", content, offset, *values)
        path.write_bytes(content)

    return patch


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _rewrite(make: Callable[[], sitk.Image]) -> Callable[[Path], None]:
    return lambda path: sitk.WriteImage(make(), str(path))


def _grey() -> sitk.Image:
    return sitk.GetImageFromArray(hu())


def _with(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        array = hu().astype(np.float32)
        array[0, 0, :2] = value
        write(path, array)

    return spoil


IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is not NIfTI-1"),
    "text": (lambda path: path.write_text("patient,stage\n" * 99), "is not NIfTI-1"),
    "header cut": (lambda path: path.write_bytes(path.read_bytes()[:200]), "is not NIfTI-1"),
    "another file's voxels": (_patch(344, "4s", b"ni1\0"), "is not NIfTI-1 in one file"),
    "NIfTI-2": (lambda path: path.write_bytes(struct.pack("<i4s", 540, b"n+2\0") + bytes(600)), "is NIfTI-2"),
    "cut short": (_cut, "is cut short: 5 of 672 bytes are missing"),
    "misnamed": (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "Rename it to .nii.gz"),
    "a bomb's header": (_patch(42, "3h", 32000, 32000, 32000), "of 65536000000000 bytes are missing"),
    "4D": (_rewrite(lambda: sitk.JoinSeries([_grey(), _grey()])), "more than one volume (8 × 7 × 6 × 2)"),
    "2D": (_patch(40, "h", 2), "contains no volume"),
    "no extent": (_patch(42, "h", -8), "contains no volume"),
    "RGB": (
        _rewrite(lambda: sitk.Compose([sitk.Cast(_grey(), sitk.sitkUInt8)] * 3)),
        "contains 3 numbers per voxel, like colours",
    ),
    "RGB, typed": (_patch(70, "2h", 128, 24), "contains colours"),
    "complex": (_patch(70, "2h", 32, 64), "contains complex"),
    "no voxel size": (_patch(80, "f", 0.0), "does not give a voxel size"),
    "NaN voxel size": (_patch(84, "f", float("nan")), "does not give a voxel size"),
    "two voxel sizes": (lambda path: (_patch(80, "f", 0.8)(path), _patch(254, "h", 2)(path)), "two different voxel"),
    "NaN rescale": (_patch(112, "f", float("nan")), "a rescale that is not a number"),
    "sheared": (_patch(280, "8f", -0.75, 0.3, 0, 1, 0, -0.687386, 0, 1), "not perpendicular"),
    "NaN": (_with(float("nan")), "contains 2 voxels without a number"),
    "infinite": (_with(float("inf")), "contains 2 voxels without a number"),
}


@pytest.mark.parametrize("fault", IMAGES)
def test_an_image_that_is_none_is_named(fault: str, pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    spoil, told = IMAGES[fault]
    if fault == "sheared":
        _patch(252, "2h", 0, 2)(pair[0])
    spoil(pair[0])
    code, message = refusal(*pair)
    assert code is ReasonCode.NIFTI_INVALID
    assert message.startswith("'image.nii' ")
    assert told in message
    assert capfd.readouterr() == ("", ""), "ITK's own warnings are not shown"


@pytest.mark.parametrize("place", [10, 200, 0.3, 0.5, 0.7, -2])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_gzipped_file_that_is_cut_short_or_damaged(place: float, is_cut: bool, pair: tuple[Path, Path]) -> None:
    content = bytearray(pair[1].read_bytes())
    at = int(place * len(content)) if 0 < place < 1 else min(int(place), len(content) - 40)
    if is_cut:
        content = content[:at]
    else:
        content[at] ^= 0xFF
    pair[1].write_bytes(content)
    code, message = refusal(*pair)
    assert code is ReasonCode.NIFTI_INVALID
    assert message.startswith("'mask.nii.gz' is ")


def test_one_volume_that_says_it_is_of_four_dimensions_is_one(pair: tuple[Path, Path]) -> None:
    _patch(40, "5h", 4, *reversed(SHAPE), 1)(pair[0])
    np.testing.assert_array_equal(read_pair(*pair).volume.array, hu())


def test_a_file_that_does_not_say_how_it_lies(pair: tuple[Path, Path], tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.nii", drawn())
    for path in (pair[0], mask):
        _patch(252, "2h", 0, 0)(path)
    assert not read_pair(pair[0], mask).is_placed


@pytest.mark.parametrize(
    ("geometry", "told"),
    [
        ({"spacing": (0.75, 0.75, 2.6)}, "up to 0.5 mm apart"),
        ({"origin": (-12.5, 20.0, 32.5)}, "up to 2.5 mm apart"),
        ({"origin": (-12.5, 20.01, 30.0)}, "up to 0.01 mm apart"),
        ({"direction": (0.995, -0.0998749, 0, 0.0998749, 0.995, 0, 0, 0, 1)}, "mm apart"),
        ({"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}, "mm apart"),
    ],
)
def test_a_mask_in_another_place_is_refused(geometry: dict[str, Any], told: str, pair: tuple[Path, Path]) -> None:
    code, message = refusal(pair[0], write(pair[1], drawn(), **geometry))
    assert code is ReasonCode.MASK_MISMATCH
    assert "'mask.nii.gz'" in message
    assert told in message


def test_a_mask_of_another_size_is_refused(pair: tuple[Path, Path]) -> None:
    code, message = refusal(pair[0], write(pair[1], drawn()[:, :, :7]))
    assert code is ReasonCode.MASK_MISMATCH
    assert "7 × 7 × 6 voxels, but its image has 8 × 7 × 6" in message


def test_the_rounding_of_a_header_is_no_other_place(pair: tuple[Path, Path]) -> None:
    rounded = np.nextafter(np.float32((-12.5, 20, 30)), np.float32(1000)).astype(float)
    assert read_pair(pair[0], write(pair[1], drawn(), origin=rounded.tolist())).mask.any()


@pytest.mark.parametrize(
    ("mask", "label", "code", "told"),
    [
        (drawn(2, 5), 1, ReasonCode.ROI_NOT_FOUND, "has no label 1. It has: 2, 5."),
        (drawn(0), 1, ReasonCode.ROI_EMPTY, "is empty"),
        (drawn() * np.float32(0.4), 1, ReasonCode.NIFTI_INVALID, "between whole numbers"),
        (drawn() * np.float32("nan"), 1, ReasonCode.NIFTI_INVALID, "without a number"),
    ],
)
def test_a_mask_without_the_label(
    mask: npt.NDArray[Any], label: int, code: ReasonCode, told: str, pair: tuple[Path, Path]
) -> None:
    found, message = refusal(pair[0], write(pair[1], mask), label)
    assert found is code
    assert "'mask.nii.gz'" in message
    assert told in message


def test_a_file_that_is_not_there(pair: tuple[Path, Path]) -> None:
    with pytest.raises(Unavailable, match=r"no file or folder .*absent\.nii"):
        read_pair(pair[0], pair[1].with_name("absent.nii"))
