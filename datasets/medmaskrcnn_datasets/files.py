"""Files that are there in whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from medmaskrcnn.errors import OutputError


def make_folder(path: Path | str) -> Path:
    """The folder, made if it is missing.

    Raises:
        OutputError: if it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}. Choose another output folder."
        ) from error
    return folder


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Write a file under a temporary name beside its place, then rename it.

    Raises:
        OutputError: if it cannot be written; nothing is left behind then.
    """
    target = Path(path)
    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}. Is the disk full or the folder locked?") from error
    finally:
        partial.unlink(missing_ok=True)
    return target
