"""Names of cases: the name of the result folder of each input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medmaskrcnn.system.paths import safe_name

_EXTENSIONS = (
    ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm",
    ".dicom", ".ima", ".png", ".tif", ".tiff", ".jpg", ".jpeg",
)  # fmt: skip


def name_cases(inputs: Sequence[Path]) -> list[str]:
    """One folder name per input, safe on every file system and distinct even on those that ignore case.

    The name is that of the input without its extension. Inputs of the same name also get the names of their folders:
    ``patient1/CT`` and ``patient2/CT`` give ``patient1_CT`` and ``patient2_CT``. Names still equal get a number.

    Example:
        >>> name_cases([Path("a/scan.nii.gz"), Path("b/scan.nii.gz"), Path("liver 3.mha")])
        ['a_scan', 'b_scan', 'liver_3']
    """
    whole = [path.resolve() for path in inputs]
    depth = [1] * len(inputs)
    names = [_name(path, 1) for path in whole]
    for _ in range(max((len(path.parts) for path in whole), default=0)):
        count = Counter(name.lower() for name in names)
        if max(count.values()) == 1:
            return names
        depth = [d + (count[name.lower()] > 1) for d, name in zip(depth, names, strict=True)]
        names = [_name(path, d) for path, d in zip(whole, depth, strict=True)]
    return _numbered(names)


def _name(path: Path, depth: int) -> str:
    """A safe name made of the last ``depth`` parts of a path."""
    parts = [part for part in path.parts if part != path.anchor][-depth:] or ["scan"]
    stem = parts[-1]
    extension = next((e for e in _EXTENSIONS if stem.lower().endswith(e) and len(stem) > len(e)), "")
    parts[-1] = stem[: len(stem) - len(extension)]
    return safe_name("_".join(parts))


def _numbered(names: list[str]) -> list[str]:
    taken: set[str] = set()
    distinct = []
    for name in names:
        number, candidate = 1, name
        while candidate.lower() in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate.lower())
        distinct.append(candidate)
    return distinct
