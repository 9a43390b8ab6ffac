"""Files and folders that are there in whole or not at all.

Each is written under a temporary name and renamed at the end. Names that begin with a dot and end in
:data:`PARTIAL` are what a process that was killed leaves behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from medmaskrcnn.errors import OutputError

PARTIAL = ".partial"

AnyPath = str | os.PathLike[str]


@contextmanager
def replacing(path: AnyPath, *, synced: bool = False) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes the path's place at the end, or is gone if that fails.

    Args:
        path: The file.
        synced: Wait until the content has reached the disk before the file gets its name.

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
def replacing_folder(path: AnyPath, *, staging_in: AnyPath | None = None, synced: bool = False) -> Iterator[Path]:
    """A temporary folder that takes the place of the folder ``path`` at the end, or is gone if that fails.

    Args:
        path: The folder; one that is there stays until the new one is complete.
        staging_in: Where the temporary folder lies, on the same disk; beside ``path`` by default.
        synced: Wait until every file has reached the disk before the folder gets its name.

    Raises:
        OutputError: if the folder cannot be written.
    """
    target = Path(path)
    try:
        with staging_folder(target.parent if staging_in is None else staging_in) as staging:
            temporary, earlier = staging / "new", staging / "old"
            temporary.mkdir()
            yield temporary
            if synced:
                _sync_tree(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
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
    """A new folder inside ``parent`` for what is not complete yet; what it still holds at the end is deleted.

    Raises:
        OSError: if it cannot be made.
    """
    staging = Path(parent) / _temporary_name("")
    try:
        staging.mkdir(parents=True)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(path: AnyPath, content: bytes) -> Path:
    """Write a file, and the folder it lies in if that is missing.

    Raises:
        OutputError: if it cannot be written; nothing is left behind then.
    """
    target = Path(path)
    make_folder(target.parent)
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target


def make_folder(path: AnyPath) -> Path:
    """The folder, made if it is missing.

    Raises:
        OutputError: if it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another place.") from error
    return folder


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
    if os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
