"""Saves and loads a CaseResult as ``instances.npz``, from which every other export is made.

One zip of plain numpy arrays, readable with ``numpy.load(path, allow_pickle=False)``:

=============== ========== ======================================================================
entry           dtype      meaning
=============== ========== ======================================================================
``header``      uint8      UTF-8 JSON: format, version, class names, threshold, measurements, record
``grid_shape``  int64 (3)  voxels along D, H, W
``affine``      float64    (4, 4), voxel index D, H, W to R, A, S in mm
``labels``      int64 (N)  index into the class names
``scores``      float32    (N), descending
``boxes``       float32    (N, 6) detection boxes, voxel coordinates, minima D, H, W, then maxima
``mask_starts`` int64      (N, 3) voxel index of each mask crop's first voxel
``mask_shapes`` int64      (N, 3) extent of each mask crop
``mask_bits``   uint8      the crops one after the other, each through ``numpy.packbits``
``removed``     uint8 (N)  why a candidate is not in the result, :class:`~.instances.Removal`
=============== ========== ======================================================================

``removed`` is there only if a candidate was removed; without it none was.

What varies from run to run (:attr:`CaseResult.run`) is left out and zip entries have a fixed date, so that repeated
runs give identical bytes. Reading checks every declared size before anything is unpacked.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmaskrcnn.errors import ReadError
from medmaskrcnn.structures.case_result import CaseResult, Measurement, Review, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray, Mask, corners
from medmaskrcnn.system.files import replacing

FORMAT = "medmaskrcnn case"
RESULT_FILE, RUN_FILE = "instances.npz", "run.json"
"""Names of the result and of what varies from run to run, in the folder of a result."""
VERSION = 1
MAX_INSTANCES = 1_000_000
MAX_HEADER_BYTES = 1 << 28
MAX_MASK_VOXELS = 1 << 33
"""Maximum number of voxels of all mask crops together that :func:`load_case` unpacks by default: 8 GiB of memory."""

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_ROWS: dict[str, tuple[str, tuple[int, ...]]] = {
    "labels": ("<i8", ()),
    "scores": ("<f4", ()),
    "boxes": ("<f4", (6,)),
    "mask_starts": ("<i8", (3,)),
    "mask_shapes": ("<i8", (3,)),
}
_ENTRIES = ("header", "grid_shape", "affine", *_ROWS, "mask_bits")
_REMOVED = "removed"


@dataclass(frozen=True)
class _Header:
    """The JSON part of the file."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: str
    version: int
    class_names: tuple[str, ...]
    spacing_known: bool
    score_threshold: float
    measurements: tuple[Measurement, ...]
    record: RunRecord
    review: Review | None = None


_HEADER = TypeAdapter(_Header)
MEASUREMENT = TypeAdapter(Measurement)
"""Names of the measurements in files and messages."""


def save_case(result: CaseResult, path: str | os.PathLike[str]) -> None:
    """Save a result without loss: all candidates with their overlaps, but not :attr:`CaseResult.run`.

    The file is written atomically. Settings and source of the record are stored as JSON: tuples in them become lists.

    Args:
        result: The result.
        path: File to write, ``instances.npz`` by convention; an existing one is replaced.

    Raises:
        OutputError: if the file cannot be written.
        TypeError: if the record's settings or source are not JSON-serialisable.
    """
    target = Path(path)
    arrays = _arrays(result)
    with replacing(target) as temporary, temporary.open("xb") as stream:
        _write_zip(stream, arrays)


