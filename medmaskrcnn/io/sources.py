"""Lists the files to read for a path: a file, a folder, a DICOMDIR, or a zip archive of these.

Archives are not trusted. Members are unpacked into a temporary folder under generated names, so that none can be
written elsewhere; sizes are counted while unpacking; and archives that unpack to implausible sizes are refused.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydicom import dcmread

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.deflated import check_deflated
from medmaskrcnn.io.formats import READABLE
from medmaskrcnn.io.guard import HARMLESS_BYTES, MAX_RATIO, convert_read_errors
from medmaskrcnn.system.temporary import TemporaryTree

MAX_UNPACKED_BYTES = 2**35
"""32 GiB: no study is larger."""

MAX_MEMBERS = 200_000
_CHUNK = 1 << 20
_NAME_LENGTH = 80
_LEFTOVERS = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".localized", "icon\r"})
_LEFTOVER_FOLDERS = frozenset(
    {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", ".Spotlight-V100", ".Trashes", ".fseventsd", "@eaDir"}
)
_ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, eq=False)
class Source:
    """The files to read.

    Attributes:
        files: In a fixed order.
        closed: Folders that cannot be opened, and why.
        notes: Notes for the user, one sentence each.
        unpacked: The folder of an unpacked archive; it is deleted when this object is garbage-collected.
    """

    files: tuple[Path, ...]
    closed: tuple[OSError, ...] = ()
    notes: tuple[str, ...] = ()
    unpacked: TemporaryTree | None = None


def open_source(path: Path) -> Source:
    """List the files of a path.

    Args:
        path: A file; a folder, with its subfolders; a DICOMDIR, with the files that it lists; a zip archive.

    Raises:
        ReadError: if it does not exist, is empty, or is an archive that is damaged, encrypted or a zip bomb.
    """
    try:
        path = _as_spelt(path)
        is_file = path.is_file()
    except OSError as error:  # a name that no file can have, or a folder that may not be entered
        raise ReadError(f"{str(path)[:200]} cannot be opened: {error.strerror}") from error
    if is_file:
        if is_zip(path):
            return _unzipped(path)
        if path.name.upper() == "DICOMDIR":
            return _listed(path)
        header = path.with_suffix(".hdr")
        return Source((header if path.suffix.lower() == ".img" and header.is_file() else path,))
    if not path.is_dir():
        missing = "does not exist" if not path.exists() else "is neither a file nor a folder"
        raise ReadError(f"{path} {missing}. Check the spelling")
    found = _below(path)
    if not found.files and not found.closed:
        raise ReadError(f"{path} is empty. Give a folder with scans in it ({READABLE})")
    return found


def is_zip(path: Path) -> bool:
    """True for a zip archive of files; not for our own result (.npz), which technically is one."""
    if path.suffix.lower() == ".npz":
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(4) in _ZIP_MARKS
    except OSError:
        return False


def _below(folder: Path) -> Source:
    """All files below a folder. Links to folders are followed; each folder is entered once, since links may circle."""
    closed: list[OSError] = []
    files: list[Path] = []
    entered: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        state = Path(place).stat()
        if (state.st_dev, state.st_ino) in entered:
            folders.clear()
            continue
        entered.add((state.st_dev, state.st_ino))
        # real folders first, so that what lies in the tree itself keeps its own path
        folders[:] = sorted(set(folders) - _LEFTOVER_FOLDERS, key=lambda name: (Path(place, name).is_symlink(), name))
        files += [Path(place, name) for name in names if not _is_leftover(name) and Path(place, name).is_file()]
    return Source(tuple(sorted(files)), tuple(closed))


def _is_leftover(name: str) -> bool:
    """Whether a file is one that Windows or macOS puts beside others."""
    return name.lower() in _LEFTOVERS or name.startswith("._")


def _listed(path: Path) -> Source:
    """The existing files that a DICOMDIR lists (DICOM PS3.10, 8.6: names below its own folder)."""
    root = path.parent.resolve()
    listings: dict[Path, dict[str, Path]] = {}
    with convert_read_errors(path, "DICOMDIR"):
        check_deflated(path)
        records = dcmread(path, specific_tags=["DirectoryRecordSequence"]).get("DirectoryRecordSequence") or []
        names = [_file_id(record.get("ReferencedFileID")) for record in records]
    found, missing = [], 0
    for parts in names:
        if not parts:
            continue
        file = _find(root, parts, listings)
        if file is None:
            missing += 1
        else:
            found.append(file)
    if not found:
        raise ReadError(f"{path} lists {missing} files, of which none is there. Give the disc's whole content")
    notes = (f"{missing} of the files that {path.name} lists are not there.",) if missing else ()
    return Source(tuple(dict.fromkeys(found)), notes=notes)


def _file_id(value: object) -> list[str]:
    """Components of a Referenced File ID (0004,1500)."""
    if not value:
        return []
    return value.split("\\") if isinstance(value, str) else [str(part) for part in value]  # type: ignore[attr-defined]


def _find(root: Path, parts: list[str], listings: dict[Path, dict[str, Path]]) -> Path | None:
    """A listed file, regardless of upper and lower case; nothing outside of the DICOMDIR's folder.

    Args:
        root: The DICOMDIR's folder, resolved.
        parts: The file's path below it.
        listings: What each folder holds, by lower-case name; filled here, so that a folder is listed once.
    """
    place = root
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part or ":" in part:
            return None
        exact = place / part
        if not exact.exists() and place.is_dir():
            if place not in listings:
                listings[place] = {_plain_name(p.name): p for p in place.iterdir()}
            exact = listings[place].get(_plain_name(part), exact)
        place = exact
    return place if place.is_file() and place.resolve().is_relative_to(root) else None


def _plain_name(name: str) -> str:
    """A name without what differs between discs: case, a final full stop, Unicode's composed or decomposed form."""
    return unicodedata.normalize("NFC", name).rstrip(".").lower()


