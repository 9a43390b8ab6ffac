"""Objects made of boxes of voxels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medmaskrcnn.postprocess.found import Found
from medmaskrcnn.structures.instances import tight_crop


def found_from(dense: np.ndarray, *, label: int = 0, score: float = 0.9) -> Found:
    """The object that a boolean scan ``(D, H, W)`` shows, its box tight."""
    start, mask = tight_crop(dense.astype(bool), (0, 0, 0))
    box = np.array([*start, *(a + n for a, n in zip(start, mask.shape, strict=True))], dtype=np.float32)
    return Found(label, score, box, start, mask)


def dense_of(found: Found, shape: tuple[int, int, int]) -> np.ndarray:
    """The boolean scan that shows an object."""
    dense = np.zeros(shape, bool)
    dense[tuple(slice(a, b) for a, b in zip(found.start, found.end, strict=True))] = found.mask
    return dense


@pytest.fixture(scope="session")
def as_found() -> Callable[..., Found]:
    return found_from


@pytest.fixture(scope="session")
def as_dense() -> Callable[..., np.ndarray]:
    return dense_of
