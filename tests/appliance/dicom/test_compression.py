"""Compressed slices are read exactly or refused if truncated; lossy compression gives a warning."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lungstage.appliance.contract.spec import ALL_FEATURES, ExtractionSpec
from lungstage.appliance.dicom.cases import assemble, the_one_case
from lungstage.appliance.dicom.series import ReferenceVolume, read_volume
from lungstage.appliance.model.roi_rule import ROI_RULE
from lungstage.appliance.staging.one_shot import scan
from lungstage.appliance.staging.pipeline import plan_measurement
from tests.appliance.dicom.test_bad_input import SPEC, code_of, measured
from tests.support import jpeg_lossless
from tests.support.studies import Study, rtstruct_study

EVERYTHING = ExtractionSpec(ALL_FEATURES, {"binWidth": 25.0})
WARNING = "Slices were compressed with loss. Their values differ from those of the scanner."


def _encapsulated(dataset: Dataset, syntax: UID, codestream: bytes) -> None:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].is_undefined_length = True


def compress(dataset: Dataset, syntax: UID, predictor: int = 1) -> None:
    """Compress a slice without loss."""
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        unsigned = dataset.pixel_array.view(np.uint16)
        _encapsulated(dataset, syntax, jpeg_lossless.encode(unsigned, 16, predictor))
    elif syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax


LOSSLESS = {
    "deflated": lambda d: compress(d, DeflatedExplicitVRLittleEndian),
    "RLE": lambda d: compress(d, RLELossless),
    "JPEG-LS": lambda d: compress(d, JPEGLSLossless),
    "JPEG 2000": lambda d: compress(d, JPEG2000Lossless),
    "JPEG lossless": lambda d: compress(d, JPEGLossless, predictor=7),
    "JPEG lossless, first-order": lambda d: compress(d, JPEGLosslessSV1),
}


def _study(change: Callable[[Dataset], None] = lambda _: None) -> Study:
    study = rtstruct_study()
    for dataset in study.slices:
        pixels = dataset.pixel_array.copy()
        pixels[0, :4] = -32768, 32767, 0, -1  # the range of 16 signed bits
        dataset.PixelData = pixels.tobytes()
        change(dataset)
    return study


def _volume(folder: Path) -> ReferenceVolume:
    case = the_one_case(assemble(scan([folder]).headers))
    return read_volume(plan_measurement(case, ROI_RULE, SPEC, settled=True).regions[0][1])


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_no_bit_and_no_feature_changes(syntax: str, tmp_path: Path) -> None:
    plain = _study().write(tmp_path / "plain")
    encoded = _study(LOSSLESS[syntax]).write(tmp_path / "encoded")
    expected, read = _volume(plain), _volume(encoded)
    assert read.volume.array.dtype == expected.volume.array.dtype
    assert (read.volume.array == expected.volume.array).all()
    outcome = measured(encoded, EVERYTHING)
    assert outcome["features"] == measured(plain, EVERYTHING)["features"]
    assert len(outcome["features"]) == 106
    assert WARNING not in outcome["warnings"]


@pytest.mark.parametrize("vr", ["UV", "UN", "OL", "UT"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless], ids=lambda uid: uid.name)
def test_pixels_are_bytes_whatever_value_representation_they_have(syntax: UID, vr: str, tmp_path: Path) -> None:
    _study().write(tmp_path / "right")
    study = _study((lambda d: compress(d, syntax)) if syntax.is_compressed else (lambda _: None))
    folder = study.write(tmp_path / "wrong")
    for path in folder.iterdir():
        content = path.read_bytes()
        for own in (b"OB", b"OW"):
            content = content.replace(b"\xe0\x7f\x10\0" + own + b"\0\0", b"\xe0\x7f\x10\0" + vr.encode() + b"\0\0")
        path.write_bytes(content)
    assert any(b"\xe0\x7f\x10\0" + vr.encode() in path.read_bytes() for path in folder.iterdir())
    assert np.array_equal(_volume(folder).volume.array, _volume(tmp_path / "right").volume.array)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("predictor", jpeg_lossless.PREDICTORS)
def test_jpeg_lossless_of_fewer_bits(predictor: int, bits: int, signed: bool) -> None:
    low = -(1 << bits - 1) if signed else 0
    expected = np.random.default_rng(bits).integers(low, low + (1 << bits), size=(9, 7))
    dataset = rtstruct_study().slices[0]
    dataset.Rows, dataset.Columns = expected.shape
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    unsigned = (expected % (1 << bits)).astype(np.uint16)
    _encapsulated(dataset, JPEGLossless, jpeg_lossless.encode(unsigned, bits, predictor))
    assert (dataset.pixel_array == expected).all()
    assert dataset.pixel_array.dtype == (np.int16 if signed else np.uint16)


def test_an_independent_decoder_reads_what_the_tests_encode(tmp_path: Path) -> None:
    if shutil.which("dcmdjpeg") is None:
        pytest.skip("dcmdjpeg is not installed")
    for predictor in jpeg_lossless.PREDICTORS:
        dataset = _study().slices[4]
        expected = dataset.pixel_array
        compress(dataset, JPEGLossless, predictor)
        dataset.save_as(tmp_path / "coded", enforce_file_format=True)
        subprocess.run(["dcmdjpeg", tmp_path / "coded", tmp_path / "plain"], check=True, capture_output=True)
        assert (pydicom.dcmread(tmp_path / "plain").pixel_array == expected).all()


# 16 by 16 pixels of the formula below, encoded without loss by OpenJPH 0.26.3 (a codestream of 532 bytes).
_HIGH_THROUGHPUT = base64.b85decode(
    "|4;u>04YEK0000G0000G00000000000000G0000G000000000000EBy0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTmwh=~"
    "7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00001p8x^>lfVEa%mD{<006)M62JfwzyK0}`T_@Z0965pbO2ughjakI02MF*1n>X_Kmj7iB=G=)l"
    "mJ{45&%K80K-|2698kB0Kfni!~g+mzyKD|{FVAhboClW2<xBBR-za-oc#?5AR)E@fWsA+h21lMum>T#z5XyjfB+*m0LY-47$c8H3ndn>O3&^In^64"
    ")LmVOjsJH;Y054B~0A8yA0KF_RVpvvS#)Ri%#)Ri%NDz@@j`hb@Sc)01c!^QY02^bF^~N#C`o=M1EXQ0V$T4HV$k<pOIc6*$Ifjet05izu<pus7Cq"
    "W1eZU{iQQURI1#Z~m0fh2*{ha`ctgro#WxYXe6Hb|{)S9GVH5e^PSN$PNRuBqX6u6N-`t`o0)R}xo!R}yZ0ZW3;NH~)G84p%YxcXcF!)=9`h5C8%I"
    "1C#;BjJaZb40(JEc?|Lu$j2T(hWr>3@-fKB9EXH_<?%7dR~{dOeC60NELR>ocI+6)W5+-q3;7KBxwmKPr9)+(szMMkIuQVLR003l"
)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL], ids=lambda uid: uid.keyword)
def test_high_throughput_jpeg_2000(syntax: UID) -> None:
    y, x = np.indices((16, 16))
    dataset = rtstruct_study().slices[0]
    dataset.Rows = dataset.Columns = 16
    _encapsulated(dataset, syntax, _HIGH_THROUGHPUT)
    assert (dataset.pixel_array == (x * 97 + y * y * 13) % 401 + 50 * x - 20 * y - 224).all()


def test_no_end_of_jpeg_lossless_is_made_up() -> None:
    """Without the last data byte and the end marker, libjpeg decodes this codestream with one wrong pixel."""
    for cut in range(1, 16):
        dataset = rtstruct_study().slices[4]
        codestream = jpeg_lossless.encode(dataset.pixel_array.view(np.uint16), 16, predictor=5)
        _encapsulated(dataset, JPEGLossless, codestream[:-cut])
        with pytest.raises(RuntimeError, match="incomplete"):
            _ = dataset.pixel_array


@pytest.mark.parametrize("cut", [2, 31, 800])
@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s != "deflated"])
def test_a_codestream_that_ends_too_soon_is_refused(syntax: str, cut: int, tmp_path: Path) -> None:
    """The file is complete and its fragment is truncated, as if a gateway had sent only a part of it."""
    study = _study(LOSSLESS[syntax])
    victim = study.slices[5]
    codestream = next(generate_frames(victim.PixelData, number_of_frames=1)).rstrip(b"\0")
    _encapsulated(victim, victim.file_meta.TransferSyntaxUID, codestream[:-cut])
    outcome = measured(study.write(tmp_path))
    assert (outcome["status"], outcome["reason"]["code"]) == ("refused", "pixel_data_unreadable")


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_file_that_ends_too_soon_is_damaged(syntax: str, tmp_path: Path) -> None:
    folder = _study(LOSSLESS[syntax]).write(tmp_path)
    victim = folder / "0006"
    victim.write_bytes(victim.read_bytes()[:-40])
    assert measured(folder)["reason"]["code"] == "dicom_unreadable"


@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s != "deflated"])
def test_pixels_of_another_size_than_the_header_says_are_refused(syntax: str, tmp_path: Path) -> None:
    study = _study(LOSSLESS[syntax])
    for dataset in study.slices:
        dataset.Rows += 1
    outcome = measured(study.write(tmp_path))
    assert outcome["reason"]["code"] == "pixel_data_unreadable"


def _near_lossless(dataset: Dataset) -> None:
    dataset.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)


def _lossy_wavelet(dataset: Dataset) -> None:
    dataset.compress(JPEG2000, j2k_cr=[4], generate_instance_uid=False)


def _baseline(dataset: Dataset) -> None:
    grey = (dataset.pixel_array.astype(np.int64) >> 4).clip(0, 255).astype(np.uint8)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.RescaleSlope = 16
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=95)
    _encapsulated(dataset, JPEGBaseline8Bit, buffer.getvalue())


LOSSY = {"JPEG-LS, near-lossless": _near_lossless, "JPEG 2000": _lossy_wavelet, "JPEG baseline": _baseline}


@pytest.mark.parametrize("syntax", LOSSY)
def test_loss_is_a_warning_not_a_refusal(syntax: str, tmp_path: Path) -> None:
    study = rtstruct_study()
    LOSSY[syntax](study.slices[5])
    if syntax == "JPEG baseline":  # all slices must be compressed like this to have the same rescale
        for k in {*range(12)} - {5}:
            _baseline(study.slices[k])
    outcome = measured(study.write(tmp_path / "lossy"))
    assert outcome["status"] == "measured"
    assert WARNING in outcome["warnings"]
    plain = measured(rtstruct_study().write(tmp_path / "plain"))
    assert outcome["features"]["original_firstorder_Mean"] != plain["features"]["original_firstorder_Mean"]


def _stated(value: str, *, on: int, syntax: UID = ExplicitVRLittleEndian) -> Study:
    study = rtstruct_study()
    study.slices[on].LossyImageCompression = value
    if syntax.is_encapsulated:
        compress(study.slices[on], syntax)
    return study


def test_loss_in_the_past_is_told(tmp_path: Path) -> None:
    assert WARNING in measured(_stated("01", on=5).write(tmp_path / "needed"))["warnings"]
    assert WARNING not in measured(_stated("01", on=11).write(tmp_path / "not needed"))["warnings"]
    assert WARNING not in measured(_stated("00", on=5).write(tmp_path / "lossless"))["warnings"]


def test_a_syntax_that_may_lose_is_taken_at_its_headers_word(tmp_path: Path) -> None:
    """JPEG 2000 may be lossless also under the transfer syntax that allows loss."""
    for value, warned in (("00", False), ("", True)):
        study = _stated(value, on=5, syntax=JPEG2000Lossless)
        study.slices[5].file_meta.TransferSyntaxUID = JPEG2000
        outcome = measured(study.write(tmp_path / f"{warned}"))
        assert (WARNING in outcome["warnings"]) is warned


def test_codecs_that_no_slice_needs_are_not_loaded(tmp_path: Path) -> None:
    """SimpleITK is only needed for JPEG lossless and takes a third of the process's memory."""
    program = (
        "import sys; from pathlib import Path; from tests.appliance.dicom.test_bad_input import measured\n"
        "for folder in sys.argv[1:]:\n    measured(Path(folder)); print('SimpleITK' in sys.modules)"
    )
    folders = [_study(LOSSLESS[name]).write(tmp_path / name) for name in ("JPEG 2000", "JPEG lossless, first-order")]
    done = subprocess.run([sys.executable, "-c", program, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_real_slice_in_jpeg_2000_equals_its_uncompressed_twin(shared_data: Path) -> None:
    folder = shared_data / "hostile" / "pydicom-data"
    compressed, plain = (pydicom.dcmread(folder / name).pixel_array for name in ("693_J2KR.dcm", "693_UNCR.dcm"))
    assert (compressed == plain).all()


@pytest.mark.parametrize("name", ["bad_sequence.dcm", "JPEG-LL.dcm"])
def test_a_real_image_in_jpeg_lossless_equals_what_dcmtk_decodes(name: str, shared_data: Path, tmp_path: Path) -> None:
    """One image is a CT slice; the other ends with a padding byte of ones."""
    path = shared_data / "hostile" / "pydicom-data" / name
    if shutil.which("dcmdjpeg") is None:
        pytest.skip("dcmdjpeg is not installed")
    subprocess.run(["dcmdjpeg", path, tmp_path / "plain"], check=True, capture_output=True)
    assert (pydicom.dcmread(path).pixel_array == pydicom.dcmread(tmp_path / "plain").pixel_array).all()


@pytest.mark.parametrize("codec", ["JPEG-LS", "JPEG 2000", "JPEG lossless"])
def test_values_that_bits_stored_cannot_hold_are_refused(codec: str, tmp_path: Path) -> None:
    """The codestream states another precision than the header, and it is not known which is right."""

    def change(dataset: Dataset) -> None:
        LOSSLESS[codec](dataset)
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 10, 9, 0

    assert code_of(_study(change), tmp_path) == ("refused", "pixel_data_unreadable")
