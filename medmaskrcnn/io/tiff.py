"""Reads TIFF through tifffile: what its axes mean (ImageJ, OME, tifffile's own notes), its scale, every number type.

A TIFF is a list of pages. Which of them are channels, times or slices stands in metadata that Pillow does not read, so
its stacks are read with tifffile. Pages in a compression that it cannot decode without further packages (LZW, JPEG) are
decoded by Pillow, and files in other colour spaces than grey, RGB and palettes are left to Pillow altogether:
:func:`open_tiff` then gives ``None``.

=============  ===================================================================================
axis           becomes
=============  ===================================================================================
``Y X``        H, W
``Z``          slices, D; so do pages whose meaning is not told (``I``, ``Q``)
``C``, ``S``   channels; three or four samples of a colour picture are RGB, without transparency
``T``          the first axis of a film; with slices besides: volumes of several times, as channels
=============  ===================================================================================

The size of a pixel is taken from ImageJ's unit or OME's physical sizes. A plain TIFF's resolution is that of print.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ImageSequence
from PIL.TiffImagePlugin import TiffImageFile

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import check_memory
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.volume import ChannelKind, Film

REDUCED = "16-bit colour was reduced to 8 bits a channel."

MM_PER_UNIT = {
    **dict.fromkeys(("micron", "microns", "um", "µm", "μm", "\\u00b5m", "\\u00B5m", "micrometer"), 1e-3),
    **dict.fromkeys(("nm", "nanometer"), 1e-6),
    **dict.fromkeys(("mm", "millimeter"), 1.0),
    **dict.fromkeys(("cm", "centimeter"), 10.0),
    **dict.fromkeys(("m", "meter"), 1000.0),
    **dict.fromkeys(("inch", "in"), 25.4),
}
"""Length in mm of the units that files of pictures name."""

_GREY_OR_RGB = (0, 1, 2, 3)  # MINISWHITE, MINISBLACK, RGB, PALETTE
_ALPHA = (1, 2)  # Extra Samples: associated and unassociated alpha
_SLICES, _CHANNELS, _TIME = "ZIQR", "CS", "T"
_PHYSICAL = re.compile(r'PhysicalSize([XYZ])(Unit)?="([^"]*)"')


@dataclass(frozen=True, eq=False)
class TiffLayout:
    """What a TIFF holds, from its metadata.

    Attributes:
        shape: Extents C, D, H, W.
        channel_kind: Meaning of C.
        grid: The grid of D, H, W.
        film: Set if D is time.
        notes: Notes for the user, one sentence each.
    """

    shape: tuple[int, int, int, int]
    channel_kind: ChannelKind
    grid: Grid
    film: Film | None
    notes: tuple[str, ...]


class OpenTiff:
    """A TIFF whose metadata were read; :meth:`pixels` decodes it. Close it by a ``with`` statement."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = tifffile.TiffFile(path, _multifile=False)

    def __enter__(self) -> OpenTiff:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def is_grey_or_rgb(self) -> bool:
        """Whether its colours are of a kind that this module reads."""
        return self._first.dtype is not None and self._first.photometric in _GREY_OR_RGB

    @property
    def _needs_pillow(self) -> bool:
        """Whether tifffile lacks a decoder for the compression."""
        try:
            tifffile.TIFF.DECOMPRESSORS[self._first.compression]
        except KeyError:
            return True
        return False

    @property
    def _first(self) -> Any:
        return self._file.series[0].keyframe

    def layout(self) -> TiffLayout:
        """Extents, axes and scale.

        Raises:
            ReadError: if pages differ, or the axes are more than a scan has.
        """
        series = self._file.series[0]
        if len(self._file.series) > 1:
            first, other = (s.keyframe for s in self._file.series[:2])
            raise ReadError(
                f"{self._path}: page {other.index + 1} is {other.imagewidth} x {other.imagelength} {other.dtype}, page "
                f"1 is {first.imagewidth} x {first.imagelength} {first.dtype}. Save the pages as separate files"
            )
        if np.dtype(series.dtype).kind not in "biuf":
            raise ReadError(f"{self._path} holds pixels of type {series.dtype}; real numbers are needed")
        if self._needs_pillow:
            self._check_pillow()
        self._axes = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
        return self._interpreted()

    def _interpreted(self) -> TiffLayout:
        height, width = (next(n for axis, n in self._axes if axis == wanted) for wanted in "YX")
        slices, channels, times = (
            [n for axis, n in self._axes if axis in meaning] for meaning in (_SLICES, _CHANNELS, _TIME)
        )
        others = [axis for axis, _ in self._axes if axis not in _SLICES + _CHANNELS + _TIME + "YX"]
        if others or max(len(slices), len(channels), len(times)) > 1 or (times and channels):
            axes = ", ".join(f"{axis} {n}" for axis, n in self._axes)
            raise ReadError(f"{self._path} has the axes {axes}; a scan has channels or times, slices, rows and columns")
        page, colour = self._first, self._is_colour
        notes = []
        if set(page.extrasamples) & set(_ALPHA):
            notes.append("The picture's transparency is left out.")
        if colour and np.dtype(page.dtype).itemsize > 1:
            notes.append(REDUCED)
        depth, n_channels = slices[0] if slices else 1, 3 if colour else self._n_grey
        film = None
        if times and slices:
            n_channels = times[0]
            notes.append(f"The file holds {times[0]} times; each is read as a channel.")
        elif times:
            depth, film = times[0], Film(self._pixel_mm)
            notes.append(f"A film of {times[0]} times, not of slices.")
        elif n_channels > 1 and not colour:
            notes.append(f"The file holds {n_channels} channels.")
        grid, words = self._grid((depth, height, width), is_film=film is not None)
        kind: ChannelKind = "colour" if colour else "scalar" if n_channels == 1 else "unknown"
        return TiffLayout((n_channels, depth, height, width), kind, grid, film, (*notes, words))

    @property
    def _is_colour(self) -> bool:
        return self._first.photometric in (2, 3)

    @property
    def _n_grey(self) -> int:
        """Channels of a file that is not in colour, transparency left out."""
        channels = next((n for axis, n in self._axes if axis in _CHANNELS), 1)
        samples = any(axis == "S" for axis, _ in self._axes)
        return channels - (len(set(self._first.extrasamples) & set(_ALPHA)) if samples else 0)

    def pixels(self, layout: TiffLayout, *, as_labels: bool = False) -> NDArray[Any]:
        """The pixels, ``(C, D, H, W)``.

        Args:
            layout: What :meth:`layout` gave.
            as_labels: Numbers stay as stored: indices of a palette do not become colours, nor 0 the largest number
                where it means white.
        """
        page = self._first
        n_bytes = math.prod(layout.shape) * np.dtype(page.dtype).itemsize
        # As they lie in the file, and in our order. The ratio of compression does not count: masks are mostly empty.
        check_memory(self._path, 2 * n_bytes)
        stored = self._by_pillow() if self._needs_pillow else self._file.series[0].asarray()
        array = stored.reshape([n for _, n in self._axes])
        letters = [axis for axis, _ in self._axes]
        wanted = [
            *(i for i, axis in enumerate(letters) if axis in _CHANNELS),
            *(i for i, axis in enumerate(letters) if axis in _TIME),
            *(i for i, axis in enumerate(letters) if axis in _SLICES),
            letters.index("Y"),
            letters.index("X"),
        ]
        array = array.transpose(wanted)
        if page.photometric == 3:
            if as_labels:
                return np.ascontiguousarray(array.reshape(1, *layout.shape[1:]))
            array = np.moveaxis(page.colormap.T[array], -1, 0)
        array = array.reshape(-1, *layout.shape[1:])[: layout.shape[0]]
        if layout.channel_kind == "colour" and array.dtype.itemsize > 1:
            array = (array >> 8).astype(np.uint8) if array.dtype.kind == "u" else array
        if array.dtype == np.bool_:
            array = array.astype(np.uint8) * 255
        if page.photometric == 0 and array.dtype.kind == "u" and not (as_labels or self._needs_pillow):
            array = np.iinfo(array.dtype).max - array  # white is zero
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))

    def _check_pillow(self) -> None:
        page = self._first
        try:
            TiffImageFile(self._path).close()
        except (OSError, SyntaxError, ValueError) as error:
            raise ReadError(
                f"{self._path}: pixels of type {page.dtype} in {page.compression.name} compression cannot be read. "
                f"Save the file without compression"
            ) from error

    def _by_pillow(self) -> NDArray[Any]:
        """All pages, decoded by Pillow, in the file's order."""
        with TiffImageFile(self._path) as image:
            return np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)])

    @property
    def _pixel_mm(self) -> tuple[float, float] | None:
        sizes = self._sizes_mm()
        return None if sizes is None else (sizes[1], sizes[2])

    def _sizes_mm(self) -> tuple[float | None, float, float] | None:
        """Distance between slices (``None`` if unknown), rows and columns in mm."""
        if self._file.is_ome:
            return _ome_sizes(self._file.ome_metadata or "")
        metadata = self._file.imagej_metadata or {}
        factor = MM_PER_UNIT.get(str(metadata.get("unit", "")).strip())
        x, y = (_per_unit(self._first, name) for name in ("XResolution", "YResolution"))
        if factor is None or x is None or y is None:
            return None
        step = float(metadata.get("spacing") or 0)
        return (abs(step) * factor or None), factor / y, factor / x

    def _grid(self, shape: tuple[int, int, int], *, is_film: bool) -> tuple[Grid, str]:
        sizes = self._sizes_mm()
        if sizes is None or is_film:
            return pixel_grid(shape), "Its scale is unknown; measurements are in pixels."
        if shape[0] > 1 and sizes[0] is None:
            return pixel_grid(shape), "The distance between its slices is unknown; measurements are in pixels."
        scale = np.diag([sizes[0] or 1.0, sizes[1], sizes[2], 1.0])
        words = f"Pixels of {sizes[1]:.4g} x {sizes[2]:.4g} mm"
        words += f", slices {sizes[0]:.4g} mm apart" if shape[0] > 1 else "; volumes are areas times 1 mm"
        if shape[0] == 1:
            scale[0, 0] = 1.0
        return Grid(shape, pixel_grid(shape).affine_vox_to_ras @ scale), f"{words}, as the file says."


