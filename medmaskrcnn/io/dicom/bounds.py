"""Bounds on what the frames of a DICOM file make of themselves in memory, checked before they are decoded.

A JPEG 2000 frame of one kilobyte can claim an image of 4 GB, whatever the DICOM header says (ISO 15444-1, A.5.1), and
so can JPEG-LS (ISO 14495-1, C.2.2); a DICOM header can claim 65535 rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.io.guard import check_inflation, check_memory

JPEG_2000_SYNTAXES = (JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)
JPEG_LS_SYNTAXES = (JPEGLSLossless, JPEGLSNearLossless)

_SIZ = b"\xff\x4f\xff\x51"
_JPEG_LS_FRAME = b"\xff\xf7"
_MOST_TILES = 65_535
_MOST_BITS = 38


def decoded_bytes(header: DicomHeader) -> int:
    """Bytes that the frames of a file take when they are decoded."""
    item = 1 if header.bits_stored <= 8 else 2 if header.bits_stored <= 16 else 4
    return header.rows * header.columns * header.samples * header.n_frames * item


def check_file(header: DicomHeader) -> None:
    """Refuse a file whose frames take far more memory than its size explains, or than there is.

    Raises:
        ReadError: if they do.
    """
    check_inflation(header.path, decoded_bytes(header), header.path.stat().st_size, "its frames")


def check_stack(where: Path, frames: Sequence[Frame]) -> None:
    """Refuse frames that together do not fit into memory.

    Raises:
        ReadError: if they do not.
    """
    first = frames[0].header
    stored = len(frames) * decoded_bytes(first) // first.n_frames
    whole_file = max(decoded_bytes(f.header) for f in frames) if first.n_frames > 1 and not first.native_dtype else 0
    is_scaled = any(not float(value).is_integer() for f in frames for value in (f.slope, f.intercept))
    voxels = len(frames) * first.rows * first.columns * first.samples
    check_memory(where, stored + whole_file + (4 * voxels if is_scaled else 0))


def check_code_stream(frame: bytes, syntax: str, *, rows: int, columns: int, samples: int) -> None:
    """Compare the size that a JPEG 2000 or JPEG-LS frame claims with that of the DICOM header; others pass.

    Args:
        frame: The frame.
        syntax: Its transfer syntax.
        rows: Rows (0028,0010) of the DICOM header.
        columns: Columns (0028,0011).
        samples: Samples per Pixel (0028,0002).

    Raises:
        ValueError: if they differ, or the frame divides its image into an impossible number of tiles.
    """
    if syntax in JPEG_2000_SYNTAXES:
        _check_jpeg_2000(frame, rows, columns, samples)
    elif syntax in JPEG_LS_SYNTAXES:
        _check_jpeg_ls(frame, rows, columns, samples)


def _check_jpeg_2000(frame: bytes, rows: int, columns: int, samples: int) -> None:
    start = frame.find(_SIZ)
    segment = frame[start + 4 : start + 42]
    if start < 0 or len(segment) < 38:
        raise ValueError("the JPEG 2000 frame has no image size")
    x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0 = (
        int.from_bytes(segment[i : i + 4], "big") for i in range(4, 36, 4)
    )  # fmt: skip
    components = int.from_bytes(segment[36:38], "big")
    if (y - y0, x - x0, components) != (rows, columns, samples):
        raise ValueError(
            f"the JPEG 2000 frame is {(y - y0, x - x0, components)} (rows, columns, samples), the header says "
            f"{(rows, columns, samples)}"
        )
    tiles = -(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y) if tile_x and tile_y else 0
    bits = [(one & 127) + 1 for one in frame[start + 42 : start + 42 + 3 * components : 3]]
    if not 1 <= tiles <= _MOST_TILES or len(bits) < components or max(bits) > _MOST_BITS:
        raise ValueError(f"the JPEG 2000 frame has {tiles} tiles of {bits[:4]} bits; it is damaged")


def _check_jpeg_ls(frame: bytes, rows: int, columns: int, samples: int) -> None:
    start = frame.find(_JPEG_LS_FRAME)
    segment = frame[start + 2 : start + 10]
    if start < 0 or len(segment) < 8:
        raise ValueError("the JPEG-LS frame has no frame header")
    found = (int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big"), segment[7])
    if found != (rows, columns, samples):
        raise ValueError(f"the JPEG-LS frame is {found} (rows, columns, samples), not {(rows, columns, samples)}")
