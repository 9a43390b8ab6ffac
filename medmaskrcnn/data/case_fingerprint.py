"""The fingerprint of one labelled scan, from which the check before training and the planner work."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.label_coverage import LabelCoverage, label_coverage
from medmaskrcnn.data.manifest import Manifest, ManifestCase, Split
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.label_maps import NEIGHBOURS
from medmaskrcnn.structures.volume import ChannelKind, Volume

PERCENTILES = (0.5, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.5)

_SPECK = 0.05  # of the largest part's voxels
_THUMBNAIL = 16  # pixels a side
_MOST_VALUES = 1_000_000  # maximum number of a channel's values, evenly spaced, that percentiles are computed from

Extent = tuple[int, int, int]
Millimetres = tuple[float, float, float]


@dataclass(frozen=True)
class Intensities:
    """Intensity statistics of one channel, over all voxels or those in objects, without NaN and infinite values.

    Attributes:
        percentiles: Values at :data:`PERCENTILES`.
        mean, std: Mean and standard deviation.
    """

    percentiles: tuple[float, ...]
    mean: float
    std: float


@dataclass(frozen=True)
class ObjectFacts:
    """One labelled object.

    Attributes:
        class_name: Its class.
        extent: Voxels of its box along the scan's D, H, W.
        extent_mm: The same in mm; ``None`` if the scan's spacing is unknown.
        voxels: Number of voxels.
        parts: Number of its separate parts; specks, smaller than a twentieth of the largest, do not count.
    """

    class_name: str
    extent: Extent
    extent_mm: Millimetres | None
    voxels: int
    parts: int = 1


@dataclass(frozen=True)
class CaseFingerprint:
    """Properties of one labelled scan.

    Attributes:
        id, patient, split, fold: As in the manifest.
        grid: Shape and affine of the scan, as stored.
        channels: Number of image channels.
        channel_kind: As in :class:`~medmaskrcnn.structures.volume.Volume`.
        modality: The file's, else the manifest's, else ``None``.
        intensities: Statistics of all voxels, by channel; empty if no voxel is finite.
        foreground: Statistics of the objects' voxels, by channel; empty if there are none.
        not_finite: Number of voxels that are NaN or infinite.
        objects: Every object with at least one voxel.
        absent: ``(map, value)`` of instances without a voxel.
        unnamed: ``(map, value)`` of label values that no instance names.
        content_hash: Equal for two cases whose images have the same voxel values.
        coverage: The slices that the objects cover; ``None`` for pictures and without an object.
        ignored_share: Share of the voxels that are to be ignored.
        thumbnail: Of a picture: 16 x 16 values of mean 0 and variance 1, ``(256,)``; else ``None``.
    """

    id: str
    patient: str
    split: Split | None
    fold: int | None
    grid: Grid = field(repr=False)
    channels: int
    channel_kind: ChannelKind
    modality: str | None
    intensities: tuple[Intensities, ...]
    foreground: tuple[Intensities, ...]
    not_finite: int
    objects: tuple[ObjectFacts, ...]
    absent: tuple[tuple[int, int], ...]
    unnamed: tuple[tuple[int, int], ...]
    content_hash: str
    coverage: LabelCoverage | None = None
    ignored_share: float = 0.0
    thumbnail: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> Extent:
        """Voxels along D, H, W."""
        return self.grid.shape

    @property
    def spacing_mm(self) -> Millimetres | None:
        """Distance between voxel centres along D, H, W in mm; ``None`` if the file does not give it."""
        return self.grid.spacing_mm

    @property
    def is_planar(self) -> bool:
        """True for a single image (one slice)."""
        return self.grid.shape[0] == 1


def read_case_fingerprint(manifest: Manifest, case: ManifestCase) -> CaseFingerprint:
    """Read one case and compute its fingerprint.

    Raises:
        ReadError: as :func:`~medmaskrcnn.data.case_labels.read_case`.
    """
    scan = read_case(manifest, case)
    volume = scan.volume
    not_finite = 0
    if np.issubdtype(volume.array.dtype, np.floating):
        not_finite = volume.array.size - int(np.count_nonzero(np.isfinite(volume.array)))
    everything = [_intensities(channel.ravel()) for channel in volume.array]
    inside = [_intensities(_inside(channel, scan.objects)) for channel in volume.array]
    return CaseFingerprint(
        id=case.id,
        patient=case.patient,
        split=case.split,
        fold=case.fold,
        grid=volume.grid,
        channels=volume.array.shape[0],
        channel_kind=volume.channel_kind,
        modality=volume.modality,
        intensities=tuple(one for one in everything if one),
        foreground=tuple(one for one in inside if one),
        not_finite=not_finite,
        objects=tuple(_object(one, volume) for one in scan.objects),
        absent=scan.absent,
        unnamed=scan.unnamed,
        content_hash=_fingerprint(volume.array),
        coverage=label_coverage([one.mask for one in scan.objects], volume.grid),
        ignored_share=sum(one.mask.n_voxels for one in scan.ignored) / math.prod(volume.grid.shape),
        thumbnail=_thumbnail(volume.array) if volume.grid.shape[0] == 1 else None,
    )


def _object(one: LabelledObject, volume: Volume) -> ObjectFacts:
    d, h, w = one.mask.array.shape
    extent_mm = None
    if volume.spacing_mm is not None:
        z, y, x = volume.spacing_mm
        extent_mm = (d * z, h * y, w * x)
    return ObjectFacts(one.class_name, (d, h, w), extent_mm, one.mask.n_voxels, _parts(one.mask.array))


def _parts(mask: NDArray[Any]) -> int:
    labelled, n = ndimage.label(mask, structure=NEIGHBOURS)
    if n < 2:
        return n
    sizes = np.bincount(labelled.ravel())[1:]
    return int((sizes >= _SPECK * sizes.max()).sum())


def _thumbnail(array: NDArray[Any]) -> NDArray[np.float32] | None:
    """A picture ``(C, 1, H, W)`` as means of 16 x 16 blocks, mean 0 and variance 1, if it is not flat and not tiny."""
    grey = np.nan_to_num(array[:, 0].astype(np.float32).mean(axis=0), posinf=0, neginf=0)
    if min(grey.shape) < _THUMBNAIL:
        return None
    edges = [np.linspace(0, side, _THUMBNAIL, endpoint=False).astype(int) for side in grey.shape]
    sums = np.add.reduceat(np.add.reduceat(grey, edges[0], axis=0), edges[1], axis=1)
    areas = np.outer(*(np.diff([*at, side]) for at, side in zip(edges, grey.shape, strict=True)))
    small = sums / areas
    deviation = float(small.std())
    return ((small - small.mean()) / deviation).ravel().astype(np.float32) if deviation > 0 else None


def _inside(channel: NDArray[Any], objects: tuple[LabelledObject, ...]) -> NDArray[Any]:
    """Values ``(n,)`` of the objects' voxels; voxels shared by several objects are repeated."""
    values = [channel[one.mask.window][one.mask.array] for one in objects]
    return np.concatenate(values) if values else channel[:0].ravel()


def _intensities(values: NDArray[Any]) -> Intensities | None:
    sample = values[:: max(1, -(-values.size // _MOST_VALUES))].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return None
    percentiles = tuple(float(value) for value in np.percentile(sample, PERCENTILES))
    return Intensities(percentiles, float(sample.mean()), float(sample.std()))


def _fingerprint(array: NDArray[Any]) -> str:
    digest = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=16)
    for channel in array:
        digest.update(np.ascontiguousarray(channel).data)
    return digest.hexdigest()
