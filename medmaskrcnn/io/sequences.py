"""Several sequences of one case (T1 and FLAIR, CT and PET) become one Volume, a channel for each.

All lie on the grid of the first. A sequence on another grid is resampled to it by linear interpolation in the patient's
coordinates, and the Volume's provenance tells so; voxels that it does not cover get its lowest value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.io.discover import FoundScan
from medmaskrcnn.io.read import choose
from medmaskrcnn.structures.grid import Grid, same_grid
from medmaskrcnn.structures.images import sitk_geometry, sitk_image
from medmaskrcnn.structures.volume import ChannelSource, Provenance, Volume

_LEAST_COVERED = 0.5  # share of the first sequence's voxels
_TOLD_COVERED = 0.995


def stack_sequences(parts: Mapping[str, Volume]) -> Volume:
    """Stack the sequences of a case as channels.

    Args:
        parts: By name, in the order of the channels; the first one's grid is that of the result.

    Returns:
        ``(C, D, H, W)`` with the names as ``channel_names``; ``provenance.channels`` says where each comes from.

    Raises:
        ReadError: if a sequence holds several volumes, has no geometry to resample it by, or covers less than half of
            the first.
    """
    (first_name, first), *_ = parts.items()
    arrays, notes, sources = [], list(first.provenance.notes), []
    for name, part in parts.items():
        if part.array.shape[0] != 1:
            raise ReadError(f"sequence {name} holds {part.array.shape[0]} volumes; give one of them")
        moved = not same_grid(part.grid, first.grid)
        array = part.array
        if moved:
            array, told = _resampled(name, part, first_name, first)
            notes += told
        notes += [note for note in part.provenance.notes if note not in notes]
        arrays.append(array)
        sources.append(ChannelSource(name, part.provenance.files, part.provenance.series_uid, moved))
    provenance: Provenance = replace(first.provenance, notes=tuple(notes), channels=tuple(sources))
    return replace(
        first,
        array=np.concatenate(arrays),
        channel_kind="unknown" if len(arrays) > 1 else first.channel_kind,
        channel_names=tuple(parts),
        provenance=provenance,
    )


def _resampled(name: str, part: Volume, first_name: str, first: Volume) -> tuple[NDArray[np.float32], list[str]]:
    """``(1, D, H, W)`` on the grid of the first sequence, and what to tell."""
    if not (part.grid.spacing_known and first.grid.spacing_known):
        shapes = f"{part.grid.shape} and {first.grid.shape} voxels"
        raise ReadError(f"sequences {first_name} and {name} have {shapes}, and no geometry that relates them")
    import SimpleITK as sitk  # here: only whoever mixes grids waits for it

    image = sitk_image(part.array[0].astype(np.float32), part.grid)
    covered = _share_covered(part.grid, first.grid)
    if covered < _LEAST_COVERED:
        raise ReadError(
            f"sequence {name} covers {covered:.0%} of sequence {first_name}: they do not show the same part of the body"
        )
    size, origin, spacing, direction = sitk_geometry(first.grid)
    lowest = float(part.array.min())
    moved = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, origin, spacing, direction, lowest, sitk.sitkFloat32
    )
    told = [f"Sequence {name} was resampled to the grid of {first_name} by linear interpolation."]
    if covered < _TOLD_COVERED:
        told.append(f"Sequence {name} covers {covered:.0%} of {first_name}; the rest was filled with its lowest value.")
    frames = (part.provenance.frame_of_reference_uid, first.provenance.frame_of_reference_uid)
    if None not in frames and frames[0] != frames[1]:
        told.append(
            f"Sequences {first_name} and {name} name different frames of reference; whether they fit is unsure."
        )
    return sitk.GetArrayFromImage(moved)[None], told


def _share_covered(inner: Grid, outer: Grid, *, samples: int = 24) -> float:
    """Share of the voxels of ``outer`` whose centres lie within ``inner``, from an even sample of them."""
    steps = [np.unique(np.linspace(0, n - 1, min(n, samples)).round()) for n in outer.shape]
    index = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    place = inner.ras_to_coordinate(outer.index_to_ras(index))
    return float(((place >= 0) & (place <= inner.shape)).all(axis=1).mean())


def choose_sequence(path: Path, found: Sequence[FoundScan], value: str) -> FoundScan:
    """The scan of a folder that a user means by a series UID, a number of the listing, or a pattern.

    Args:
        path: The folder.
        found: Its scans.
        value: A Series Instance UID, a number, or a pattern such as ``"*t1*"`` (case does not matter) of the series'
            description or of the file's name.

    Raises:
        ReadError: if none or several are meant.
    """
    scans = [scan for scan in found if scan.role == "scan"]
    if value.isdigit() or any(scan.info.series_uid == value for scan in scans):
        return choose(path, found, value)
    fitting = [scan for scan in scans if fits(scan.info.description, Path(scan.info.path).name, value)]
    if len(fitting) != 1:
        what = "no scan" if not fitting else f"{len(fitting)} scans"
        there = "; ".join(scan.info.description or Path(scan.info.path).name for scan in scans[:20])
        raise ReadError(f"{path} holds {what} that fit {value!r}; it holds {there or 'none'}", Remedy.GIVE_SEQUENCES)
    return fitting[0]


def fits(description: str, name: str, pattern: str) -> bool:
    """Whether a pattern fits a series' description or a file's name; case does not matter."""
    return any(fnmatch(text.casefold(), pattern.casefold()) for text in (description, name) if text)