def _as_spelt(path: Path) -> Path:
    """The path in the Unicode form in which it exists: macOS decomposes accents, other systems compose them."""
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return path if path.exists() else next((form for form in forms if form.exists()), path)


def _unzipped(path: Path) -> Source:
    with convert_read_errors(path, "zip archive"), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        _check_members(path, members)
        try:
            unpacked = TemporaryTree()
            left_out = _unpack(path, archive, members, Path(unpacked.name))
        except OSError as error:
            raise ReadError(f"{path} cannot be unpacked to {tempfile.gettempdir()}: {error.strerror}") from error
    found = _below(Path(unpacked.name))
    if not found.files:
        raise ReadError(f"{path} holds no file. Give an archive with scans in it ({READABLE})")
    notes = (f"{left_out} members of the archive are links or lead outside of it; they are left out.",)
    return Source(found.files, found.closed, notes if left_out else (), unpacked)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Check the archive's own table before anything is written."""
    size, stored = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if len(members) > MAX_MEMBERS:
        raise ReadError(f"{path} holds {len(members)} files, more than {MAX_MEMBERS}. Unpack what you need yourself")
    if any(m.flag_bits & 1 for m in members):
        raise ReadError(f"{path} is encrypted. Unpack it with its password and give the folder")
    if size > MAX_UNPACKED_BYTES or (size > HARMLESS_BYTES and size > MAX_RATIO * max(stored, 1)):
        raise ReadError(
            f"{path} unpacks to {size:,} bytes from {stored:,}: no archive of scans does. "
            f"If you trust it, unpack it yourself and give the folder"
        )
    if size > shutil.disk_usage(tempfile.gettempdir()).free:
        raise ReadError(f"{path} unpacks to {size:,} bytes, more than is free in {tempfile.gettempdir()}")


def _unpack(path: Path, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path) -> int:
    """Write members below a folder; returns the number of those left out."""
    left_out, total = 0, 0
    stored = sum(m.compress_size for m in members)
    made: set[Path] = set()
    for number, member in enumerate(members):
        if _leads_outside(member):
            left_out += 1
            continue
        target = folder.joinpath(*_safe_parts(member.filename, number))
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        with archive.open(member) as source, target.open("xb") as goal:
            while chunk := source.read(_CHUNK):
                total += len(chunk)
                if total > MAX_UNPACKED_BYTES or (total > HARMLESS_BYTES and total > MAX_RATIO * stored):
                    raise ReadError(f"{path} unpacks to more than its table says; it is damaged or made to harm")
                goal.write(chunk)
    return left_out


def _leads_outside(member: zipfile.ZipInfo) -> bool:
    name = member.filename.replace("\\", "/")
    link = stat.S_ISLNK(member.external_attr >> 16)
    return link or name.startswith("/") or ":" in name or ".." in PurePosixPath(name).parts or "\0" in name


def _safe_parts(name: str, number: int) -> list[str]:
    """Folders as in the archive, for display to the user; the file's name made unique and safe."""
    parts = [p for p in PurePosixPath(name.replace("\\", "/")).parts if p not in (".", "/")]
    clean = ["".join(c if c.isprintable() else "_" for c in p)[-_NAME_LENGTH:].strip() or "_" for p in parts]
    return [f"_{p}" for p in clean[:-1][:8]] + [f"{number:06d}_{clean[-1] if clean else ''}"]
