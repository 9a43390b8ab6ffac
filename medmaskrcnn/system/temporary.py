"""Temporary folders that do not stay behind: each is locked while its process lives, and the next one removes the rest.

A process that is killed cannot remove what it unpacked, a patient's scan perhaps. Its lock ends with it, whatever ended
it, so that any later process knows the folder to be left over.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

_PREFIX = "medmaskrcnn-"
_LOCK, _FILES = "lock", "files"


class TemporaryTree:
    """A folder for this user alone, removed with this object or, if its process was killed, by a later one.

    Attributes:
        name: Path of the folder to use.

    Raises:
        OSError: if it cannot be created.
    """

    def __init__(self) -> None:
        for stale in stale_trees(Path(tempfile.gettempdir())):
            shutil.rmtree(stale, ignore_errors=True)
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        whole = Path(self._folder.name)
        self._lock = (whole / f"{_LOCK}.new").open("wb")
        if (locks := _locks()) is not None:
            locks.flock(self._lock, locks.LOCK_EX)
        (whole / f"{_LOCK}.new").rename(whole / _LOCK)  # locked before anyone can see it
        (whole / _FILES).mkdir()
        self.name = str(whole / _FILES)


def stale_trees(folder: Path) -> Iterator[Path]:
    """Trees of this user in a folder of temporary files whose process is gone."""
    locks = _locks()
    if locks is None:
        return
    with suppress(OSError):
        for tree in folder.glob(f"{_PREFIX}*"):
            if _is_own(tree) and (tree / _LOCK).is_file() and not _is_locked(tree / _LOCK, locks):
                yield tree


def _is_own(tree: Path) -> bool:
    with suppress(OSError):
        state = tree.lstat()
        return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    return False


def _is_locked(file: Path, locks: ModuleType) -> bool:
    try:
        with file.open("rb") as stream:
            locks.flock(stream, locks.LOCK_EX | locks.LOCK_NB)
    except OSError:
        return True
    return False


def _locks() -> ModuleType | None:
    """Python's ``fcntl``; ``None`` on Windows, whose temporary folder is the user's own."""
    try:
        return import_module("fcntl")
    except ImportError:
        return None
