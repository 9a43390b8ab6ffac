"""Smooth random fields on a scan's voxels: the deformation of organs, the mottle of tissue, the paths of vessels.

Random numbers on a coarse lattice are the coefficients of a uniform cubic B-spline. The spline factors into one
small matrix per axis, so any window of the scan takes three matrix products and the whole field is never stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn_datasets.shapes import Field

Window = tuple[slice, slice, slice]

_SPLINE_STD = (151 / 315) ** 0.5
"""Standard deviation, along one axis, of a cubic B-spline with independent unit coefficients (mean over position)."""


class SmoothField:
    """A random field with standard deviation close to 1 and bounded values.

    Args:
        shape: Voxels of the scan along D, H, W.
        spacing_mm: Their spacing.
        scale_mm: Distance between lattice points: structures are about this large.
        rng: Source of the coefficients.
    """

    def __init__(
        self, shape: Sequence[int], spacing_mm: Sequence[float], *, scale_mm: float, rng: np.random.Generator
    ) -> None:
        self._steps = [s / scale_mm for s in spacing_mm]
        counts = [int(np.ceil((n - 1) * step)) + 4 for n, step in zip(shape, self._steps, strict=True)]
        coefficients = rng.uniform(-(3**0.5), 3**0.5, size=counts) / _SPLINE_STD**3
        self._coefficients = coefficients.astype(np.float32)
        self._bases = [
            _basis(np.arange(n) * step, count) for n, step, count in zip(shape, self._steps, counts, strict=True)
        ]

    def on(self, window: Window) -> Field:
        """Values on a window of the scan, ``(d, h, w)`` float32."""
        d, h, w = (basis[part] for basis, part in zip(self._bases, window, strict=True))
        return _tensor_product(d, h, w, self._coefficients)

    def at(self, index_vox: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at ``(P, 3)`` positions given as (fractional) voxel indices, clamped to the scan."""
        rows = []
        for axis, (step, basis) in enumerate(zip(self._steps, self._bases, strict=True)):
            inside = np.clip(index_vox[:, axis], 0, len(basis) - 1)
            rows.append(_basis(inside * step, basis.shape[1]))
        values: NDArray[np.float64] = np.einsum("pd,ph,pw,dhw->p", *rows, self._coefficients, optimize=True)
        return values

    def largest(self) -> float:
        """An upper bound on the field's absolute values, estimated on a subset of voxels and rounded up."""
        coarse = [np.unique(np.linspace(0, len(b) - 1, 4 * b.shape[1]).astype(int)) for b in self._bases]
        d, h, w = (basis[rows] for basis, rows in zip(self._bases, coarse, strict=True))
        return 1.05 * float(np.abs(_tensor_product(d, h, w, self._coefficients)).max())


def _tensor_product(d: Field, h: Field, w: Field, coefficients: Field) -> Field:
    """``d``, ``h`` and ``w`` applied to the three axes of the coefficients, each as one matrix product.

    One for each slice would be as many, and so small that the threads of the BLAS would mostly wait for one another.
    """
    rows = np.tensordot(h, np.tensordot(d, coefficients, axes=1), axes=(1, 1))  # (h, d, coefficients along W)
    return np.ascontiguousarray(np.tensordot(rows, w, axes=(2, 1)).swapaxes(0, 1))


def _basis(position: NDArray[np.floating], count: int) -> Field:
    """Weights ``(len(position), count)`` of a uniform cubic B-spline at positions in lattice steps, from 0."""
    whole = np.minimum(np.floor(position).astype(int), count - 4)
    t = position - whole
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    matrix = np.zeros((len(position), count), np.float32)
    np.put_along_axis(matrix, whole[:, None] + np.arange(4), weights.astype(np.float32), axis=1)
    return matrix
