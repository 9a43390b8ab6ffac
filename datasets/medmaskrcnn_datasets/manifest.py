"""Writes the manifest, the only form in which training reads labelled scans.

Its content is defined in :mod:`medmaskrcnn.data.manifest`; every adapter of this package writes it.
"""

from __future__ import annotations

from pathlib import Path

from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.system.files import write_bytes


def write_manifest(manifest: Manifest, path: Path | str) -> Path:
    """Write the manifest as JSON; the same manifest gives the same bytes.

    Raises:
        OutputError: if the file cannot be written.
    """
    return write_bytes(path, (manifest.model_dump_json(by_alias=True, indent=1) + "\n").encode())


def located(path: Path, folder: Path) -> str:
    """A file's path for the manifest in ``folder``: relative if it is in that folder, else absolute."""
    resolved, base = path.resolve(), folder.resolve()
    return resolved.relative_to(base).as_posix() if resolved.is_relative_to(base) else str(resolved)