def load_case(path: str | os.PathLike[str], *, max_mask_voxels: int = MAX_MASK_VOXELS) -> CaseResult:
    """Load a result written by :func:`save_case`.

    Args:
        path: The file, or the folder that ``segment`` or a batch wrote it into. Of a folder the result's ``run``
            (times, host, files of the scan) comes too, if ``run.json`` is there; of a file it is empty.
        max_mask_voxels: Refuse files whose mask crops have more voxels in total (one byte of memory each).

    Raises:
        ReadError: if the file is missing, damaged, of another kind, of a newer version, or too large.
    """
    source = Path(path)
    if source.is_dir():
        if not (source / RESULT_FILE).is_file():
            raise ReadError(f"{source} is no result: it holds no {RESULT_FILE}")
        found = load_case(source / RESULT_FILE, max_mask_voxels=max_mask_voxels)
        return replace(found, run=_run_of(source / RUN_FILE))
    try:
        with zipfile.ZipFile(source) as archive:
            return _read_case(archive, source, max_mask_voxels)
    except ReadError:
        raise
    except FileNotFoundError as error:
        raise ReadError(f"there is no file {source}") from error
    except OSError as error:
        raise ReadError(f"cannot read {source}: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise ReadError(f"{source} is not a medmaskrcnn result or is damaged: {error}") from error
    except Exception as error:  # zlib.error, EOFError, NotImplementedError, ...: anything a damaged zip raises
        raise ReadError(f"{source} is damaged: {error}") from error


def _run_of(path: Path) -> dict[str, Any]:
    """What ``run.json`` says about the run; empty if it is not there or cannot be read, since nothing depends on it."""
    try:
        run = json.loads(path.read_text(encoding="utf-8")).get("run")
    except (OSError, ValueError, AttributeError):
        return {}
    return run if isinstance(run, dict) else {}


def _arrays(result: CaseResult) -> dict[str, NDArray[Any]]:
    found = result.candidates
    header = {
        "format": FORMAT,
        "version": VERSION,
        "class_names": list(found.class_names),
        "spacing_known": found.grid.spacing_known,
        "score_threshold": float(result.score_threshold),
        "measurements": [MEASUREMENT.dump_python(m, by_alias=True) for m in result.measurements],
        "record": asdict(result.record),
    }
    if result.review is not None:
        header["review"] = asdict(result.review)
    text = json.dumps(header, sort_keys=True, default=_plain)
    bits = [np.packbits(mask.array, axis=None) for mask in found.masks]
    starts, ends = corners(found.masks)
    arrays = {
        "header": np.frombuffer(text.encode("ascii"), np.uint8),
        "grid_shape": np.asarray(found.grid.shape, "<i8"),
        "affine": found.grid.affine_vox_to_ras.astype("<f8"),
        "labels": found.labels.astype("<i8"),
        "scores": found.scores.astype("<f4"),
        "boxes": found.boxes.astype("<f4"),
        "mask_starts": starts.astype("<i8"),
        "mask_shapes": (ends - starts).astype("<i8"),
        "mask_bits": np.concatenate(bits) if bits else np.zeros(0, np.uint8),
    }
    return {**arrays, _REMOVED: found.removed} if found.removed.any() else arrays


def _plain(value: object) -> object:
    """Convert numpy numbers to Python's for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a run record must hold JSON values, got {type(value).__name__}: {value!r}")


def _write_zip(stream: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # the same bytes on every system
            info.external_attr = 0o644 << 16
            info.file_size = array.nbytes + 4096  # an upper bound, which decides on zip64 before writing
            with archive.open(info, "w") as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), (1, 0), allow_pickle=False)


def _read_case(archive: zipfile.ZipFile, source: Path, max_mask_voxels: int) -> CaseResult:
    names = sorted(info.filename for info in archive.infolist())
    if "header.npy" not in names:
        raise ReadError(f"{source} is not a medmaskrcnn result: it has no header")
    header = _read_header(archive, source)
    entries = (*_ENTRIES, _REMOVED) if f"{_REMOVED}.npy" in names else _ENTRIES
    if names != sorted(f"{name}.npy" for name in entries):
        raise ReadError(f"{source} is damaged: it should hold {', '.join(entries)}, got {', '.join(names)}")
    grid_shape = _read_array(archive, "grid_shape", "<i8", (3,))
    affine = _read_array(archive, "affine", "<f8", (4, 4))
    d, h, w = (int(extent) for extent in grid_shape)
    grid = Grid((d, h, w), affine, spacing_known=header.spacing_known)
    n = len(header.measurements)
    if n > MAX_INSTANCES:
        raise ReadError(f"{source} claims {n} instances, more than the {MAX_INSTANCES} allowed")
    rows = {name: _read_array(archive, name, dtype, (n, *tail)) for name, (dtype, tail) in _ROWS.items()}
    crops = _read_crops(archive, source, rows.pop("mask_shapes"), grid.shape, max_mask_voxels)
    masks = tuple(map(Mask, rows.pop("mask_starts"), crops))
    if _REMOVED in entries:
        rows[_REMOVED] = _read_array(archive, _REMOVED, "|u1", (n,))
    found = Instances(grid=grid, class_names=header.class_names, masks=masks, **rows)
    return CaseResult(found, header.score_threshold, header.measurements, header.record, review=header.review)


def _read_header(archive: zipfile.ZipFile, source: Path) -> _Header:
    size = archive.getinfo("header.npy").file_size
    if size > MAX_HEADER_BYTES:
        raise ReadError(f"{source} claims a header of {size} bytes, more than the {MAX_HEADER_BYTES} allowed")
    text = _read_array(archive, "header", "|u1", None).tobytes()
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ReadError(f"{source} is not a medmaskrcnn result: its header does not say {FORMAT!r}")
    if found.get("version") != VERSION:
        raise ReadError(
            f"{source} has format version {found.get('version')}, this software reads {VERSION}. "
            "It may have been written by a newer medmaskrcnn: upgrade with pip install -U medmaskrcnn."
        )
    try:
        return _HEADER.validate_json(text)
    except ValidationError as error:
        raise ReadError(f"the header of {source} is damaged: {error}") from error


def _read_array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...] | None) -> NDArray[Any]:
    """Read one entry after checking its declared type, shape (``None``: 1D of any length) and size."""
    with archive.open(f"{name}.npy") as entry:
        version = np.lib.format.read_magic(entry)
        if version != (1, 0):
            raise ValueError(f"entry {name} has numpy format {version}")
        got_shape, fortran, got_dtype = np.lib.format.read_array_header_1_0(entry)
        n_bytes = archive.getinfo(f"{name}.npy").file_size - entry.tell()
        expected = (n_bytes,) if shape is None else shape
        if got_dtype.str != dtype or fortran or got_shape != expected:
            raise ValueError(f"entry {name} must be {dtype} {expected}, got {got_dtype.str} {got_shape}")
        if n_bytes != int(np.prod(expected, dtype=np.int64)) * got_dtype.itemsize:
            raise ValueError(f"entry {name} {expected} cannot have {n_bytes} bytes")
        return np.frombuffer(bytearray(entry.read()), dtype).reshape(expected)


def _read_crops(
    archive: zipfile.ZipFile, source: Path, shapes: NDArray[np.int64], grid_shape: tuple[int, int, int], limit: int
) -> tuple[BoolArray, ...]:
    if (shapes < 0).any() or (shapes > np.asarray(grid_shape)).any():
        raise ValueError(f"mask shapes leave the grid {grid_shape}")
    voxels = [int(d) * int(h) * int(w) for d, h, w in shapes]
    if sum(voxels) > limit:
        raise ReadError(
            f"{source} claims masks of {sum(voxels)} voxels, more than the {limit} allowed. "
            "If you trust the file, raise max_mask_voxels."
        )
    lengths = [(v + 7) // 8 for v in voxels]
    bits = _read_array(archive, "mask_bits", "|u1", (sum(lengths),))
    ends = np.cumsum([0, *lengths])
    return tuple(
        np.unpackbits(bits[a:b], count=v).view(np.bool_).reshape(tuple(int(s) for s in shape))
        for a, b, v, shape in zip(ends[:-1], ends[1:], voxels, shapes, strict=True)
    )
