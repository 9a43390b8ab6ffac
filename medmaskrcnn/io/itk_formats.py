"""Reads NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd) files through SimpleITK.

SimpleITK returns ``(z, y, x)`` arrays, components last, and geometry in L, P, S. Its readers fill in what a header
lacks (spacing 1, identity directions), so the header's text is read too: what it does not state stays unknown.
Formats: https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import check_claimed_size, checked_grid, convert_read_errors
from medmaskrcnn.io.scan_info import ScanInfo, oblique_note, orientation_words
from medmaskrcnn.io.values import rescale
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid, pixel_grid
from medmaskrcnn.structures.volume import ChannelKind, Provenance, Volume

_HEADER_LIMIT = 1 << 20
_SIZE_KEYS = {"NRRD": ("spacings", "space directions"), "MetaImage": ("elementspacing", "elementsize")}
_DATA_KEYS = {"NRRD": ("data file", "datafile"), "MetaImage": ("elementdatafile",)}


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
        reader, layout = _open(path, what)
        image = reader.Execute()
        array = sitk.GetArrayFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            array = np.moveaxis(array, -1, 0)
        array = np.ascontiguousarray(array.reshape(layout.shape))
        array = rescale(array, 1.0, 0.0)
    provenance = Provenance(what, (str(path),), notes=layout.notes)
    return Volume(array, layout.grid, channel_kind=layout.channel_kind, provenance=provenance)


def describe_itk(path: Path, what: str) -> ScanInfo:
    """Describe an NRRD or MetaImage file from its header alone; arguments and errors as :func:`read_itk`."""
    with convert_read_errors(path, what):
        _, layout = _open(path, what)
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


def _open(path: Path, what: str) -> tuple[sitk.ImageFileReader, _Layout]:
    fields, data_start = _text_header(path, what)
    _check_data(path, what, fields, data_start)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader, _layout(path, what, reader, fields)


def _text_header(path: Path, what: str) -> tuple[dict[str, str], int]:
    """Fields of the text header by lower-case name, and the position of its end in the file."""
    with path.open("rb") as stream:
        block = stream.read(_HEADER_LIMIT)
    fields: dict[str, str] = {}
    position = 0
    for raw in block.splitlines(keepends=True):
        position += len(raw)
        line = raw.decode("latin-1").strip()
        if what == "NRRD" and not line:
            break
        separator = ":" if what == "NRRD" else "="
        if separator in line and not line.startswith("#"):
            name, value = line.split(separator, 1)
            fields[name.strip().lower()] = value.lstrip("=").strip()
            if what == "MetaImage" and name.strip().lower() == "elementdatafile":
                break
    return fields, position


def _check_data(path: Path, what: str, fields: dict[str, str], data_start: int) -> None:
    """Compare the extents that the header claims with the bytes in the file."""
    sizes = [int(n) for n in fields["sizes" if what == "NRRD" else "dimsize"].split()]
    file_name = next((fields[k] for k in _DATA_KEYS[what] if k in fields), "LOCAL")
    if file_name.upper().startswith("LIST") or "%" in file_name:
        return  # one file per slice: SimpleITK detects missing ones
    inside = file_name.upper() == "LOCAL"
    data_file = path if inside else path.parent / file_name
    if not data_file.is_file():
        raise ReadError(f"{path}: its voxels lie in {data_file}, which does not exist. Copy both files")
    stored = data_file.stat().st_size - (data_start if inside else 0)
    if what == "NRRD":
        packed = fields.get("encoding", "raw").lower() not in ("raw", "txt", "text", "ascii", "hex")
        item = _NRRD_BYTES.get(fields.get("type", "").lower(), 1)
    else:
        packed = fields.get("compresseddata", "").lower() == "true"
        item = _META_BYTES.get(fields.get("elementtype", "").upper(), 1) * int(fields.get("elementnumberofchannels", 1))
    if (
        fields.get("encoding", "").lower() in ("txt", "text", "ascii")
        or fields.get("binarydata", "").lower() == "false"
    ):
        item = 1  # numbers as text: at least one digit each
    check_claimed_size(path, sizes, item, stored_bytes=stored, packed=packed)


_NRRD_BYTES = {
    **dict.fromkeys(
        ("short", "short int", "signed short", "int16", "int16_t", "ushort", "unsigned short", "uint16", "uint16_t"), 2
    ),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "ulonglong", "uint64", "uint64_t", "double"), 8),
}
_META_BYTES = {
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
}


def _layout(path: Path, what: str, reader: sitk.ImageFileReader, fields: dict[str, str]) -> _Layout:
    extents = [int(n) for n in reader.GetSize()]
    components = int(reader.GetNumberOfComponents())
    if len(extents) > 4 or (len(extents) == 4 and components > 1 and extents[3] > 1):
        raise ReadError(f"{path}: {len(extents)} axes {tuple(extents)} of {components} components; split the file")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise ReadError(f"{path}: the voxels are complex numbers; real ones are needed. Save magnitudes instead")
    x, y, z, t = [*extents, 1, 1][:4]
    channels = components * t
    is_byte = reader.GetPixelID() in (sitk.sitkVectorUInt8, sitk.sitkUInt8)
    kind: ChannelKind = "scalar" if channels == 1 else "colour" if components == 3 and is_byte else "unknown"
    grid, notes = _grid(path, what, reader, fields, (z, y, x))
    return _Layout((channels, z, y, x), kind, grid, tuple(notes))


def _grid(
    path: Path, what: str, reader: sitk.ImageFileReader, fields: dict[str, str], shape: tuple[int, int, int]
) -> tuple[Grid, list[str]]:
    """Spacing, directions and origin (LPS) to an affine in RAS with columns D, H, W."""
    n = reader.GetDimension()
    if not any(k in fields for k in _SIZE_KEYS[what]) or (n == 2 and shape[0] == 1):
        why = "a single picture without slice thickness" if n == 2 else "a header without voxel sizes"
        return pixel_grid(shape), [f"The file is {why}; measurements are in pixels."]
    direction = np.asarray(reader.GetDirection()).reshape(n, n)[:3, :3]
    affine: FloatArray = np.eye(4)
    affine[:3, :3] = (direction * np.asarray(reader.GetSpacing())[:3])[:, ::-1]
    affine[:3, 3] = np.asarray(reader.GetOrigin())[:3]
    notes = []
    if what == "NRRD" and "space" not in fields:
        notes.append("The header names no space; its axes are taken as running to the patient's left, back and up.")
    return checked_grid(path, shape, LPS_FROM_RAS @ affine), notes
