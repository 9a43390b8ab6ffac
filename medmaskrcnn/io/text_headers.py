"""Reads the text headers of NRRD and MetaImage, and refuses whatever their own readers would trust.

ITK takes extents, counts and file names from a header as they are: a hundred bytes made it end the process, read any
file as voxels, or wait for ever. Here every number that decides on memory is bounded, a key that is given twice is
refused (two readers may take different ones), and the files with the voxels must be plain files below the header's own
folder. Formats: https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.io.guard import check_claimed_size
from medmaskrcnn.system.paths import path_below

_LONGEST_HEADER = 1 << 22
_LONGEST_LINE = 1 << 16
_MOST_AXES = 5
_MOST_FILES = 100_000

_NRRD_NAMES = {
    "datafile": "data file", "oldmin": "old min", "oldmax": "old max", "byteskip": "byte skip", "lineskip": "line skip",
    "axismins": "axis mins", "axismaxs": "axis maxs", "blocksize": "block size", "centers": "centerings",
    "sampleunits": "sample units",
}  # fmt: skip
_NRRD_FIELDS = {
    "content", "number", "type", "block size", "dimension", "space", "space dimension", "sizes", "spacings",
    "thicknesses", "axis mins", "axis maxs", "space directions", "centerings", "labels", "units", "kinds", "min", "max",
    "old min", "old max", "endian", "encoding", "byte skip", "line skip", "sample units", "space units",
    "space origin", "measurement frame", "data file",
}  # fmt: skip
_OF_EACH_AXIS = ("sizes", "spacings", "thicknesses", "axis mins", "axis maxs", "centerings", "kinds")
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
}
_NRRD_TEXT, _NRRD_PACKED = ("txt", "text", "ascii"), ("gz", "gzip", "bz2", "bzip2")
_NRRD_ENCODINGS = ("raw", "hex", *_NRRD_TEXT, *_NRRD_PACKED)

_META_TYPES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_FLOAT": 4, "MET_DOUBLE": 8, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8,
}  # fmt: skip
_PER_AXIS = ("dimsize", "elementspacing", "elementsize", "offset", "position", "origin", "centerofrotation")
_PER_PAIR = ("transformmatrix", "rotation", "orientation")
_PATTERN = re.compile(r"[^%]*%(0?[1-9]?)d[^%]*")
_MANY = re.compile(r"LIST(\s+\d)?", re.IGNORECASE)


@dataclass(frozen=True)
class TextHeader:
    """A header that is plain and bounded.

    Attributes:
        fields: Values by lower-case name.
        sizes: Extents, as the header lists them.
        item_bytes: Bytes of one voxel with all its components; 1 for numbers written as text.
        packed: Whether the voxels are compressed.
        stored_bytes: Bytes of the voxels as they are stored, in all their files.
        keys: Values of the writer's own keys (``key:=value``, NRRD only) by lower-case name.
    """

    fields: dict[str, str]
    sizes: tuple[int, ...]
    item_bytes: int
    packed: bool
    stored_bytes: int
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def claimed_bytes(self) -> int:
        """Bytes of the voxels in memory."""
        n_bytes = self.item_bytes
        for extent in self.sizes:
            n_bytes *= extent
        return n_bytes


def read_text_header(path: Path, what: str) -> TextHeader:
    """Read and check the header of a file.

    Args:
        path: The file that holds the header.
        what: ``"NRRD"`` or ``"MetaImage"``.

    Raises:
        ReadError: if a field is missing, given twice or out of bounds, a file with voxels is missing, is no plain file
            or lies elsewhere, or the voxels claimed cannot be in it.
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        block = stream.read(_LONGEST_HEADER)
    header = _read_nrrd(path, block) if what == "NRRD" else _read_meta(path, block)
    check_claimed_size(
        path, header.sizes, header.item_bytes, stored_bytes=header.stored_bytes, packed=header.packed
    )  # fmt: skip
    return header


def _lines(path: Path, block: bytes) -> Iterator[tuple[str, int]]:
    """Each line, and the position after it."""
    position = 0
    while position < len(block):
        end = block.find(b"\n", position)
        end = len(block) if end < 0 else end
        if end - position > _LONGEST_LINE:
            raise ReadError(f"{path}: a line of the header has {end - position} characters; the file is damaged")
        yield block[position:end].decode("latin-1").strip(), end + 1
        position = end + 1


