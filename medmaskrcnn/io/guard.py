"""Checks shared by all readers: of exceptions, claimed sizes and affines.

Damaged files make decoders raise exceptions of any kind (``KeyError``, ``zlib.error``, ``struct.error``, ...).
:func:`convert_read_errors` is the only place that converts them all to :class:`~medmaskrcnn.errors.ReadError`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.structures.grid import FloatArray, Grid

MAX_SCAN_BYTES = 2**36
"""64 GiB: no scan is larger; a header that claims more is damaged."""

MAX_DEFLATE_RATIO = 1032
"""Deflate cannot shrink data more than this (zlib's technical notes), so a .gz bounds what it may hold."""

_RUST_PANIC = "PanicException"
"""Raised by decoders written in Rust (pylibjpeg-rle) on damaged data; not an ``Exception``, and not importable."""


@contextmanager
def convert_read_errors(path: Path, what: str) -> Iterator[None]:
    """Convert whatever a decoder raises to a ReadError that names the file.

    Args:
        path: The file being read.
        what: The format as which it is read, ``"NIfTI"``.
    """
    try:
        # Libraries warn about every irregular header; what matters to the user is in the notes instead.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedMaskRCNNError:
        raise
    except FileNotFoundError as error:
        raise ReadError(f"{path}: a file it needs is missing: {error.filename or error}") from error
    except PermissionError as error:
        raise ReadError(f"{path} may not be read: permission denied. Check the file's rights") from error
    except MemoryError as error:
        raise ReadError(f"{path} does not fit into this machine's memory") from error
    except BaseException as error:  # decoders raise anything on damaged input; this is the one place that catches it
        if not isinstance(error, Exception) and type(error).__name__ != _RUST_PANIC:
            raise
        reason = next(iter(str(error).strip().splitlines()), "") or "no reason given"
        raise ReadError(
            f"{path} cannot be read as {what}; it may be damaged or cut short. "
            f"Copy or export it again. ({type(error).__name__}: {reason[:200]})"
        ) from error


def check_claimed_size(path: Path, shape: Sequence[int], item_bytes: int, *, stored_bytes: int, packed: bool) -> None:
    """Refuse a header that claims more voxels than its file can contain, before anything is allocated.

    Args:
        path: The file, for the error.
        shape: Extents that the header claims.
        item_bytes: Bytes per voxel.
        stored_bytes: Bytes of the voxels in the file.
        packed: True if they are compressed.

    Raises:
        ReadError: if an extent is not positive, or the file is too short.
    """
    if not shape or min(shape) < 1:
        raise ReadError(f"{path}: the header gives the extents {tuple(shape)}; each must be at least 1")
    claimed = math.prod(int(n) for n in shape) * item_bytes
    possible = stored_bytes * (MAX_DEFLATE_RATIO if packed else 1)
    if claimed > possible or claimed > MAX_SCAN_BYTES:
        held = f"{_words(stored_bytes)}{' compressed' if packed else ''}"
        raise ReadError(
            f"{path}: the header claims {_words(claimed)} of voxels {tuple(shape)}, the file holds {held}. "
            f"It is cut short or damaged; copy it again"
        )


def checked_grid(path: Path, shape: Sequence[int], affine: FloatArray) -> Grid:
    """Make a grid, or raise a ReadError that explains what is wrong with the affine ``(4, 4)`` (index to mm)."""
    d, h, w = (int(n) for n in shape)
    linear = np.asarray(affine)[:3, :3]
    if not np.isfinite(affine).all():
        problem = "holds values that are not numbers (NaN or infinity)"
    elif not linear.any():
        problem = "is zero"
    else:
        try:
            return Grid((d, h, w), affine)
        except ValueError:
            lengths = ", ".join(f"{n:.4g}" for n in np.linalg.norm(linear, axis=0))
            problem = f"is singular: its axes D, H, W have lengths {lengths} mm or are parallel"
    raise ReadError(f"{path}: the affine {problem}, so sizes are unknown. Convert the scan again from its source")


def _words(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
