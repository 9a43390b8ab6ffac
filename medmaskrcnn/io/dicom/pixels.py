"""Stored pixels of one DICOM file, frame by frame, with the decoder that each transfer syntax has.

Decoders: pydicom for uncompressed data, RLE and JPEG-LS through pylibjpeg-rle and pyjpegls, JPEG 2000 through
pylibjpeg-openjpeg, JPEG and JPEG lossless through python-gdcm. Which one decodes is fixed, so that the same file gives
the same voxels whatever else is installed; gdcm decodes only what nothing else can, because damaged data makes it end
the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medmaskrcnn.io.dicom.jpeg_check import JPEG_SYNTAXES, check_jpeg

PLUGINS = {
    RLELossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    **dict.fromkeys(JPEG_SYNTAXES, "gdcm"),
}
"""pydicom's name of the decoder for each compressed transfer syntax."""


def stored_frames(dataset: FileDataset) -> Iterator[NDArray[Any]]:
    """Each frame as stored, one at a time: ``(H, W)``, or ``(H, W, samples)`` in colour (as RGB).

    Frames of one bit a pixel come as 0 and 1.

    Raises:
        Exception: whatever a decoder raises on damaged data; call inside :func:`~medmaskrcnn.io.guard.reading`.
    """
    complete_syntax(dataset)
    check_frames(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if dataset.get("BitsAllocated") == 1 and not syntax.is_compressed:
        yield from _bit_frames(dataset)
    else:
        yield from iter_pixels(dataset, decoding_plugin=PLUGINS.get(syntax, ""))


def _bit_frames(dataset: FileDataset) -> Iterator[NDArray[Any]]:
    """Frames of one bit a pixel, packed without a gap between frames (PS3.5 8.2).

    pydicom 3.0 cannot take single frames whose number of pixels is odd out of them.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    for index in range(int(dataset.get("NumberOfFrames") or 1)):
        start, stop = index * rows * columns, (index + 1) * rows * columns
        if stop > 8 * len(packed):
            raise ValueError(f"the pixel data ends before frame {index + 1} does")
        bits = np.unpackbits(packed[start // 8 : (stop + 7) // 8], bitorder="little")
        yield bits[start % 8 : start % 8 + rows * columns].reshape(rows, columns)


def complete_syntax(dataset: FileDataset) -> None:
    """Files without meta header name no transfer syntax; how pydicom could parse them tells it."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        uncompressed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else uncompressed


def check_frames(dataset: FileDataset) -> None:
    """Look at JPEG frames before gdcm does.

    Raises:
        ValueError: if a frame is damaged.
    """
    if dataset.file_meta.TransferSyntaxUID in JPEG_SYNTAXES:
        n_frames = int(dataset.get("NumberOfFrames") or 1)
        for frame in generate_frames(dataset.PixelData, number_of_frames=n_frames):
            check_jpeg(
                frame, rows=dataset.Rows, columns=dataset.Columns, samples=int(dataset.get("SamplesPerPixel") or 1)
            )
