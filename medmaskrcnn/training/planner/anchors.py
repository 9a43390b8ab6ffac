"""Anchors fitted to the objects: from the smallest to the largest, each object has one that overlaps it well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmaskrcnn.settings import AnchorSettings
from medmaskrcnn.training.planner.dataset_fingerprint import Array, DatasetFingerprint
from medmaskrcnn.training.planner.grid import GridPlan

_LEVELS = 5  # P2..P6
_ITERATIONS = 50  # of k-means, which converges long before
_SPREAD = (0.8, 1.0, 1.25)  # relative sizes of an object after zoom and cropping
_SLICED = (0.5, 0.75, 1.0)  # shares of an object's width that a slice shows
_SMALLEST_EDGE = 2.0  # voxels
_VARIED = 0.25  # standard deviation of log(height / width) within a level above which one shape is not enough
_SMALLEST_SHARE, _LARGEST_SHARE = 10, 90  # percentiles of a class's objects that the outermost anchors have to cover
_OVERLAP = 0.5  # IoU with its best anchor that nine of ten objects of every class should reach
_GAIN = 0.05  # of that IoU, for which a level gets a second size: twice as many anchors take time


def plan_anchors(fingerprint: DatasetFingerprint, grid: GridPlan, reasons: dict[str, str]) -> AnchorSettings:
    """One size per level by k-means on the logarithms of the objects' edges, with equal weight for all classes.

    The means of the outermost groups are moved so that the largest objects, and the smallest, are covered too. A level
    gets two sizes if that covers the worst covered class much better.
    """
    names, sizes = grid.objects(fingerprint)
    edges = np.maximum(sizes[:, 3 - grid.dims :], _SMALLEST_EDGE)
    share = {name: 1.0 / names.count(name) for name in set(names)}
    weights = np.array([share[name] for name in names])
    sliced = grid.dims == 2 and not fingerprint.planar
    factors = _SLICED if sliced else _SPREAD
    logs = np.concatenate([np.log(edges * factor) for factor in factors])
    means, nearest = weighted_k_means(logs, np.tile(weights, len(factors)), _LEVELS)
    tall = (logs - means[nearest]) @ np.array([0.0] * (grid.dims - 2) + [1.0, -1.0])
    varied = float(np.sqrt(np.average(tall**2, weights=np.tile(weights, len(factors)))))
    wide = float(f"{np.exp(1.2 * varied):.2g}")
    ratios = (round(1 / wide, 2), 1.0, wide) if varied > _VARIED else (1.0,)
    best = _fitted(means, names, edges, ratios)
    if best.least[1] < _OVERLAP:
        finer = weighted_k_means(logs, np.tile(weights, len(factors)), 2 * _LEVELS)[0]
        two = _fitted(finer, names, edges, ratios)
        best = two if two.least[1] > best.least[1] + _GAIN else best
    shown = " x ".join(f"{low:.0f}-{high:.0f}" for low, high in zip(edges.min(0), edges.max(0), strict=True))
    reasons["model.anchors"] = (
        f"Fitted to {len(edges)} objects of {shown} voxels: they overlap their best anchor by an IoU of "
        f"{best.median:.2f} (median); nine of ten of the least covered class, {best.least[0]}, by {best.least[1]:.2f}."
    )
    reasons["model.anchors.sizes"] = (
        f"{len(best.sizes)} groups of their edges (k-means on logarithms, classes alike), the outermost moved to the "
        f"objects of the smallest and the largest class, {'one' if len(best.sizes) == _LEVELS else 'two'} a level"
        + ("; slices show less than an object's whole width." if sliced else "; windows cut and zoom them.")
    )
    reasons["model.anchors.ratios"] = (
        f"Height over width differs by a factor of {np.exp(varied):.2f} within a level: "
        + ("three shapes." if len(ratios) == 3 else "one shape.")
    )
    return AnchorSettings(sizes=tuple(map(tuple, best.sizes.tolist())), ratios=ratios)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Sizes of anchors, and how well they cover the objects.

    Attributes:
        sizes: ``(count, S)``, smallest first.
        median: Median IoU of an object with its best anchor.
        least: The class that is covered least, and the IoU that nine of ten of its objects reach.
    """

    sizes: Array
    median: float
    least: tuple[str, float]


def _fitted(means: Array, names: tuple[str, ...], edges: Array, ratios: tuple[float, ...]) -> _Fit:
    moved = np.maximum(np.exp(_reaching(means, names, np.log(edges))), _SMALLEST_EDGE)
    sizes = np.array([[float(f"{edge:.2g}") for edge in anchor] for anchor in moved])
    reached = best_overlaps(edges, sizes, ratios)
    of_class = {name: float(np.percentile(reached[np.array(names) == name], 10)) for name in sorted(set(names))}
    return _Fit(sizes, float(np.median(reached)), min(of_class.items(), key=lambda pair: pair[1]))


def best_overlaps(edges: Array, anchors: Array, ratios: tuple[float, ...] = (1.0,)) -> Array:
    """``(N,)`` IoU of each object with the best anchor, both around one centre.

    Args:
        edges: ``(N, S)`` edges of the objects.
        anchors: ``(count, S)`` sizes of the anchors.
        ratios: Height over width at constant area.
    """
    shapes = []
    for ratio in ratios:
        turned = anchors.copy()
        turned[:, -2] *= np.sqrt(ratio)
        turned[:, -1] /= np.sqrt(ratio)
        shapes.append(turned)
    boxes = np.concatenate(shapes)
    shared = np.minimum(edges[:, None], boxes[None]).prod(axis=2)
    union = edges.prod(axis=1)[:, None] + boxes.prod(axis=1)[None] - shared
    return np.asarray((shared / union).max(axis=1))


def _reaching(means: Array, names: tuple[str, ...], logs: Array) -> Array:
    """The means with the outermost moved out to the smallest objects of any class and to the largest."""
    of_class = [logs[[one == name for one in names]] for name in dict.fromkeys(names)]
    smallest = min((np.percentile(own, _SMALLEST_SHARE, axis=0) for own in of_class), key=np.sum)
    largest = max((np.percentile(own, _LARGEST_SHARE, axis=0) for own in of_class), key=np.sum)
    moved = means.copy()
    if smallest.sum() < means[0].sum():
        moved[0] = smallest
    if largest.sum() > means[-1].sum():
        moved[-1] = largest
    return moved


def weighted_k_means(points: Array, weights: Array, count: int) -> tuple[Array, Array]:
    """Deterministic Lloyd's k-means: it starts from equal shares of the points ordered by their sum.

    Args:
        points: ``(N, S)``.
        weights: ``(N,)``, positive.
        count: Number of means.

    Returns:
        ``(count, S)`` means, smallest sum first, and the index ``(N,)`` of each point's mean.
    """
    order = np.argsort(points.sum(axis=1), kind="stable")
    share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    means = np.array([points[order[np.argmin(np.abs(share - (k + 0.5) / count))]] for k in range(count)])
    for _ in range(_ITERATIONS):
        nearest = np.argmin(((points[:, None] - means[None]) ** 2).sum(axis=2), axis=1)
        moved = means.copy()
        for k in range(count):
            own = nearest == k
            if own.any():
                moved[k] = np.average(points[own], axis=0, weights=weights[own])
        if np.allclose(moved, means):
            break
        means = moved
    means = means[np.argsort(means.sum(axis=1), kind="stable")]
    return means, np.argmin(((points[:, None] - means[None]) ** 2).sum(axis=2), axis=1)
