"""Finds the files of a data set as people hold them: among leftovers of other programs, under names from other systems.

macOS, Windows, network drives and notebooks leave files and folders of their own beside the data; none of them is data.
macOS stores names with accents apart from their letters (Unicode's form NFD), Linux and Windows together (NFC): names
are compared in NFC. Paths written on Windows have backslashes and perhaps a drive.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.formats import sniff
from medmaskrcnn.system.text_files import decode_json_text

_LEFTOVERS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
    | {"system volume information", "__pycache__", "rw_lib.dat", "sync.ffs_db"}
)
_MOST_NAMED = 5


def is_leftover(path: Path) -> bool:
    """True for what systems and programs leave beside data: hidden files, ``Thumbs.db``, ``._*``, ``~$*``."""
    return path.name.startswith((".", "~$")) or path.name.lower() in _LEFTOVERS


def folders_in(folder: Path) -> list[Path]:
    """Subfolders that are no leftovers, by name."""
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and not is_leftover(one)]


def files_in(folder: Path) -> list[Path]:
    """Files that are no leftovers, by name."""
    return [one for one in sorted(folder.iterdir()) if one.is_file() and not is_leftover(one)]


def scans_in(folder: Path) -> list[Path]:
    """Files of a format that can be read (notes, tables and leftovers are passed over), by name."""
    return [one for one in files_in(folder) if sniff(one) is not None]


def stem_of(path: Path) -> str:
    """A file's name without its extension, in Unicode's form NFC; ``.nii.gz`` counts as one extension."""
    name = path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem
    return unicodedata.normalize("NFC", name)


def find_file(folders: Sequence[Path], name: str) -> Path:
    """The file that a data set's description names.

    Args:
        folders: Where it may lie.
        name: A path as the description has it: relative or absolute, from any system.

    Returns:
        The file at this path below one of the folders, with any Unicode form or case of its letters; else the file of
        its last name directly in one of the folders; else, if there is none, its path in the first folder.
    """
    if Path(name).is_absolute() and Path(name).exists():
        return Path(name)
    parts = _parts(name)
    for wanted in (parts, parts[-1:]):
        for folder in folders:
            found = _below(folder, wanted)
            if found is not None and found.exists():
                return found
    return folders[0].joinpath(*parts)


def read_json(path: Path) -> Any:
    """Content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark; ``None`` if it is none."""
    try:
        return json.loads(decode_json_text(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def json_object(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ReadError: if it is missing, not JSON or not an object; ``what`` says what it should be.
    """
    try:
        content = json.loads(decode_json_text(path.read_bytes()))
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}. Is this {what}?") from error
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReadError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _parts(name: str) -> list[str]:
    """Folders and file name of a path from any system, without drive, root and ``.``."""
    pure = PureWindowsPath(name) if "\\" in name or name[1:2] == ":" else PurePosixPath(name)
    return [part for part in pure.parts if part not in (pure.anchor, ".")] or [name]


def _below(folder: Path, parts: Sequence[str]) -> Path | None:
    """The file of this path below a folder, its names compared without regard to Unicode form and case."""
    exact = folder.joinpath(*parts)
    if exact.exists():
        return exact
    here = folder
    for part in parts:
        if part == "..":
            here = here.parent
            continue
        if not here.is_dir():
            return None
        alike = [one for one in here.iterdir() if _plain(one.name) == _plain(part)]
        if len(alike) != 1:
            return None
        here = alike[0]
    return here


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
