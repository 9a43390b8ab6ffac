"""The dataset fingerprint: what the planner needs to know of the training cases, in the axes of the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.data.case_fingerprint import CaseFingerprint
from medmaskrcnn.data.manifest import FOR_TRAINING, Manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn.inference.orientation import Orientation, choose_axes
from medmaskrcnn.structures.volume import ChannelKind

Triple = tuple[float, float, float]

Array = NDArray[np.float64]

_THICKER = 1.2
"""An axis whose spacing is larger by this factor counts as thick."""


@dataclass(frozen=True)
class SeenObject:
    """An object: its class and the extent D, H, W of its box, in mm (voxels where the spacing is unknown)."""

    class_name: str
    size: Triple


@dataclass(frozen=True)
class SeenCase:
    """A scan in the network's axes.

    Attributes:
        shape: Voxels along D, H, W.
        spacing: Their distance in mm; 1 where it is unknown.
        objects: Its labelled objects.
        annotated: Classes that were annotated; of the others it is unknown what the scan holds.
        left_right: Index of the axis among D, H, W that runs closest to left-right; ``None`` if spacing is unknown.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    objects: tuple[SeenObject, ...]
    annotated: frozenset[str]
    left_right: int | None


@dataclass(frozen=True)
class DatasetFingerprint:
    """The training cases of a manifest.

    Attributes:
        class_names: The manifest's.
        cases: The training cases; cases of other splits must not influence the plan.
        case_fingerprints: Their fingerprints, in the same order.
        orientation: Orientation of the axes of ``cases``.
        spacing_known: Whether lengths are in mm.
        planar: Whether any case is a single image.
        channels, channel_kind: Number and kind of the image channels.
        modality: The most frequent modality, or ``None``.
    """

    class_names: tuple[str, ...]
    cases: tuple[SeenCase, ...]
    case_fingerprints: tuple[CaseFingerprint, ...]
    orientation: Orientation
    spacing_known: bool
    planar: bool
    channels: int
    channel_kind: ChannelKind
    modality: str | None

    @property
    def shape(self) -> Array:
        """``(3,)`` median voxels along D, H, W."""
        return np.median([case.shape for case in self.cases], axis=0)

    @property
    def spacing(self) -> Array:
        """``(3,)`` median voxel spacing along D, H, W."""
        return np.median([case.spacing for case in self.cases], axis=0)

    @property
    def field(self) -> Array:
        """``(3,)`` median extent of a scan in mm (voxels where the spacing is unknown)."""
        return np.median([np.multiply(case.shape, case.spacing) for case in self.cases], axis=0)

    @property
    def objects(self) -> list[SeenObject]:
        """Every object of every case."""
        return [item for case in self.cases for item in case.objects]

    def class_sizes(self) -> dict[str, Array]:
        """``(3,)`` median size D, H, W of each class that occurs."""
        sizes: dict[str, list[Triple]] = {}
        for item in self.objects:
            sizes.setdefault(item.class_name, []).append(item.size)
        return {name: np.median(sizes[name], axis=0) for name in self.class_names if name in sizes}

    @property
    def smallest(self) -> tuple[str, Array]:
        """The class whose median object is smallest in plane, and that object's size."""
        return min(self.class_sizes().items(), key=lambda pair: in_plane(pair[1]))

    @property
    def largest(self) -> tuple[str, Array]:
        """The class whose median object has the largest box, and that object's size."""
        return max(self.class_sizes().items(), key=lambda pair: float(np.prod(pair[1])))

    @property
    def partly_labelled(self) -> bool:
        """Whether a class was not annotated in some case."""
        return any(len(case.annotated) < len(self.class_names) for case in self.cases)

    def counts(self, class_name: str | None = None) -> Array:
        """Objects in each case: of one class, in the cases where it was annotated, or of all, ``(cases,)``.

        Of all classes, a case counts as many objects of a class that is unknown in it as the others hold on average.
        """
        if class_name is None:
            return np.sum([self._expected(name) for name in self.class_names], axis=0)
        return np.array([_count(case, class_name) for case in self.cases if class_name in case.annotated], np.float64)

    def _expected(self, class_name: str) -> Array:
        """``(cases,)`` objects of a class; the mean where it is unknown."""
        known = self.counts(class_name)
        mean = float(known.mean()) if len(known) else 0.0
        return np.array([_count(c, class_name) if class_name in c.annotated else mean for c in self.cases], np.float64)

    @property
    def objects_p90(self) -> int:
        """90th percentile of the number of objects per scan, at least 1."""
        return max(1, round(float(np.percentile(self.counts(), 90))))


