"""How familiar a scan looks to a model: a density over features of its own network.

The maps of the feature pyramid are pooled over a few windows of the scan, and a normal distribution, estimated on scans
of the model's own kind, tells how strange they are: the Mahalanobis distance (Lee et al. 2018, section 2.1) along the
principal axes, and the length of what these leave. Nothing is learnt from foreign scans, so that kinds that nobody
thought of are strange too.

Letters: ``W`` windows of a scan, ``F`` features, ``A`` principal axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmaskrcnn.errors import Remedy, UnsuitableScanError
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.detect import slice_images
from medmaskrcnn.inference.prepare import Preprocessed, turned_spacing
from medmaskrcnn.models.images import pad_to_multiple
from medmaskrcnn.settings import FamiliaritySettings, ModelFileSettings, SegmentOptions
from medmaskrcnn.structures.volume import Volume

Features = NDArray[np.float32]
Spacing = tuple[float, float, float]

LEAST_SCANS = 8
"""With fewer scans nothing can be said of how much scans of one kind differ."""

_WINDOWS = {2: 6, 3: 3}  # looked at in a scan, by the model's dims
_LONGEST = {2: 256, 3: 96}  # voxels: edge of a window, so that looking costs little beside segmenting
_LEVELS = 4  # P2 to P5
_AXES = 12  # at most; more describe the scans themselves instead of their kind
_ROWS_PER_AXIS = 4  # at least, so that windows are not described one by one
_LEAST_VARIANCE = 0.05  # of the mean variance: an axis along which the scans hardly differ would decide alone
_LEAST_RESIDUAL = 0.01  # of the mean squared length: less is what rounding leaves
_FOLDS = 10  # of the cross-validation that finds the thresholds
_COARSER = 1.5  # times as large as the largest voxels known: details that the model relies on are missing
_STAMPED = 0.98  # share of the model's own scans that are not stamped
_DIGITS = 4  # kept in a model file


def check_familiar(
    loaded: LoadedModel, volume: Volume, prepared: Preprocessed, options: SegmentOptions
) -> tuple[str, ...]:
    """Check whether a scan looks like those that a model was trained on.

    Args:
        loaded: The model.
        volume: The scan.
        prepared: The same, preprocessed.
        options: Only ``allow_out_of_domain`` is used.

    Returns:
        Warnings for the user, with which the result is stamped; none if it looks familiar or the model cannot tell.

    Raises:
        UnsuitableScanError: if it looks so strange that the model says nothing of it, and that is not allowed.
    """
    settings, name = loaded.settings.familiarity, loaded.settings.card.name
    if settings is None:
        return ()
    reasons, spacing = [], turned_spacing(volume, prepared.axes)
    found = strangeness(settings, pooled_features(loaded, prepared.tensor))
    if found > settings.stamped_above:
        measured = f"its strangeness is {found:.1f}, that of nearly all such scans at most {settings.stamped_above:.1f}"
        reasons.append(f"does not know scans that look like this one ({measured})")
        if found > settings.refused_above and not options.allow_out_of_domain:
            raise UnsuitableScanError(f"model {name} {reasons[0]}", Remedy.ALLOW_OUT_OF_DOMAIN)
    if spacing is not None and settings.coarsest_mm is not None:
        pairs = zip(spacing, settings.coarsest_mm, strict=True)
        if any(own > _COARSER * known for own, known in pairs):
            own, known = (" x ".join(f"{mm:.3g}" for mm in each) for each in (spacing, settings.coarsest_mm))
            reasons.append(f"knows voxels of at most {known} mm, and those of this scan are {own} mm")
    return tuple(f"OUT OF DOMAIN: model {name} {reason}" for reason in reasons)


@torch.no_grad()
def pooled_features(loaded: LoadedModel, tensor: Tensor) -> Features:
    """``(W, F)``: mean and standard deviation of each channel of P2 to P5 over each of a few windows of a scan.

    Args:
        loaded: The model.
        tensor: ``(C, D, H, W)``, the preprocessed scan.
    """
    rows = []
    for window in _windows(tensor, loaded.settings):
        padded = pad_to_multiple(window[None], loaded.settings.preprocess.pad_multiple)
        levels = loaded.network.feature_maps(padded.to(loaded.device))[:_LEVELS]
        flat = [level[0].flatten(1).float() for level in levels]
        rows.append(torch.cat([torch.cat([x.mean(1), x.std(1, correction=0)]) for x in flat]))
    features: Features = torch.stack(rows).cpu().numpy()
    return features


def strangeness(settings: FamiliaritySettings, features: Features) -> float:
    """How strange a scan is: the logarithm of its squared distance over what is usual, so that 0 is usual.

    Args:
        settings: The distribution.
        features: ``(W, F)`` of the scan's windows; their mean counts.
    """
    standardised = (features - np.array(settings.mean)) / np.array(settings.scale)
    along = standardised @ np.array(settings.axes).T
    within = (along**2 / np.array(settings.variances)).mean(axis=1)
    beside = np.maximum((standardised**2).sum(axis=1) - (along**2).sum(axis=1), 0) / settings.residual
    return float(np.log((within + beside) / 2 + 1e-6).mean())


def fit_familiarity(scans: Sequence[Features], spacings: Sequence[Spacing | None] = ()) -> FamiliaritySettings | None:
    """Estimate the distribution and its thresholds from scans of a model's own kind.

    Each scan's strangeness is measured by a distribution of the others: a scan is stamped beyond 98 % of them, and
    refused where it is further beyond the last than two times the last is beyond the median.

    Args:
        scans: Features ``(W, F)`` of each.
        spacings: Spacing of each in mm along the network's axes.

    Returns:
        The settings; ``None`` with fewer than :data:`LEAST_SCANS` scans.
    """
    if len(scans) < LEAST_SCANS:
        return None
    folds, own = min(_FOLDS, len(scans)), np.zeros(len(scans))
    for fold in range(folds):
        others = _distribution([one for i, one in enumerate(scans) if i % folds != fold], 0.0, 0.0)
        for i in range(fold, len(scans), folds):
            own[i] = strangeness(others, scans[i])
    stamped = float(np.quantile(own, _STAMPED, method="higher"))
    refused = float(own.max() + 2 * (own.max() - np.median(own)))
    known = [one for one in spacings if one is not None]
    coarsest = tuple(np.max(known, axis=0).tolist()) if len(known) == len(scans) else None
    return _distribution(scans, stamped, refused).model_copy(update={"coarsest_mm": coarsest})


def _distribution(scans: Sequence[Features], stamped: float, refused: float) -> FamiliaritySettings:
    rows = np.concatenate(scans).astype(np.float64)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = scale + 1e-3 * np.abs(rows).mean() + 1e-6  # a channel that is always the same says nothing
    standardised = (rows - mean) / scale
    _, lengths, axes = np.linalg.svd(standardised, full_matrices=False)
    count = max(1, min(_AXES, len(rows) // _ROWS_PER_AXIS))
    axes, variances = axes[:count], lengths[:count] ** 2 / len(rows)
    beside = (standardised**2).sum(axis=1) - ((standardised @ axes.T) ** 2).sum(axis=1)
    return FamiliaritySettings(
        mean=_rounded(mean),
        scale=_rounded(scale),
        axes=tuple(map(_rounded, axes)),
        variances=_rounded(variances + _LEAST_VARIANCE * variances.mean()),
        residual=float(f"{max(beside.mean(), _LEAST_RESIDUAL * len(mean)):.{_DIGITS}g}"),
        stamped_above=round(stamped, _DIGITS),
        refused_above=round(max(stamped, refused), _DIGITS),
        scans=len(scans),
    )


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values.tolist())


def _windows(tensor: Tensor, settings: ModelFileSettings) -> list[Tensor]:
    """Windows ``(C, *spatial)`` of a prepared scan ``(C, D, H, W)``.

    They are slices, or blocks of a 3D model, no longer than :data:`_LONGEST`: in the middle of the scan, and where that
    leaves too few, spread along its longest axis.
    """
    dims, context = settings.model.spatial_dims, settings.model.context_slices
    shape, longest = tensor.shape[1:], _LONGEST[dims]
    if dims == 2:
        images = [slice_images(tensor, range(i, i + 1), context)[0] for i in _spread(shape[0], _WINDOWS[2])]
    else:
        images = [tensor]
    return [part for image in images for part in _parts(image, longest, -(-_WINDOWS[dims] // len(images)))]


def _parts(image: Tensor, longest: int, most: int) -> list[Tensor]:
    """At most so many parts of an image ``(C, *spatial)``, no longer than ``longest`` along any axis."""
    shape = image.shape[1:]
    edges = [min(n, longest) for n in shape]
    corner = [(n - edge) // 2 for n, edge in zip(shape, edges, strict=True)]
    axis = int(np.argmax(shape))
    parts = []
    for start in _spread(shape[axis] - edges[axis] + 1, min(most, math.ceil(shape[axis] / edges[axis]))):
        corner[axis] = start
        parts.append(image[(slice(None), *(slice(a, a + n) for a, n in zip(corner, edges, strict=True)))])
    return parts


def _spread(length: int, most: int) -> list[int]:
    """At most so many indices out of ``length``, evenly spaced, not at its ends."""
    count = min(length, most)
    return [int((i + 0.5) * length / count) for i in range(count)]
