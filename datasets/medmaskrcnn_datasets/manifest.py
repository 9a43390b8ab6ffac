"""Writes the manifest, the only form in which training reads labelled scans.

Its content is defined in :mod:`medmaskrcnn.data.manifest`; every adapter of this package writes it.
"""

from __future__ import annotations

import json
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.system.files import write_bytes


def write_manifest(manifest: Manifest, path: Path | str) -> Path:
    """Write the manifest as JSON; the same manifest gives the same bytes.

    Fields that came with later versions are written only where they are set, so that older versions read all other
    manifests.

    Raises:
        OutputError: if the file cannot be written.
    """
    content = manifest.model_dump(mode="json", by_alias=True)
    for name in ("channel_names", "left_out"):
        if not content[name]:
            del content[name]
    for case in content["cases"]:
        for name, unset in (("annotated", None), ("data_set", None), ("weight", 1.0)):
            if case[name] == unset:
                del case[name]
        for instance in case["instances"]:
            if not instance["ignore"]:
                del instance["ignore"]
    return write_bytes(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


def located(path: Path, folder: Path) -> str:
    """A file's path for the manifest in ``folder``: relative if it is in that folder, else absolute."""
    resolved, base = path.resolve(), folder.resolve()
    return resolved.relative_to(base).as_posix() if resolved.is_relative_to(base) else str(resolved)