def _count(case: SeenCase, class_name: str) -> int:
    return sum(item.class_name == class_name for item in case.objects)


def in_plane(size: Array) -> float:
    """In-plane size of an extent D, H, W: the geometric mean of H and W."""
    return float(np.sqrt(size[1] * size[2]))


def dataset_fingerprint(manifest: Manifest, case_fingerprints: Sequence[CaseFingerprint]) -> DatasetFingerprint:
    """Summarise the training cases in the axes of the network.

    Raises:
        ReadError: if there are no training cases, they hold no object, or they differ in channels.
    """
    learnt = tuple(fact for fact in case_fingerprints if fact.split in FOR_TRAINING)
    if not learnt:
        raise ReadError(f"{manifest.name} cannot be planned for: no case has the split train, or none")
    if not any(fact.objects for fact in learnt):
        raise ReadError(f"{manifest.name} cannot be planned for: no training case holds an object")
    channels = sorted({fact.channels for fact in learnt})
    if len(channels) > 1:
        raise ReadError(f"{manifest.name} cannot be planned for: its images have {channels} channels; give all as many")
    planar = any(fact.is_planar for fact in learnt)
    spacing_known = all(fact.spacing_mm is not None for fact in learnt)
    orientation = _orientation(learnt, planar=planar, spacing_known=spacing_known)
    every = frozenset(manifest.class_names)
    told = {case.id: frozenset(manifest.annotated_in(case)) for case in manifest.cases}
    cases = (_turn(c, orientation, told.get(c.id, every), spacing_known=spacing_known) for c in learnt)
    modalities = Counter(fact.modality or manifest.modality for fact in learnt)
    return DatasetFingerprint(
        class_names=manifest.class_names,
        cases=tuple(cases),
        case_fingerprints=learnt,
        orientation=orientation,
        spacing_known=spacing_known,
        planar=planar,
        channels=channels[0],
        channel_kind=Counter(fact.channel_kind for fact in learnt).most_common(1)[0][0],
        modality=modalities.most_common(1)[0][0],
    )


def _orientation(case_fingerprints: Sequence[CaseFingerprint], *, planar: bool, spacing_known: bool) -> Orientation:
    """``"acquisition"`` if most scans were not acquired axially, so that their thick axis is not S."""
    if planar or not spacing_known:
        return "as_stored"
    otherwise = 0
    for fact in case_fingerprints:
        spacing = [fact.grid.voxel_size[axis] for axis in choose_axes(fact.grid, "SPL").order]
        otherwise += max(spacing[1:]) > _THICKER * spacing[0]
    return "acquisition" if 2 * otherwise > len(case_fingerprints) else "SPL"


def _turn(
    fact: CaseFingerprint, orientation: Orientation, annotated: frozenset[str], *, spacing_known: bool
) -> SeenCase:
    order = choose_axes(fact.grid, orientation).order
    spacing = fact.grid.voxel_size if spacing_known else (1.0, 1.0, 1.0)
    objects = tuple(
        SeenObject(item.class_name, _ordered([n * s for n, s in zip(item.extent, spacing, strict=True)], order))
        for item in fact.objects
    )
    d, h, w = (fact.shape[axis] for axis in order)
    left_right = _left_right(fact, order) if spacing_known else None
    return SeenCase((d, h, w), _ordered(spacing, order), objects, annotated, left_right)


def _ordered(values: Sequence[float], order: tuple[int, int, int]) -> Triple:
    d, h, w = (float(values[axis]) for axis in order)
    return d, h, w


def _left_right(fact: CaseFingerprint, order: tuple[int, int, int]) -> int:
    """The network's axis that runs closest to left-right (row R of the affine)."""
    right = np.abs(fact.grid.affine_vox_to_ras[0, :3]) / np.asarray(fact.grid.voxel_size)
    return int(np.argmax([right[axis] for axis in order]))
