"""How a scan lies in napari's world: axes inferior, posterior, left, in mm.

napari draws the last two world axes downwards and to the right, and the slider moves along the first. With the
world's axes pointing Inferior, Posterior and Left, every view is the one a radiologist expects:

* axial: anterior up, the patient's right on the left of the screen, the slider runs from head to feet;
* coronal (roll the axes once): head up, the patient's right on the left;
* sagittal: head up, anterior on the left;
* 3D: not mirrored, because I, P, L is right-handed as R, A, S is.

napari cannot slice a layer whose affine swaps or tilts axes ("non-orthogonal slicing"), so a scan's array is permuted
and flipped onto the world's axes (views of the same memory, nothing is resampled), which leaves a scale and a
translation. An oblique scan is shown unrotated along its own axes about its own centre, as it was acquired; its exact
affine stays in the layer's metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask

IPL_FROM_RAS = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
"""Left-multiplied with an affine into R, A, S it gives the one into napari's world: I, P, L."""

WORLD_AXES = ("inferior", "posterior", "left")


@dataclass(frozen=True)
class DisplayFrame:
    """The mapping from a scan's stored axes D, H, W to napari's world axes I, P, L.

    Attributes:
        axes: For each world axis I, P, L the stored axis (0 = D, 1 = H, 2 = W) that runs along it.
        flipped: For each world axis whether the stored axis runs against it.
        shape: Voxels along I, P, L.
        scale: Voxel size along I, P, L: mm, or pixels where the scan's spacing is unknown.
        translate: World position I, P, L of the centre of the displayed array's first voxel.
        unit: ``"mm"`` or ``"pixel"``.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    scale: tuple[float, float, float]
    translate: tuple[float, float, float]
    unit: str

    def to_display(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of ``(D, H, W, ...)`` stored voxels with axes I, P, L, ..."""
        rest = tuple(range(3, array.ndim))
        return array.transpose(*self.axes, *rest)[self._flips()]

    def to_stored(self, array: NDArray[Any]) -> NDArray[Any]:
        """The inverse: a view of ``(I, P, L, ...)`` voxels with axes D, H, W, ..."""
        rest = tuple(range(3, array.ndim))
        return array[self._flips()].transpose(*np.argsort(self.axes), *rest)

    def coordinate_to_display(self, coordinate_vox: ArrayLike) -> NDArray[np.float64]:
        """napari data coordinates I, P, L of continuous voxel coordinates ``(..., 3)`` D, H, W.

        napari's integers are voxel centres, ours are voxel edges: hence the half voxel.
        """
        moved = np.asarray(coordinate_vox, dtype=np.float64)[..., self.axes]
        return np.where(self.flipped, np.asarray(self.shape) - moved, moved) - 0.5

    def mask_to_display(self, mask: Mask) -> Mask:
        """A mask of stored voxels D, H, W in the displayed array I, P, L."""
        stored_shape = tuple(self.shape[self.axes.index(axis)] for axis in range(3))
        return AxisMap(self.axes, self.flipped).apply_mask(mask, stored_shape)

    def mask_to_stored(self, mask: Mask) -> Mask:
        """The inverse: a mask of displayed voxels I, P, L in the stored array D, H, W."""
        return AxisMap(self.axes, self.flipped).undo_mask(mask, self.shape)

    def coordinate_to_stored(self, displayed: ArrayLike) -> NDArray[np.float64]:
        """Continuous voxel coordinates ``(..., 3)`` D, H, W of napari data coordinates I, P, L."""
        edges = np.asarray(displayed, dtype=np.float64) + 0.5
        moved = np.where(self.flipped, np.asarray(self.shape) - edges, edges)
        return np.asarray(moved[..., np.argsort(self.axes)])

    def _flips(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)


def display_frame(grid: Grid) -> DisplayFrame:
    """The frame in which a scan on ``grid`` is shown; the scan's centre keeps its exact position."""
    affine = IPL_FROM_RAS @ grid.affine_vox_to_ras
    world_of_stored, signs = nib.orientations.io_orientation(affine).T
    axes = tuple(int(a) for a in np.argsort(world_of_stored))
    flipped = tuple(bool(signs[a] < 0) for a in axes)
    shape = np.array([grid.shape[a] for a in axes])
    scale = np.array([grid.voxel_size[a] for a in axes])
    centre = affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + affine[:3, 3]
    return DisplayFrame(
        axes=(axes[0], axes[1], axes[2]),
        flipped=(flipped[0], flipped[1], flipped[2]),
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        scale=(float(scale[0]), float(scale[1]), float(scale[2])),
        translate=tuple((centre - scale * (shape - 1) / 2).tolist()),
        unit="mm" if grid.spacing_known else "pixel",
    )
