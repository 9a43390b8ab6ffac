"""Reads NIfTI-1 and NIfTI-2 (.nii, .nii.gz, .hdr/.img pairs) as a Volume.

In a NIfTI array x varies fastest, then y, z and time, and nibabel returns it as ``(x, y, z, t)``. Its transpose
``(t, z, y, x)`` is our ``(C, D, H, W)`` without moving a voxel; the affine's columns are permuted accordingly.
Header fields: nifti1.h (https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h).
"""

from __future__ import annotations

import gzip
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import MAX_DEFLATE_RATIO, check_claimed_size, check_memory, checked_grid, convert_read_errors
from medmaskrcnn.io.scan_info import ScanInfo, oblique_note, orientation_words
from medmaskrcnn.io.values import float_type, rescale
from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, ChannelKind, Provenance, Volume

_MM_PER_UNIT = {1: 1000.0, 3: 1e-3}  # xyzt_units: 1 metre, 2 mm, 3 micrometre; 0, unknown, is taken as mm
_RGB_VECTOR_INTENT = 2003
_DISAGREEMENT_MM = 0.1
_CHUNK = 1 << 20
_TAIL_BYTES = 1 << 26
_EXTENSION_LIMIT = 1 << 20
_NIFTI2_MARKS = (b"n+2\0", b"ni2\0")
_LABEL = re.compile(r'<Label\s[^<>]*?Key="(\d{1,9})"[^<>]*>\s*(?:<!\[CDATA\[)?([^<>\]]*)')


@dataclass(frozen=True)
class _Layout:
    """The checked content of a NIfTI header."""

    shape: tuple[int, int, int, int]  # C, D, H, W
    channel_kind: ChannelKind
    grid: Grid
    notes: tuple[str, ...]
    generator: str | None


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file.

    Integers stay integers if slope and intercept are whole numbers. Units other than mm are converted in the
    affine. The file's sform is used if it is set, else its qform, as nibabel does; a disagreement is noted.

    Raises:
        ReadError: if the file is damaged, cut short, claims more voxels than it holds, has a zero, NaN or singular
            affine, more than four extents, or complex values.
    """
    with convert_read_errors(path, "NIfTI"):
        header = _raw_header(path)
        layout = _layout(path, header)
        slope, intercept = header.get_slope_inter()
        scaling = 1.0 if slope is None else float(slope), float(intercept or 0.0)
        check_memory(path, _peak_bytes(header, scaling))
        array = rescale(_channels_first(_stored(path, header), layout), *scaling)
    provenance = Provenance("NIfTI", (str(path),), generator=layout.generator, notes=layout.notes)
    return Volume(array, layout.grid, channel_kind=layout.channel_kind, provenance=provenance)


def describe_nifti(path: Path) -> ScanInfo:
    """Describe a NIfTI file from its header alone.

    Raises:
        ReadError: as :func:`read_nifti`, as far as the header shows it.
    """
    with convert_read_errors(path, "NIfTI"):
        layout = _layout(path, _raw_header(path))
    return ScanInfo(
        path=str(path),
        format="NIfTI",
        kind="NIfTI image",
        shape=layout.shape,
        spacing_mm=layout.grid.spacing_mm,
        orientation=orientation_words(layout.grid),
        segmentable=True,
        notes=layout.notes + oblique_note(layout.grid),
    )


def nifti_label_names(path: Path) -> dict[int, str]:
    """Names of labels by value that a label map states in its header extension, as TotalSegmentator and Workbench do.

    The extension is a text of Caret's label table: ``<Label Key="1" ...><![CDATA[spleen]]></Label>``. A file without
    one, or with another text, has no names.
    """
    header_file = path.with_suffix(".hdr") if path.suffix.lower() == ".img" else path
    with convert_read_errors(path, "NIfTI"), _open(header_file) as stream:
        head = stream.read(_EXTENSION_LIMIT)
        size = Nifti2Header.template_dtype.itemsize if head[4:8] in _NIFTI2_MARKS else Nifti1Header.sizeof_hdr
        offset = int(float(_raw_header(path)["vox_offset"])) or len(head)
    text = head[size:offset].decode("utf-8", "replace")
    return {int(key): name.strip() for key, name in _LABEL.findall(text) if name.strip() and int(key)}


def _raw_header(path: Path) -> Nifti1Header:
    """The header as it is in the file; nibabel's own loading would silently change a zero spacing to 1 mm."""
    header_file = path.with_suffix(".hdr") if path.suffix.lower() == ".img" else path
    with _open(header_file) as stream:
        block = stream.read(Nifti2Header.template_dtype.itemsize)
    for kind in (Nifti1Header, Nifti2Header):
        if kind.may_contain_header(block):
            if len(block) < kind.template_dtype.itemsize:
                break
            return kind(block[: kind.template_dtype.itemsize], check=False)
    raise ReadError(f"{path} is not NIfTI: its header is cut short or of another format. Convert it again")


