"""JPEG lossless (ITU-T T.81, process 14) for pydicom, decoded by the GDCM that SimpleITK contains.

pydicom has two plugins for it. But pylibjpeg-libjpeg has the GPL licence, and every import of pydicom would load
python-gdcm. SimpleITK is installed anyway, and is imported only when a slice needs it.
"""

from __future__ import annotations

import os

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import DecodeRunner, JPEGLosslessDecoder, JPEGLosslessSV1Decoder
from pydicom.uid import JPEGLossless, JPEGLosslessSV1, SecondaryCaptureImageStorage

DECODER_DEPENDENCIES = {JPEGLossless: ("SimpleITK",), JPEGLosslessSV1: ("SimpleITK",)}
"""Part of pydicom's interface to a decoding plugin, like :func:`is_available`."""

_LABEL = "SimpleITK"
_END_OF_IMAGE = b"\xff\xd9"
_FRAME_LOSSLESS = 0xC3


def register() -> None:
    """Make pydicom decode JPEG lossless; a second call changes nothing."""
    for decoder in (JPEGLosslessDecoder, JPEGLosslessSV1Decoder):
        if _LABEL not in decoder.available_plugins:
            decoder.add_plugin(_LABEL, (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    """Whether this plugin can decode pixels in this transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame.

    Parameters
    ----------
    source
        The codestream.
    runner
        The properties of the pixels in the dataset.

    Returns
    -------
    bytes
        Stored pixel values, little endian, row by row.

    Raises
    ------
    ValueError
        The codestream is incomplete, is not a grey image, or contains values too large for Bits Stored.
    RuntimeError
        GDCM cannot decode it.
    """
    import SimpleITK as sitk  # deferred: it takes a third of the process's memory, and is rarely needed

    if not source.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):  # without padding; libjpeg would invent missing data
        raise ValueError("the codestream is incomplete")
    if runner.samples_per_pixel != 1:
        raise ValueError("only grey images are decoded")
    with os.fdopen(os.memfd_create("frame"), "wb") as file:  # SimpleITK reads only files; this one is in memory
        _as_instance(source, runner).save_as(file, enforce_file_format=True)
        file.flush()
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(f"/proc/self/fd/{file.fileno()}")
        pixels = sitk.GetArrayFromImage(reader.Execute())
    if runner.pixel_representation == 0 and pixels.max() >> runner.bits_stored:
        raise ValueError("the codestream has more bits than Bits Stored")
    return bytes(pixels.astype(runner.pixel_dtype, casting="safe").tobytes())


def _precision(source: bytes) -> int:
    """Bits of a sample according to the frame header (SOF3; ITU-T T.81, B.2.2); 0 if there is none."""
    at = 2
    while source[at : at + 1] == b"\xff" and at + 4 < len(source):
        if source[at + 1] == _FRAME_LOSSLESS:
            return source[at + 4]
        at += 2 + int.from_bytes(source[at + 2 : at + 4])
    return 0


def _as_instance(source: bytes, runner: DecodeRunner) -> Dataset:
    """Wrap a frame in the smallest image that GDCM reads; without rescale, so the values are the stored ones."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = runner.transfer_syntax
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, runner.photometric_interpretation
    image.Rows, image.Columns = runner.rows, runner.columns
    # GDCM cuts off bits beyond Bits Stored. Here they must stay visible, so such a frame is refused.
    stored = runner.bits_stored if runner.pixel_representation else max(runner.bits_stored, _precision(source))
    image.BitsAllocated, image.BitsStored = runner.bits_allocated, stored
    image.HighBit, image.PixelRepresentation = stored - 1, runner.pixel_representation
    image.PixelData = encapsulate([source])
    return image
