"""From names that others chose to paths: the one place where a name from a file or from the network becomes a path.

An archive's UIDs, a ledger's folders and a manifest's case ids are data that anyone may have written. As a path such a
name may lead anywhere: ``../../home``, ``/etc``, a link to another folder. Here it leads below a folder or nowhere.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from medmaskrcnn.errors import OutputError

MAX_LENGTH = 100
_LONGEST_PART = 255  # bytes, of the usual file systems
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_UID_LENGTH = 64
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""Names that Windows reserves for devices."""


def is_uid(text: str) -> bool:
    """Whether a text is a DICOM UID: numbers separated by single dots, 64 characters at most (PS3.5, 9.1)."""
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def safe_name(text: str, *, otherwise: str = "scan") -> str:
    """A text as the name of one file or folder that every file system accepts.

    Args:
        text: Any text; letters and digits of any script, ``_``, ``.`` and ``-`` are kept, the rest becomes ``_``.
        otherwise: The name if nothing of the text is left.
    """
    safe = re.sub(r"[^\w.-]+", "_", text).strip("._-")[-MAX_LENGTH:] or otherwise
    while len(safe.encode("utf-8", "replace")) > _LONGEST_PART - len(".nii.gz"):
        safe = safe[1:]
    return f"_{safe}" if safe.partition(".")[0].lower() in _RESERVED else safe


def path_below(root: str | os.PathLike[str], name: str) -> Path:
    """The path of a name below a folder.

    Args:
        root: The folder; it need not exist.
        name: One name, or several separated by ``/``, as another program or an earlier run has written them.

    Raises:
        OutputError: if a part of the name is no plain name of a file, or links lead out of the folder.
    """
    folder = Path(root)
    if not name or not all(map(_is_plain, name.split("/"))):
        raise OutputError(f"refused to use {_shown(name)} as a name below {folder}: it leads elsewhere")
    path = folder.joinpath(*name.split("/"))
    inside, whole = path.resolve(), folder.resolve()
    if inside == whole or not inside.is_relative_to(whole):
        raise OutputError(f"refused to use {path}: a link there leads out of {folder}")
    return path


def remove_below(root: str | os.PathLike[str], name: str) -> None:
    """Remove the folder of a name below another, with all it holds; nothing if it is not there.

    Raises:
        OutputError: as :func:`path_below`; nothing is removed then.
    """
    path = path_below(root, name)
    if path.is_symlink():
        raise OutputError(f"refused to remove {path}: it is a link")
    shutil.rmtree(path, ignore_errors=True)


def _is_plain(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and not any(c in "\\/:\0" or not c.isprintable() for c in part)
        and len(part.encode("utf-8", "replace")) <= _LONGEST_PART
    )


def _shown(name: str) -> str:
    return repr(name if len(name) <= MAX_LENGTH else f"{name[:MAX_LENGTH]}...")
