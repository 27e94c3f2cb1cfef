"""JPEG lossless (ITU-T T.81, process 14) for pydicom, decoded by the GDCM that SimpleITK brings along.

Of pydicom's own plugins for it, pylibjpeg-libjpeg is under the GPL, and python-gdcm would be loaded by every import of
pydicom. SimpleITK is here already, and is imported only when a slice needs it.
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
    """Whether pixels in this transfer syntax can be decoded."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame.

    Parameters
    ----------
    source
        The codestream.
    runner
        What the dataset says of its pixels.

    Returns
    -------
    bytes
        Pixels as they were stored, little endian, row by row.

    Raises
    ------
    ValueError
        The codestream is cut short, holds no grey image, or values that Bits Stored has no room for.
    RuntimeError
        GDCM cannot decode it.
    """
    import SimpleITK as sitk  # deferred: a third of the process's memory, and seldom needed

    if not source.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):  # padding aside; libjpeg would make up what is missing
        raise ValueError("the codestream is cut short")
    if runner.samples_per_pixel != 1:
        raise ValueError("only grey images are decoded")
    with os.fdopen(os.memfd_create("frame"), "wb") as file:  # SimpleITK reads files alone; this one is on no disk
        _as_instance(source, runner).save_as(file, enforce_file_format=True)
        file.flush()
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(f"/proc/self/fd/{file.fileno()}")
        pixels = sitk.GetArrayFromImage(reader.Execute())
    if runner.pixel_representation == 0 and pixels.max() >> runner.bits_stored:
        raise ValueError("the codestream holds more bits than Bits Stored says")
    return bytes(pixels.astype(runner.pixel_dtype, casting="safe").tobytes())


def _precision(source: bytes) -> int:
    """Bits of a sample, as the frame's header says (SOF3; ITU-T T.81, B.2.2); 0 where there is none."""
    at = 2
    while source[at : at + 1] == b"\xff" and at + 4 < len(source):
        if source[at + 1] == _FRAME_LOSSLESS:
            return source[at + 4]
        at += 2 + int.from_bytes(source[at + 2 : at + 4])
    return 0


def _as_instance(source: bytes, runner: DecodeRunner) -> Dataset:
    """Wrap a frame in the smallest image that GDCM reads; it has no rescale, so the values come out as stored."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = runner.transfer_syntax
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, runner.photometric_interpretation
    image.Rows, image.Columns = runner.rows, runner.columns
    # GDCM cuts off what Bits Stored has no room for; here it is to be seen, and refused.
    stored = runner.bits_stored if runner.pixel_representation else max(runner.bits_stored, _precision(source))
    image.BitsAllocated, image.BitsStored = runner.bits_allocated, stored
    image.HighBit, image.PixelRepresentation = stored - 1, runner.pixel_representation
    image.PixelData = encapsulate([source])
    return image