def _peak_bytes(header: Nifti1Header, scaling: tuple[float, float]) -> int:
    """Memory that reading takes: the stored voxels, and those made from them where they are scaled or in colour."""
    dtype = header.get_data_dtype()
    n_voxels = math.prod(_extents(header))
    made = 3 if dtype.names else 0 if scaling == (1.0, 0.0) else float_type(dtype).itemsize
    return n_voxels * (int(dtype.itemsize) + made)


def _data_place(path: Path, header: Nifti1Header) -> tuple[Path, int]:
    """The file with the voxels, and their offset in it (after decompression)."""
    offset = float(header["vox_offset"])
    data_file = path.with_suffix(".img") if path.suffix.lower() == ".hdr" else path
    if not 0 <= offset < 2**40:
        raise ReadError(f"{path}: the header says that voxels begin at byte {offset:g}; it is damaged. Copy it again")
    return data_file, int(offset)


def _stored(path: Path, header: Nifti1Header) -> NDArray[Any]:
    """The voxels as stored, ``(x, y, z, ...)``; a compressed file is read to its end to verify its checksum."""
    data_file, offset = _data_place(path, header)
    flat = np.empty(int(np.prod([int(n) for n in _extents(header)])), dtype=header.get_data_dtype())
    with _open(data_file) as stream:
        stream.seek(offset)
        n_read = _fill(stream, flat)
        if n_read != flat.nbytes:
            raise ReadError(f"{path} is cut short: {n_read} of {flat.nbytes} bytes of voxels are there. Copy it again")
        if _is_gzip(data_file):
            _read_to_end(path, stream, max(_TAIL_BYTES, flat.nbytes))
    if not flat.dtype.isnative and not flat.dtype.names:
        flat = flat.byteswap(inplace=True).view(flat.dtype.newbyteorder("="))
    return flat.reshape(_extents(header), order="F")


def _fill(stream: Any, flat: NDArray[Any]) -> int:
    """Read into an array, a piece at a time: gzip would hold all of it a second time. Returns the bytes read."""
    view = flat.view(np.uint8).data
    done = 0
    while done < len(view):
        n_read = stream.readinto(view[done : done + _CHUNK])
        if not n_read:
            break
        done += n_read
    return done


def _read_to_end(path: Path, stream: Any, most: int) -> None:
    """Read what follows the voxels, so that gzip compares its checksum; bounded, for it may unpack without end."""
    left = most
    while chunk := stream.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise ReadError(f"{path}: more follows its voxels than they take themselves; the header does not fit them")


def _extents(header: Nifti1Header) -> list[int]:
    return [int(n) for n in header["dim"][1 : int(header["dim"][0]) + 1]]


