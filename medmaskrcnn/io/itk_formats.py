"""Reads NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd) files through SimpleITK, which runs in a process of its own.

SimpleITK returns ``(z, y, x)`` arrays, components last, and geometry in L, P, S. Its readers fill in what a header
lacks (spacing 1, identity directions) and trust what it says, so the header's text is read and checked first: what it
does not state stays unknown, and what it cannot mean is refused.
Formats: https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import check_memory, checked_grid, convert_read_errors
from medmaskrcnn.io.itk_process import ItkImage, read_with_itk
from medmaskrcnn.io.scan_info import ScanInfo, oblique_note, orientation_words
from medmaskrcnn.io.text_headers import read_text_header
from medmaskrcnn.io.tiff import MM_PER_UNIT
from medmaskrcnn.io.values import rescale
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid, pixel_grid
from medmaskrcnn.structures.volume import ChannelKind, Provenance, Volume

_SIZE_KEYS = {"NRRD": ("spacings", "space directions"), "MetaImage": ("elementspacing", "elementsize")}


@dataclass(frozen=True)
class _Layout:
    shape: tuple[int, int, int, int]  # C, D, H, W
    channel_kind: ChannelKind
    grid: Grid
    notes: tuple[str, ...]


def read_itk(path: Path, what: str) -> Volume:
    """Read an NRRD or MetaImage file.

    Args:
        path: The header file (.nhdr, .mhd) or the file that holds both (.nrrd, .mha).
        what: ``"NRRD"`` or ``"MetaImage"``.

    Raises:
        ReadError: if the file is damaged, cut short, claims more voxels than it holds, or its geometry is unusable.
    """
    with convert_read_errors(path, what):
        header = read_text_header(path, what)
        check_memory(path, 2 * header.claimed_bytes)  # in the process that reads, and in this one
        image, array = read_with_itk(path, voxels=True, n_bytes=header.claimed_bytes)
        layout = _layout(path, what, image, header.fields)
        assert array is not None, "voxels were asked for, and complex ones are refused"
        if image.components > 1:
            array = np.moveaxis(array, -1, 0)
        array = rescale(np.ascontiguousarray(array.reshape(layout.shape)), 1.0, 0.0)
    provenance = Provenance(what, (str(path),), notes=layout.notes)
    return Volume(array, layout.grid, channel_kind=layout.channel_kind, provenance=provenance)


def describe_itk(path: Path, what: str) -> ScanInfo:
    """Describe an NRRD or MetaImage file from its header alone; arguments and errors as :func:`read_itk`."""
    with convert_read_errors(path, what):
        header = read_text_header(path, what)
        layout = _layout(path, what, read_with_itk(path, voxels=False)[0], header.fields)
    return ScanInfo(
        path=str(path),
        format=what,
        kind=f"{what} image",
        shape=layout.shape,
        spacing_mm=layout.grid.spacing_mm,
        orientation=orientation_words(layout.grid),
        segmentable=True,
        notes=layout.notes + oblique_note(layout.grid),
    )


def _layout(path: Path, what: str, image: ItkImage, fields: dict[str, str]) -> _Layout:
    extents, components = image.extents, image.components
    if len(extents) > 4 or (len(extents) == 4 and components > 1 and extents[3] > 1):
        raise ReadError(f"{path}: {len(extents)} axes {tuple(extents)} of {components} components; split the file")
    if image.is_complex:
        raise ReadError(f"{path}: the voxels are complex numbers; real ones are needed. Save magnitudes instead")
    x, y, z, t = [*extents, 1, 1][:4]
    channels = components * t
    kind: ChannelKind = "scalar" if channels == 1 else "colour" if components == 3 and image.is_byte else "unknown"
    grid, notes = _grid(path, what, image, fields, (z, y, x))
    return _Layout((channels, z, y, x), kind, grid, tuple(notes))


def _grid(
    path: Path, what: str, image: ItkImage, fields: dict[str, str], shape: tuple[int, int, int]
) -> tuple[Grid, list[str]]:
    """Spacing, directions and origin (LPS) to an affine in RAS with columns D, H, W."""
    n = len(image.extents)
    if not any(k in fields for k in _SIZE_KEYS[what]) or (n == 2 and shape[0] == 1):
        why = "a single picture without slice thickness" if n == 2 else "a header without voxel sizes"
        return pixel_grid(shape), [f"The file is {why}; measurements are in pixels."]
    direction = np.asarray(image.direction).reshape(n, n)[:3, :3]
    affine: FloatArray = np.eye(4)
    affine[:3, :3] = (direction * np.asarray(image.spacing)[:3])[:, ::-1]
    affine[:3, 3] = np.asarray(image.origin)[:3]
    notes = []
    if what == "NRRD" and (factor := _mm_per_unit(fields)) != 1.0:
        affine = np.diag([factor, factor, factor, 1.0]) @ affine
        notes.append("Lengths in the file are not in mm; they were converted.")
    if what == "NRRD" and "space" not in fields:
        notes.append("The header names no space; its axes are taken as running to the patient's left, back and up.")
    return checked_grid(path, shape, LPS_FROM_RAS @ affine), notes


def _mm_per_unit(fields: dict[str, str]) -> float:
    """Length in mm of the unit that a NRRD header states for its axes or its space, which ITK ignores; 1 if none."""
    named = re.findall(r'"([^"]*)"', fields.get("space units") or fields.get("units") or "")
    factors = {MM_PER_UNIT[unit] for unit in named if unit in MM_PER_UNIT}
    return factors.pop() if len(factors) == 1 else 1.0
