"""The network's grid: 2D, 2.5D or 3D, the spacing that scans are resampled to, and the strides of the FPN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.training.planner.dataset_fingerprint import Array, DatasetFingerprint, SeenCase, in_plane

COARSE_STRIDE = 4
"""In-plane stride of P2 in FPN, in voxels."""

MASK_BINS = 28
"""Bins per axis of a predicted mask: the mask head's 14, upsampled by 2."""

_COARSEST_BINS = 1.0  # voxels per mask bin; with fewer, outlines lose detail: scans are not shrunk further
_WHOLE_SCAN = {2: 800_000, 3: 800_000}  # voxels in which a whole slice or scan should fit
_ISOTROPIC = 1.2  # spacings within this factor count as equal
_SAME = (0.8, 1.07)  # target spacing over the scans' own: within these limits their own is kept, without interpolation
_ANISOTROPIC = 3.0  # slice thickness over pixel width from which a 2D or 2.5D network may be chosen
_FEW_SLICES = 12.0  # slices per scan
_SLICES_OF_AN_OBJECT = 5.0  # slices per object; with fewer, 3D gains nothing
_NO_NEIGHBOUR = 1.5  # slices per object; with fewer, neighbouring slices do not show it
_CELLS = 8.0  # P2 cells that the class with the fewest slices should span along D
_CELLS_ACROSS = 7.0  # P2 cells that the smallest class should span in the plane: one for each bin of the box head
_FINER = (2, 1)  # strides of P2 to try where COARSE_STRIDE gives fewer
_AROUND = 1.25  # side of a window around an object
_MOST_FINE = {2: 512.0**2, 3: 1_000_000.0}  # voxels, counted at COARSE_STRIDE, that a window may have at a finer one


@dataclass(frozen=True)
class GridPlan:
    """How a scan is resampled to the network's grid.

    Attributes:
        dims: 2 or 3, the model's spatial dimensions.
        context_slices: Neighbours on each side (2.5D).
        spacing: ``(3,)`` spacing of the network's voxels, in the fingerprint's unit.
        spacing_mm: Value of ``preprocess.spacing_mm``.
        resize_min_max: Value of ``preprocess.resize_min_max``, for images without a spacing.
        strides: Strides of P2..P5, per spatial axis.
    """

    dims: int
    context_slices: int
    spacing: Array
    spacing_mm: tuple[float | None, float | None, float | None]
    resize_min_max: tuple[int, int] | None
    strides: tuple[tuple[int, ...], ...]

    @property
    def fineness(self) -> float:
        """How many times as many cells of P2 a voxel has as with FPN's first stride: what a window costs by it."""
        return float((COARSE_STRIDE / self.strides[0][-1]) ** self.dims)

    def scans(self, fingerprint: DatasetFingerprint) -> Array:
        """``(cases, 3)`` shapes of the scans in voxels of the network."""
        return np.array([np.multiply(case.shape, case.spacing) * self._scale(case) for case in fingerprint.cases])

    def objects(self, fingerprint: DatasetFingerprint) -> tuple[tuple[str, ...], Array]:
        """Class names and ``(N, 3)`` extents of all objects in voxels of the network."""
        names = tuple(item.class_name for item in fingerprint.objects)
        sizes = [np.asarray(item.size) * self._scale(case) for case in fingerprint.cases for item in case.objects]
        return names, np.array(sizes)

    def _scale(self, case: SeenCase) -> Array:
        """``(3,)`` network voxels per unit of the fingerprint."""
        if self.resize_min_max is None:
            return 1 / self.spacing
        short, long = sorted(case.shape[1:])
        factor = min(self.resize_min_max[0] / short, self.resize_min_max[1] / long)
        return np.array([1.0, factor, factor])


def plan_grid(fingerprint: DatasetFingerprint, dims: float | None, reasons: dict[str, str]) -> GridPlan:
    """Choose dimensions, spacing and strides; the reasons are added to ``reasons``.

    Raises:
        ValueError: if ``dims`` is not 2, 2.5 or 3.
        ReadError: if ``dims`` is 2.5 or 3 for single images.
    """
    chosen = _dims(fingerprint, dims, reasons)
    spatial = 3 if chosen == 3 else 2
    spacing, spacing_mm, resize = _spacing(fingerprint, spatial, reasons)
    reasons["preprocess.orientation"] = {
        "as_stored": "Pictures and scans of unknown spacing have no place in a patient: axes stay as they are.",
        "SPL": "Slices up, rows to the back, columns to the left, whatever the file's order.",
        "acquisition": "Most scans are thick along another axis than up: the thickest axis comes first.",
    }[fingerprint.orientation]
    strides = _strides(fingerprint, spacing, resize, spatial, reasons)
    return GridPlan(spatial, int(chosen == 2.5), spacing, spacing_mm, resize, strides)


