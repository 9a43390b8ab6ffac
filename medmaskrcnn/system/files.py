"""Atomic writing of files and folders.

Each is written under a temporary name and renamed at the end. Names that begin with a dot and end in
:data:`PARTIAL` are left behind by processes that were killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from medmaskrcnn.errors import OutputError

PARTIAL = ".partial"
_OWNER, _ALL = 0o700, 0o777  # less the umask

AnyPath = str | os.PathLike[str]


@contextmanager
def replacing(path: AnyPath, *, synced: bool = False) -> Iterator[Path]:
    """A temporary file name beside ``path`` to write to; it replaces ``path`` at the end, or is deleted on failure.

    Args:
        path: The file.
        synced: Wait until the content is on the disk before the file is renamed.

    Raises:
        OutputError: if the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(_temporary_name(target.name))
    try:
        yield temporary
        if synced:
            _sync_file(temporary)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(
    path: AnyPath, *, staging_in: AnyPath | None = None, synced: bool = False, private: bool = False
) -> Iterator[Path]:
    """A temporary folder that replaces the folder ``path`` at the end, or is deleted on failure.

    Args:
        path: The folder; an existing one stays until the new one is complete.
        staging_in: Where the temporary folder lies, on the same disk; beside ``path`` by default.
        synced: Wait until every file is on the disk before the folder is renamed.
        private: Let its owner alone enter the folder, and those above it that are created.

    Raises:
        OutputError: if the folder cannot be written.
    """
    target = Path(path)
    try:
        with staging_folder(target.parent if staging_in is None else staging_in) as staging:
            temporary, earlier = staging / "new", staging / "old"
            temporary.mkdir(mode=_OWNER if private else _ALL)
            yield temporary
            if synced:
                _sync_tree(temporary)
            make_folder(target.parent, private=private)
            with suppress(FileNotFoundError):
                target.rename(earlier)
            try:
                temporary.rename(target)
            except OSError:
                with suppress(OSError):
                    earlier.rename(target)
                raise
            if synced:
                _sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


@contextmanager
def staging_folder(parent: AnyPath) -> Iterator[Path]:
    """A new temporary folder inside ``parent``, deleted at the end with what it still holds.

    Raises:
        OSError: if it cannot be created.
    """
    staging = Path(parent) / _temporary_name("")
    try:
        staging.mkdir(parents=True, mode=_OWNER)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(path: AnyPath, content: bytes) -> Path:
    """Write a file atomically; its folder is created if missing.

    Raises:
        OutputError: if it cannot be written; no partial file is left behind.
    """
    target = Path(path)
    make_folder(target.parent)
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target


def make_folder(path: AnyPath, *, private: bool = False) -> Path:
    """Create a folder if it is missing, with those above it, and return it.

    Args:
        path: The folder; the rights of one that exists stay as they are.
        private: Let its owner alone enter what is created: for whatever identifies a patient.

    Raises:
        OutputError: if it cannot be created.
    """
    folder = Path(path)
    try:
        for place in reversed([p for p in (folder, *folder.parents) if not p.exists()]):
            place.mkdir(exist_ok=True, mode=_OWNER if private else _ALL)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another place.") from error
    return folder


def open_private(path: AnyPath) -> IO[bytes]:
    """Open a file for writing that its owner alone may read, from its first byte on.

    Raises:
        OSError: if it cannot be opened.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    stream = os.fdopen(handle, "wb")
    with suppress(OSError):  # some network drives have no such rights
        Path(path).chmod(0o600)  # of an earlier file of this name
    return stream


def _temporary_name(name: str) -> str:
    return f".{name}{'.' if name else ''}{uuid4().hex}{PARTIAL}"


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            _sync_file(Path(place) / name)
        _sync_folder(Path(place))


def _sync_file(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