def _read_nrrd(path: Path, block: bytes) -> TextHeader:
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    names: list[str] = []
    end, listing = len(block), False
    for number, (line, position) in enumerate(_lines(path, block)):
        if listing:
            names += [line] if line else []
        elif number == 0 or line.startswith("#"):
            continue
        elif not line:
            end = position
            break
        else:
            name, value = _nrrd_field(path, line)
            if name:
                _put(path, fields, name, value)
            else:
                key, _, text = line.partition(":=")
                keys[key.strip().lower()] = text.strip()
            listing = name == "data file" and _MANY.fullmatch(value) is not None
    n_axes = _whole(path, fields, "dimension", 1, _MOST_AXES)
    for name in _OF_EACH_AXIS:
        if name in fields and len(fields[name].split()) != n_axes:
            raise ReadError(f"{path}: the header has {n_axes} axes and {len(fields[name].split())} {name}")
    _check_directions(path, fields, n_axes)
    _whole(path, fields, "line skip", 0, 1 << 40, missing=0)
    _whole(path, fields, "byte skip", -1, 1 << 40, missing=0)
    encoding, kind = _needed(path, fields, "encoding").lower(), _needed(path, fields, "type").lower()
    if encoding not in _NRRD_ENCODINGS or kind not in _NRRD_TYPES:
        raise ReadError(f"{path}: voxels of type {kind!r} in encoding {encoding!r} cannot be read. Save it as raw NRRD")
    sizes = _wholes(path, fields, "sizes")
    place = fields.get("data file", "LOCAL")
    if place.upper() == "LOCAL":
        stored = max(path.stat().st_size - end, 0)
    else:
        stored = sum(file.stat().st_size for file in _named_files(path, place, names, sizes[-1]))
    item = 1 if encoding in _NRRD_TEXT else _NRRD_TYPES[kind]
    return TextHeader(fields, sizes, item, encoding in _NRRD_PACKED, stored, keys)


def _nrrd_field(path: Path, line: str) -> tuple[str, str]:
    """Name and value of a line; no name for a key of the writer's own (``key:=value``)."""
    name, separator, value = line.partition(":")
    plain = name.strip().lower()
    plain = _NRRD_NAMES.get(plain, plain)
    if not separator:
        raise ReadError(f"{path}: the header's line {line[:40]!r} is no field; the file is damaged")
    if value.startswith("="):
        if plain in _NRRD_FIELDS:
            raise ReadError(f"{path}: the header has a key of the writer's own that is named like the field {plain}")
        return "", ""
    return plain, value.strip()


def _check_directions(path: Path, fields: dict[str, str], n_axes: int) -> None:
    """``(1,0,0) none (0,0,2)``: one vector for each axis, all of one length."""
    for name in ("space directions", "measurement frame", "space origin"):
        text = fields.get(name)
        if text is None:
            continue
        vectors = re.findall(r"\([^()]*\)|[^\s()]+", text)
        lengths = {len(vector.split(",")) for vector in vectors if vector.startswith("(")}
        strange = [one for one in vectors if not one.startswith("(") and one.lower() != "none"]
        if strange or len(lengths) > 1 or any(not 1 <= n <= _MOST_AXES for n in lengths) or len(vectors) > _MOST_AXES:
            raise ReadError(f"{path}: the header's {name} {text[:60]!r} cannot be read; the file is damaged")
        if name == "space directions" and len(vectors) != n_axes:
            raise ReadError(f"{path}: the header has {n_axes} axes and {len(vectors)} space directions")


def _read_meta(path: Path, block: bytes) -> TextHeader:
    fields: dict[str, str] = {}
    names: list[str] = []
    end, listing = len(block), False
    for line, position in _lines(path, block):
        if listing:
            names += [line] if line else []
            continue
        name, value = _meta_field(path, line)
        if name in (*_PER_AXIS, *_PER_PAIR) and "ndims" not in fields:
            raise ReadError(f"{path}: the header gives {name} before NDims; the file is damaged")
        if name:
            _put(path, fields, name, value)
        if name == "elementdatafile":
            end, listing = position, _MANY.fullmatch(value) is not None
            if not listing:
                break
    n_axes = _whole(path, fields, "ndims", 1, _MOST_AXES - 1)
    for name in (*_PER_AXIS, *_PER_PAIR):
        wanted = n_axes if name in _PER_AXIS else n_axes**2
        if name in fields and len(fields[name].split()) != wanted:
            raise ReadError(f"{path}: {name} must have {wanted} numbers, the header has {len(fields[name].split())}")
    sizes = _wholes(path, fields, "dimsize")
    kind = _needed(path, fields, "elementtype").upper()
    if kind not in _META_TYPES:
        raise ReadError(f"{path}: voxels of type {kind!r} cannot be read. Save it with numbers as voxels")
    components = _whole(path, fields, "elementnumberofchannels", 1, 1 << 20, missing=1)
    _whole(path, fields, "headersize", -1, 1 << 40, missing=0)
    place = _needed(path, fields, "elementdatafile")
    if place.upper() == "LOCAL":
        stored = max(path.stat().st_size - end, 0)
    else:
        stored = sum(file.stat().st_size for file in _named_files(path, place, names, sizes[-1]))
    _whole(path, fields, "compresseddatasize", 0, stored, missing=0)
    item = 1 if fields.get("binarydata", "").lower() == "false" else _META_TYPES[kind]
    packed = fields.get("compresseddata", "").lower() in ("true", "t", "1")
    return TextHeader(fields, sizes, item * components, packed, stored)