def _dims(fingerprint: DatasetFingerprint, asked: float | None, reasons: dict[str, str]) -> float:
    if asked is not None and asked not in (2, 2.5, 3):
        raise ValueError(f"dims must be 2, 2.5 or 3, got {asked}")
    if fingerprint.planar and asked not in (None, 2):
        raise ReadError(
            f"{fingerprint.case_fingerprints[0].id} and its like are single images: "
            "only a 2D network can learn from them"
        )
    thickness = float(fingerprint.spacing[0] / np.sqrt(fingerprint.spacing[1] * fingerprint.spacing[2]))
    name, size = min(fingerprint.class_sizes().items(), key=lambda pair: float(pair[1][0]))
    slices, depth = float(size[0] / fingerprint.spacing[0]), float(fingerprint.shape[0])
    seen = f"slices {thickness:.1f} times as thick as pixels are wide, {depth:.0f} a scan, {slices:.0f} a {name}"
    if fingerprint.planar:
        why, dims = "Single images.", 2.0
    elif thickness < _ANISOTROPIC:
        why, dims = f"Fine slices ({seen}): objects are seen whole in 3D.", 3.0
    elif slices < _NO_NEIGHBOUR:
        why, dims = f"Slices that share no object ({seen}): each is looked at alone.", 2.0
    elif slices < _SLICES_OF_AN_OBJECT or depth < _FEW_SLICES:
        why, dims = f"Few thick slices ({seen}): slice by slice, with a neighbour on either side.", 2.5
    else:
        why, dims = f"Thick slices, but enough of them ({seen}): 3D with flat voxels.", 3.0
    if asked is not None and asked != dims:
        why, dims = f"Asked for {asked:g}D; the planner's own choice: {dims:g}D. {why}", float(asked)
    reasons["model.spatial_dims"] = why
    reasons["model.context_slices"] = "2.5D: neighbours on each side." if dims == 2.5 else "No neighbouring slices."
    return dims


def _spacing(
    fingerprint: DatasetFingerprint, dims: int, reasons: dict[str, str]
) -> tuple[Array, tuple[float | None, float | None, float | None], tuple[int, int] | None]:
    own = in_plane(fingerprint.spacing)
    target = _plane_spacing(fingerprint, dims, own)
    unit = "mm" if fingerprint.spacing_known else "pixels"
    name, size = fingerprint.smallest
    span = in_plane(size)
    seen = f"the scans' own {own:.3g} {unit} give a median {name} {span / own:.0f} pixels" + (
        f", {target:.3g} {unit} {span / target:.0f}" if target != own else "; they are never enlarged"
    )
    if not fingerprint.spacing_known:
        return _without_spacing(fingerprint, dims, own, target, seen, reasons)
    depth, why_depth = _depth_spacing(fingerprint, dims, own, target)
    mm = (None if dims == 2 else depth, target, target)
    reasons["preprocess.spacing_mm"] = f"{why_depth} In the plane: {seen}."
    reasons["preprocess.resize_min_max"] = "Spacing is known."
    return np.array([depth, target, target]), mm, None


def _plane_spacing(fingerprint: DatasetFingerprint, dims: int, own: float) -> float:
    """The finest in-plane spacing, between what masks need and what they can use, at which a scan still fits."""
    span = in_plane(fingerprint.smallest[1])
    coarsest = max(own, span / (_COARSEST_BINS * MASK_BINS))
    steps = np.geomspace(own, coarsest, 60)  # interpolation adds no detail: small objects get finer strides instead
    fitting = [s for s in steps if _scan_voxels(fingerprint, dims, own, float(s)) <= _WHOLE_SCAN[dims]]
    target = float(fitting[0]) if fitting else coarsest
    return float(f"{own:.4g}") if _SAME[0] < target / own < _SAME[1] else float(f"{target:.2g}")


def _scan_voxels(fingerprint: DatasetFingerprint, dims: int, own: float, target: float) -> float:
    depth, _ = _depth_spacing(fingerprint, dims, own, target)
    cells = fingerprint.field / np.array([depth, target, target])
    return float(np.prod(cells[1:] if dims == 2 else cells))


def _depth_spacing(fingerprint: DatasetFingerprint, dims: int, own: float, target: float) -> tuple[float, str]:
    """Slice spacing of the network, and the reason."""
    slices = float(f"{fingerprint.spacing[0]:.4g}")
    if dims == 2:
        return slices, "Slices as they are."
    if not fingerprint.spacing_known:
        return slices, ""
    if slices > _ISOTROPIC * max(own, target):
        return slices, f"Thick slices ({slices:g} mm) are kept."
    return target, f"Slices of {slices:g} mm are about as thick as pixels are wide: one spacing for all axes."


