"""A decoder plug-in of pydicom for JPEG of 12 bits (Process 4), which gdcm decodes and pydicom's own plug-in refuses.

pydicom refuses ``JPEGExtended12Bit`` with more than 8 bits because of old releases of gdcm. The installed one decodes
it as SimpleITK's copy does. Its JPEG library tries 8 bits first and complains on stderr, which is silenced here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import gdcm
from pydicom.pixels.decoders import JPEGExtended12BitDecoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit

from medmaskrcnn.io.dicom.fragments import frame_header

PLUGIN = "gdcm of 12 bits"
"""Its name among the plug-ins of pydicom's decoder of JPEG Extended."""

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.10",)}


def is_available(uid: str) -> bool:
    """Whether it decodes a transfer syntax; asked by pydicom."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame; called by pydicom.

    Raises:
        RuntimeError: if gdcm cannot decode it.
    """
    header = frame_header(src)
    if header is None:
        raise RuntimeError("the frame has no JPEG frame header")
    precision = header[1]
    allocated = 8 if precision <= 8 else 16
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(
        gdcm.PixelFormat(runner.samples_per_pixel, allocated, precision, precision - 1, runner.pixel_representation)
    )
    with _silent():
        pixels = bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))
    expected = runner.rows * runner.columns * runner.samples_per_pixel * allocated // 8
    if len(pixels) != expected:
        raise RuntimeError(f"gdcm decoded {len(pixels)} bytes where {expected} were expected")
    runner.set_option("bits_allocated", allocated)
    return pixels


@contextmanager
def _silent() -> Iterator[None]:
    """Without what a C library writes to stderr."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


if PLUGIN not in JPEGExtended12BitDecoder.available_plugins:
    JPEGExtended12BitDecoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
