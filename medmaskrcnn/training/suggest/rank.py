"""The order in which to label scans: unsure ones first, but none that look like what is labelled or ranked already.

Greedy k-centre (Sener and Savarese 2018) on the scans' features, with distances weighted by uncertainty: the next scan
is the one with the largest product of its uncertainty and its distance to the nearest scan that is labelled or ranked.
Uncertainty counts as its rank among the scans, so that one odd scan does not decide alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_SPREAD = 1e-6  # a feature that hardly varies says nothing


def order(
    uncertainty: NDArray[np.float64], features: NDArray[np.float64], labelled: NDArray[np.float64] | None = None
) -> tuple[list[int], NDArray[np.float64]]:
    """Rank scans.

    Args:
        uncertainty: ``(N,)``, any scale.
        features: ``(N, F)``.
        labelled: ``(M, F)`` features of scans that are labelled already.

    Returns:
        Indices of the scans, the first to be labelled first, and ``(N,)`` the distance of each scan, when it was
        chosen, to the nearest scan before it, 0 to 1; 1 for the first where nothing is labelled.
    """
    count = len(uncertainty)
    others = np.zeros((0, features.shape[1])) if labelled is None else labelled
    pooled = np.concatenate([features, others])
    spread = pooled.std(axis=0)
    scaled = (pooled - pooled.mean(axis=0)) / np.where(spread > _LEAST_SPREAD, spread, np.inf)
    own, known = scaled[:count], scaled[count:]
    unsure = (np.argsort(np.argsort(uncertainty, kind="stable"), kind="stable") + 1) / count
    largest = max(float(np.linalg.norm(own - own.mean(axis=0), axis=1).max(initial=0.0)) * 2, 1e-12)
    nearest = np.full(count, 1.0)
    for row in known:
        nearest = np.minimum(nearest, np.linalg.norm(own - row, axis=1) / largest)
    left, ranked, distances = list(range(count)), [], np.zeros(count)
    while left:
        best = max(left, key=lambda i: (unsure[i] * (nearest[i] + 1e-9), -i))
        left.remove(best)
        ranked.append(best)
        distances[best] = nearest[best]
        nearest = np.minimum(nearest, np.linalg.norm(own - own[best], axis=1) / largest)
    return ranked, distances