def _without_spacing(
    fingerprint: DatasetFingerprint, dims: int, own: float, target: float, seen: str, reasons: dict[str, str]
) -> tuple[Array, tuple[None, None, None], tuple[int, int] | None]:
    """Images without a spacing: only their size in pixels can decide how to scale them."""
    reasons["preprocess.spacing_mm"] = "The files do not tell the size of a pixel."
    sides = np.array([sorted(case.shape[1:]) for case in fingerprint.cases], np.float64)
    short, aspect = np.median(sides[:, 0]) / target, (sides[:, 1] / sides[:, 0]).max()
    if dims == 3 or target == own:
        reasons["preprocess.resize_min_max"] = f"Scans of unknown spacing are taken as they are: {seen}."
        return np.ones(3), (None, None, None), None
    smallest = round(short)
    largest = int(np.ceil(smallest * aspect))
    reasons["preprocess.resize_min_max"] = (
        f"Shorter side {np.median(sides[:, 0]):.0f} pixels (median), to be {smallest}; sides differ by a factor of "
        f"{aspect:.2g} at most; {seen}."
    )
    return np.array([1.0, target, target]), (None, None, None), (smallest, largest)


def _strides(
    fingerprint: DatasetFingerprint,
    spacing: Array,
    resize: tuple[int, int] | None,
    dims: int,
    reasons: dict[str, str],
) -> tuple[tuple[int, ...], ...]:
    first, why = _first_stride(fingerprint, spacing, resize, dims)
    planes = [first * 2**level for level in range(4)]
    if dims == 2:
        reasons["model.backbone.strides"] = why
        return tuple((p, p) for p in planes)
    depths, why_depth = _depth_strides(fingerprint, spacing, planes)
    reasons["model.backbone.strides"] = f"{why} {why_depth}"
    return tuple((d, p, p) for d, p in zip(depths, planes, strict=True))


def _first_stride(
    fingerprint: DatasetFingerprint, spacing: Array, resize: tuple[int, int] | None, dims: int
) -> tuple[int, str]:
    """In-plane stride of P2, and the reason: the coarsest that gives the smallest class enough cells.

    Halving it takes four times as many cells in 2D and eight times in 3D. This pays where a window of that many still
    holds what it held before: the whole scan, or of a scan that is seen in parts the largest class.
    """
    unit = np.ones(3) if resize is None and not fingerprint.spacing_known else spacing
    name, smallest = fingerprint.smallest
    span = in_plane(smallest / unit)
    scan = fingerprint.field / unit
    in_parts = dims == 2 or np.prod(scan) > _MOST_FINE[3]
    window = float(
        np.prod((np.minimum(scan, _AROUND * fingerprint.largest[1] / unit) if in_parts else scan)[3 - dims :])
    )
    seen = f"a median {name} of {span:.0f} voxels spans {span / COARSE_STRIDE:.1f} cells of {COARSE_STRIDE} voxels"
    if span >= _CELLS_ACROSS * COARSE_STRIDE:
        return COARSE_STRIDE, f"FPN's own strides: {seen}."
    first = COARSE_STRIDE
    for finer in _FINER:
        if span < _CELLS_ACROSS * first and window * (COARSE_STRIDE / finer) ** dims <= _MOST_FINE[dims]:
            first = finer
    if first == COARSE_STRIDE:
        held = "the largest class" if in_parts else "a whole scan"
        return first, f"FPN's own strides, though {seen}: with finer cells a window could not hold {held}."
    return first, f"Finer than FPN's {COARSE_STRIDE}: {seen}, {span / first:.1f} of {first}."


def _depth_strides(fingerprint: DatasetFingerprint, spacing: Array, planes: list[int]) -> tuple[list[int], str]:
    """Strides along D of P2..P5, and the reason."""
    name, size = min(fingerprint.class_sizes().items(), key=lambda pair: float(pair[1][0]))
    slices, first = float(size[0] / spacing[0]), planes[0]
    flat = float(spacing[0] / spacing[1])
    depth = max(s for s in (1, 2, 4) if s == 1 or s * flat <= first)
    while depth > 1 and slices / depth < _CELLS and depth * flat >= first:
        depth //= 2
    depths = [depth]
    for plane in planes[1:]:
        depth = 2 * depth if 2 * depth * flat <= plane else depth
        depths.append(depth)
    return depths, (
        f"Voxels are {flat:.2g} times as deep as wide: cells of P2 are {depths[0] * spacing[0]:.3g} x "
        f"{first * spacing[1]:.3g}{' mm' if fingerprint.spacing_known else ' voxels'}, no deeper than wide "
        f"where slices allow; a median {name} spans {slices / depths[0]:.1f} of them in depth."
    )