def _meta_field(path: Path, line: str) -> tuple[str, str]:
    """Name and value of a line, separated by ``=`` or ``:`` as MetaIO takes them; no name for an empty line."""
    if not line:
        return "", ""
    found = re.fullmatch(r"([^=:]*)[=:](.*)", line)
    if found is None:
        raise ReadError(f"{path}: the header's line {line[:40]!r} is no field; the file is damaged")
    return found[1].strip().lower(), found[2].strip()


def _put(path: Path, fields: dict[str, str], name: str, value: str) -> None:
    if name in fields:
        raise ReadError(f"{path}: the header gives {name[:40]!r} twice; the file is damaged")
    fields[name] = value


def _needed(path: Path, fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise ReadError(f"{path}: the header lacks {name}; it is cut short or damaged. Copy it again")
    return fields[name]


def _whole(path: Path, fields: dict[str, str], name: str, low: int, high: int, missing: int | None = None) -> int:
    """A whole number within bounds."""
    if missing is not None and name not in fields:
        return missing
    text = _needed(path, fields, name)
    try:
        value = int(text)
    except ValueError as error:
        raise ReadError(f"{path}: {name} must be a whole number, the header has {text[:40]!r}") from error
    if not low <= value <= high:
        raise ReadError(f"{path}: {name} must be {low} to {high}, the header has {text[:40]}")
    return value


def _wholes(path: Path, fields: dict[str, str], name: str) -> tuple[int, ...]:
    return tuple(
        _whole(path, {name: word}, name, 1, (1 << 31) - 1) for word in _needed(path, fields, name).split()
    )  # fmt: skip


def _named_files(path: Path, place: str, listed: Sequence[str], last_extent: int) -> list[Path]:
    """The files with the voxels: one, a numbered series (``slice%03d.raw 1 20 1``), or those that are listed."""
    if _MANY.fullmatch(place):
        names: Sequence[str] = listed
    elif place.upper().startswith("LIST"):  # MetaIO would take it for a list
        raise ReadError(f"{path}: a file with voxels may not be named {place[:40]!r}. Rename it")
    elif "%" in place:
        names = _numbered(path, place, last_extent)
    else:
        names = [place]
    if not 1 <= len(names) <= _MOST_FILES:
        raise ReadError(f"{path}: the header names {len(names)} files with voxels, 1 to {_MOST_FILES} can be read")
    return [_beside(path, name) for name in names]


def _numbered(path: Path, place: str, last_extent: int) -> list[str]:
    """``name%03d.raw FIRST LAST STEP``: nothing but one number goes into a name."""
    pattern, *numbers = place.split()
    if not _PATTERN.fullmatch(pattern) or len(numbers) > 4 or not all(re.fullmatch(r"-?\d{1,9}", n) for n in numbers):
        raise ReadError(
            f"{path}: the files with voxels are named {place[:60]!r}, which is no name with one number such as "
            "slice%03d.raw 1 20 1"
        )
    first, last, step = (int(n) for n in [*numbers, *("1", str(last_extent), "1")[len(numbers) :]][:3])
    if step == 0 or abs((last - first) // step) >= _MOST_FILES:
        raise ReadError(f"{path}: the header names too many files with voxels: {place[:60]!r}")
    return [pattern % n for n in range(first, last + (1 if step > 0 else -1), step)]


def _beside(path: Path, name: str) -> Path:
    """A file that the header names: plain, and below the header's folder."""
    inside = name.replace("\\", "/")
    if inside.startswith("/") and Path(inside).is_relative_to(path.parent.resolve()):
        inside = Path(inside).relative_to(path.parent.resolve()).as_posix()
    try:
        file = path_below(path.parent, inside.removeprefix("./"))
    except OutputError as error:
        raise ReadError(
            f"{path}: the header says that voxels lie in {name[:80]!r}; they must lie in the header's own folder"
        ) from error
    try:
        is_plain = stat.S_ISREG(file.stat().st_mode)
    except FileNotFoundError:
        raise ReadError(f"{path}: its voxels lie in {file}, which does not exist. Copy both files") from None
    if not is_plain:
        raise ReadError(f"{path}: its voxels lie in {file}, which is no plain file")
    return file