def _per_unit(page: Any, name: str) -> float | None:
    """Pixels per unit of length, of a rational tag."""
    tag = page.tags.get(name)
    if tag is None or not tag.value[0] or not tag.value[1]:
        return None
    return float(tag.value[0]) / float(tag.value[1])


def _ome_sizes(xml: str) -> tuple[float | None, float, float] | None:
    """Physical sizes of OME-XML; the unit is the micrometre if none is given (OME schema 2016-06)."""
    values: dict[str, str] = {}
    for axis, unit, text in _PHYSICAL.findall(xml[:1_000_000]):
        values.setdefault(axis + unit, text)
    sizes: dict[str, float] = {}
    for axis in "XYZ":
        factor = MM_PER_UNIT.get(values.get(f"{axis}Unit", "µm"))
        try:
            size = float(values.get(axis, ""))
        except ValueError:
            continue
        if factor is not None and np.isfinite(size) and size > 0:
            sizes[axis] = size * factor
    if "X" not in sizes or "Y" not in sizes:
        return None
    return sizes.get("Z"), sizes["Y"], sizes["X"]


def open_tiff(path: Path) -> OpenTiff | None:
    """Open a TIFF; ``None`` if it is left to Pillow.

    Raises:
        Exception: whatever tifffile raises on damaged data; call inside
            :func:`~medmaskrcnn.io.guard.convert_read_errors`.
    """
    opened = OpenTiff(path)
    if opened.is_grey_or_rgb:
        return opened
    opened.__exit__()
    return None
