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
from medmaskrcnn.system.exceptions import words_of
from medmaskrcnn.system.memory_budget import available_bytes

MAX_SCAN_BYTES = 2**36
"""64 GiB: no scan is larger; a header that claims more is damaged."""

MAX_DEFLATE_RATIO = 1032
"""Deflate cannot shrink data more than this (zlib's technical notes), so a .gz bounds what it may hold."""

MAX_RATIO = 200
"""Scans compress to a tenth at best; a large file that compresses more is made to harm."""

HARMLESS_BYTES = 2**28
"""Below this size the ratio does not matter: an empty mask of 256 MB is harmless."""

_ALWAYS_TRIED = 2**24
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
        raise ReadError(
            f"{path} is too large for this machine: it does not fit into the memory that is free"
        ) from error
    except NotImplementedError as error:
        raise ReadError(f"{path} is {what} of a kind that cannot be read ({words_of(error)}). Convert it") from error
    except BaseException as error:  # decoders raise anything on damaged input; this is the one place that catches it
        if not isinstance(error, Exception) and type(error).__name__ != _RUST_PANIC:
            raise
        raise ReadError(
            f"{path} cannot be read as {what}; it may be damaged or cut short. "
            f"Copy or export it again. ({words_of(error)})"
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
    if claimed <= possible and claimed > MAX_SCAN_BYTES:
        raise ReadError(
            f"{path} holds {_words(claimed)} of voxels {tuple(shape)}; {_words(MAX_SCAN_BYTES)} can be read"
        )
    if claimed > possible:
        held = f"{_words(stored_bytes)}{' compressed' if packed else ''}"
        raise ReadError(
            f"{path}: the header claims {_words(claimed)} of voxels {tuple(shape)}, the file holds {held}. "
            f"It is cut short or damaged; copy it again"
        )


def check_memory(path: Path, n_bytes: int, what: str = "its voxels") -> None:
    """Refuse to decode what does not fit into the memory that is left; called before anything is allocated.

    Args:
        path: The file, for the error.
        n_bytes: Bytes that decoding takes at its peak.
        what: What takes them.

    Raises:
        ReadError: if they are not there.
    """
    if n_bytes < _ALWAYS_TRIED:
        return
    available = available_bytes()
    if available is not None and n_bytes > available:
        raise ReadError(
            f"{path} is too large for this machine: {what} take {_words(n_bytes)} of memory, {_words(available)} are "
            "free. Close other programs, or read it where there is more memory"
        )


class Allowance:
    """Memory that many small pieces take together: masks of a file that may hold thousands.

    Args:
        path: The file, for the error.
        what: What takes the memory.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what, self._taken = path, what, 0
        self._available = available_bytes()

    def take(self, n_bytes: int) -> None:
        """Count a piece before it is made.

        Raises:
            ReadError: if all pieces together do not fit into the memory that was free at the beginning.
        """
        self._taken += n_bytes
        if self._taken > _ALWAYS_TRIED and self._available is not None and self._taken > self._available:
            raise ReadError(
                f"{self._path} is too large for this machine: {self._what} take more than the "
                f"{_words(self._available)} of memory that are free. Read it where there is more memory"
            )


def check_inflation(path: Path, unpacked: int, stored: int, what: str) -> None:
    """Refuse data that unpack to far more than data of scans do, before they are unpacked.

    Args:
        path: The file, for the error.
        unpacked: Bytes after unpacking.
        stored: Bytes in the file.
        what: What is unpacked.

    Raises:
        ReadError: if the ratio is implausible, or the memory is not there.
    """
    if unpacked > HARMLESS_BYTES and unpacked > MAX_RATIO * max(stored, 1):
        raise ReadError(
            f"{path}: {what} unpack to {_words(unpacked)} from {_words(stored)}, as no scan does. "
            "If you trust the file, save it uncompressed"
        )
    check_memory(path, unpacked, what)


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
