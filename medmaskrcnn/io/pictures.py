"""Reads PNG and JPEG through Pillow, and TIFF through :mod:`medmaskrcnn.io.tiff`: 2D images and stacks, grey or colour.

PNG and JPEG have no reliable pixel size in mm, nor has a TIFF whose resolution is that of print; the grid is then in
pixels and ``spacing_mm`` is ``None``: measurements are in pixels. How large a picture may be is a question of memory,
so Pillow's own limit for pictures from the web does not apply: files are opened by its classes, not by ``Image.open``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import MAX_SCAN_BYTES, check_memory, convert_read_errors
from medmaskrcnn.io.scan_info import ScanInfo
from medmaskrcnn.io.tiff import REDUCED, OpenTiff, TiffLayout, open_tiff
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.volume import Provenance, Volume

_COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"})
_EXIF_ORIENTATION = 0x0112
_PNG_COLOUR_TYPES = (2, 6)


def read_picture(path: Path, what: str) -> Volume:
    """Read a picture, or a TIFF stack whose pages become slices.

    Grey pictures keep their type (uint8, uint16, int32, float32); black and white becomes 0 and 255; everything
    else becomes RGB, 8 bits per channel, without transparency.

    Args:
        path: The file.
        what: ``"PNG"``, ``"TIFF"`` or ``"JPEG"``.

    Returns:
        A Volume of shape ``(1 or 3, pages, H, W)`` on a pixel grid.

    Raises:
        ReadError: if the file is damaged or cut short, or its pages differ in size or kind.
    """
    with convert_read_errors(path, what):
        if what == "TIFF" and (tiff := open_tiff(path)) is not None:
            with tiff:
                return _volume(path, tiff.layout(), tiff.pixels(tiff.layout()))
        with _opened(path, what) as image:
            notes = _notes(path, image)
            _check_pages(path, image)
            pages = [_pixels(page) for page in ImageSequence.Iterator(image)]
    array = np.stack(pages, axis=1)
    provenance = Provenance(what, (str(path),), notes=notes)
    kind: Any = "colour" if array.shape[0] == 3 else "scalar"
    return Volume(array, pixel_grid(array.shape[1:]), channel_kind=kind, provenance=provenance)


def read_label_picture(path: Path, what: str) -> Volume:
    """Read a picture whose pixels are labels: numbers of objects or classes, not colours.

    The indices of a palette are the labels (Pascal VOC). Of a grey map that was stored as RGB one channel is taken, and
    where only the transparency differs between pixels, that is the map.

    Args:
        path: The file.
        what: ``"PNG"`` or ``"TIFF"``; JPEG is refused, because its compression changes the numbers.

    Returns:
        A Volume of shape ``(1, pages, H, W)`` on a pixel grid.

    Raises:
        ReadError: as :func:`read_picture`, and if the map is a JPEG or in colours, or its numbers were cut to 8 bits.
    """
    if what == "JPEG":
        raise ReadError(
            f"{path} is a JPEG, whose lossy compression changes the numbers of labels. Save label maps as PNG or TIFF"
        )
    with convert_read_errors(path, what):
        if what == "TIFF" and (tiff := open_tiff(path)) is not None:
            with tiff:
                return _label_volume(path, tiff)
        with _opened(path, what) as image:
            notes = _notes(path, image)
            _check_pages(path, image)
            pages = [_label_pixels(path, page) for page in ImageSequence.Iterator(image)]
    if REDUCED in notes:
        raise ReadError(f"{path} holds 16-bit colours, of which 8 bits can be read. Save it as a grey 16-bit picture")
    array = np.stack(pages)[None]
    return Volume(array, pixel_grid(array.shape[1:]), provenance=Provenance(what, (str(path),), notes=notes))


def describe_picture(path: Path, what: str) -> ScanInfo:
    """Describe a picture from its header; arguments and errors as :func:`read_picture`."""
    with convert_read_errors(path, what):
        if what == "TIFF" and (tiff := open_tiff(path)) is not None:
            with tiff:
                return _describe_tiff(path, tiff.layout())
        with _opened(path, what) as image:
            n_pages = _check_pages(path, image)
            channels = 3 if image.mode in _COLOUR_MODES else 1
            shape = (channels, n_pages, image.height, image.width)
            notes = _notes(path, image)
    stack = f" stack of {n_pages}" if n_pages > 1 else " picture"
    return ScanInfo(
        path=str(path),
        format=what,
        kind=f"{'colour' if channels == 3 else 'grey'} {what}{stack}",
        shape=shape,
        segmentable=True,
        notes=(*notes, "Its scale is unknown; measurements are in pixels."),
    )


def _describe_tiff(path: Path, layout: TiffLayout) -> ScanInfo:
    channels, depth = layout.shape[:2]
    form = f"film of {depth} times" if layout.film else f"stack of {depth}" if depth > 1 else "picture"
    several = f" with {channels} channels" if layout.channel_kind == "unknown" else ""
    return ScanInfo(
        path=str(path),
        format="TIFF",
        kind=f"{'colour' if layout.channel_kind == 'colour' else 'grey'} TIFF {form}{several}",
        shape=layout.shape,
        spacing_mm=layout.grid.spacing_mm,
        segmentable=True,
        notes=layout.notes,
    )


def _volume(path: Path, layout: TiffLayout, array: NDArray[Any]) -> Volume:
    provenance = Provenance("TIFF", (str(path),), notes=layout.notes)
    return Volume(array, layout.grid, channel_kind=layout.channel_kind, provenance=provenance, film=layout.film)


def _label_volume(path: Path, tiff: OpenTiff) -> Volume:
    """A label map in TIFF: one channel of numbers, or three equal ones."""
    layout = tiff.layout()
    array = tiff.pixels(layout, as_labels=True)
    if layout.channel_kind == "colour" and len(array) == 3:
        if REDUCED in layout.notes:
            raise ReadError(f"{path} holds 16-bit colours, of which 8 bits are read. Save it as a grey 16-bit picture")
        array = np.stack([_grey_labels(path, np.moveaxis(page, 0, -1)) for page in np.moveaxis(array, 0, 1)])[None]
    return Volume(array, layout.grid, provenance=Provenance("TIFF", (str(path),), notes=layout.notes))


_CLASSES: dict[str, Callable[[Path], Image.Image]] = {"PNG": PngImageFile, "JPEG": JpegImageFile, "TIFF": TiffImageFile}


def _opened(path: Path, what: str) -> Image.Image:
    """A picture whose header was read.

    Raises:
        ReadError: if its kind is unknown to Pillow.
    """
    try:
        return _CLASSES[what](path)
    except (SyntaxError, KeyError) as error:
        raise ReadError(f"{path} is no {what} of a kind that can be read; it may be damaged ({error})") from error


def _check_pages(path: Path, image: Image.Image) -> int:
    """Number of pages; refuses pages that differ, as in the pyramid of a slide scanner."""
    n_pages = int(getattr(image, "n_frames", 1))
    first = (image.size, image.mode)
    if n_pages * image.width * image.height > MAX_SCAN_BYTES:
        raise ReadError(f"{path}: {n_pages} pages of {image.width} x {image.height} are too large to read")
    # decoded pages, and the array that they are copied into
    check_memory(path, 2 * n_pages * image.width * image.height * max(len(image.getbands()), 1))
    for i in range(1, n_pages):
        image.seek(i)
        if (image.size, image.mode) != first:
            raise ReadError(
                f"{path}: page {i + 1} is {image.width} x {image.height} {image.mode}, page 1 is "
                f"{first[0][0]} x {first[0][1]} {first[1]}. Save the pages as separate files"
            )
    image.seek(0)
    return n_pages


def _pixels(page: Image.Image) -> NDArray[Any]:
    """One page as ``(1, H, W)`` or ``(3, H, W)``."""
    if page.mode in _COLOUR_MODES:
        return np.ascontiguousarray(np.moveaxis(np.asarray(page.convert("RGB")), -1, 0))
    if page.mode in ("1", "LA", "La"):
        page = page.convert("L")
    pixels = np.asarray(page)
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))[None]


def _label_pixels(path: Path, page: Image.Image) -> NDArray[Any]:
    """Labels of one page, ``(H, W)``."""
    if page.mode in ("P", "PA"):
        return np.array(page if page.mode == "P" else page.getchannel("P"))
    if page.mode not in _COLOUR_MODES:
        return _pixels(page)[0]
    return _grey_labels(path, np.asarray(page.convert("RGBA")))


def _grey_labels(path: Path, colours: NDArray[Any]) -> NDArray[Any]:
    """Labels ``(H, W)`` of a grey map that was stored in colours, ``(H, W, 3 or 4)``."""
    red, *others = np.moveaxis(colours, -1, 0)
    alpha = others.pop() if len(others) == 3 else np.zeros_like(red)
    if all(np.array_equal(red, other) for other in others):
        only_alpha = red.size and (red == red.flat[0]).all() and (alpha != alpha.flat[0]).any()
        return np.ascontiguousarray(alpha if only_alpha else red)
    distinct = len(np.unique(colours[..., :3].reshape(-1, 3), axis=0))
    raise ReadError(
        f"{path} is a picture of {distinct} colours, not a label map. Save one number for each object or class: "
        "as grey values, or as the indices of a palette"
    )


def _notes(path: Path, image: Image.Image) -> tuple[str, ...]:
    notes = []
    if image.mode in ("RGBA", "LA", "PA", "La"):
        notes.append("The picture's transparency is left out.")
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        notes.append("The picture asks to be turned on display (EXIF); it is read as stored.")
    if image.format == "PNG":
        with path.open("rb") as stream:
            depth, colour_type = struct.unpack("2B", stream.read(26)[24:26])
        if depth == 16 and colour_type in _PNG_COLOUR_TYPES:
            notes.append(REDUCED)
    return tuple(notes)