def _open(path: Path) -> Any:
    """A binary stream of the file's content, decompressed if necessary, whatever the file's name."""
    return gzip.open(path) if _is_gzip(path) else path.open("rb")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _layout(path: Path, header: Nifti1Header) -> _Layout:
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise ReadError(f"{path}: the header announces {n_axes} axes; NIfTI has 1 to 7. The file is damaged")
    extents = _extents(header)
    dtype = header.get_data_dtype()
    data_file, offset = _data_place(path, header)
    packed = _is_gzip(data_file)
    stored = max(data_file.stat().st_size - (0 if packed else offset), 0)
    if offset > stored * MAX_DEFLATE_RATIO:
        raise ReadError(f"{path}: the header says that voxels begin at byte {offset}, after the end of the file")
    check_claimed_size(path, extents, dtype.itemsize, stored_bytes=stored, packed=packed)
    shape, kind = _axes(path, extents, dtype, int(header["intent_code"]))
    affine, notes = _affine(path, header, extents)
    described = bytes(header["descrip"]).decode("latin-1")
    return _Layout(
        shape=shape,
        channel_kind=kind,
        grid=checked_grid(path, shape[1:], affine[:, [2, 1, 0, 3]]),
        notes=tuple(notes),
        generator=PHANTOM_GENERATOR if PHANTOM_GENERATOR in described else None,
    )


def _axes(
    path: Path, extents: list[int], dtype: np.dtype[Any], intent: int
) -> tuple[tuple[int, int, int, int], ChannelKind]:
    """Extents C, D, H, W and the meaning of C, from dim[] and the data type."""
    x, y, z, *more = [*extents, 1, 1, 1][: max(3, len(extents))]
    channels = [n for n in more if n > 1]
    if dtype.names:
        if channels:
            raise ReadError(f"{path}: a colour image with a fourth axis {tuple(extents)}; split it into single images")
        return (3, z, y, x), "colour"
    if dtype.kind not in "iuf":
        raise ReadError(f"{path}: the voxels are of type {dtype}; real numbers are needed. Save magnitudes instead")
    if len(channels) > 1:
        raise ReadError(f"{path}: {len(extents)} axes {tuple(extents)}; at most four can be read. Split the file")
    if not channels:
        return (1, z, y, x), "scalar"
    return (channels[0], z, y, x), "colour" if intent == _RGB_VECTOR_INTENT and channels[0] == 3 else "unknown"


def _affine(path: Path, header: Nifti1Header, extents: list[int]) -> tuple[FloatArray, list[str]]:
    """x, y, z index to R, A, S in mm, by nifti1.h's methods 3 (sform), 2 (qform) and 1 (pixel sizes alone)."""
    notes = []
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    sizes_valid = bool(np.isfinite(sizes).all() and (sizes[: len(extents)] != 0).all())
    if not has_sform and not sizes_valid:
        raise ReadError(f"{path}: the affine is zero or not a number: voxel sizes {sizes.tolist()}. Convert it again")
    qform = _qform(header) if has_qform and sizes_valid else None
    if has_sform:
        affine = np.asarray(header.get_sform(), dtype=np.float64)
        if qform is not None and (moved := _disagreement_mm(affine, qform, extents)) > _DISAGREEMENT_MM:
            notes.append(f"sform and qform disagree by up to {moved:.1f} mm; the sform is used.")
    elif qform is not None:
        affine = qform
    else:
        affine = np.asarray(header.get_base_affine(), dtype=np.float64)
        notes.append("The file gives voxel sizes but no orientation; left and right are not known for certain.")
    factor = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    if factor != 1.0:
        affine = np.diag([factor, factor, factor, 1.0]) @ affine
        notes.append("Lengths in the file are not in mm; they were converted.")
    return affine, notes


def _qform(header: Nifti1Header) -> FloatArray | None:
    """The qform; ``None`` if its quaternion is not a rotation."""
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):
        return None


def _disagreement_mm(a: FloatArray, b: FloatArray, extents: list[int]) -> float:
    """Largest distance between the positions of the volume's corners by two affines, in mm."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    last = np.array([n - 1 for n in [*extents, 1, 1][:3]])
    corners = np.array(list(np.ndindex(2, 2, 2))) * last
    difference = corners @ (a - b)[:3, :3].T + (a - b)[:3, 3]
    return float(np.linalg.norm(difference, axis=1).max())


def _channels_first(stored: NDArray[Any], layout: _Layout) -> NDArray[Any]:
    """``(x, y, z, t)`` as nibabel gives it to ``(C, D, H, W)``, contiguous, in the machine's byte order."""
    if stored.dtype.names:
        stored = np.stack([stored[name] for name in ("R", "G", "B")], axis=-1)
    array = stored.T.reshape(layout.shape)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
