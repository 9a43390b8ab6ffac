"""How intensities are normalised: CT by windows, colour images by their value range, all others by percentiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.data.case_fingerprint import PERCENTILES, CaseFingerprint, Intensities
from medmaskrcnn.training.planner.dataset_fingerprint import Array, DatasetFingerprint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue (0..1) in ImageNet, which pretrained backbones expect."""

_HU = (-1024.0, 3071.0)  # the range of 12 bits
_SOFT_TISSUE = (-160.0, 240.0)  # level 40, width 400: the usual abdominal window
_WIDE = 2.0  # a range wider than this many soft-tissue windows gets that window as a second channel
_SOFT_SHARE = 0.1  # share of the objects' voxels that must lie in it
_ROUND_HU = 50.0
_LOOKS_LIKE_CT = -900.0  # 0.5th percentile of a scan of unknown modality: air in Hounsfield units
_LOW = 0.5  # percentile that becomes 0
_HIGH = (99.5, 99.0, 95.0, 75.0)  # percentiles that may become 1
_STEADIER = 0.9  # a lower percentile must reduce the spread to this share of the best so far
_HIGHEST_CEILING = 10.0
_MEDIAN = PERCENTILES.index(50.0)
_RANKS = np.linspace(PERCENTILES[0], PERCENTILES[-1], 200)  # percentile ranks at which values are interpolated


@dataclass(frozen=True)
class IntensityPlan:
    """Settings of ``preprocess``, and the number of image channels of the network."""

    image_channels: int
    windows: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[float, float] | None = None
    ceiling: float = 1.0
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def plan_intensity(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> IntensityPlan:
    """Choose how intensities are normalised; the reasons are added to ``reasons``."""
    for unused in ("windows", "percentiles", "ceiling", "value_range"):
        reasons[f"preprocess.{unused}"] = "Not used."
    if fingerprint.channel_kind == "colour" and fingerprint.channels == len(IMAGENET_MEAN):
        return _colours(fingerprint, reasons)
    if fingerprint.modality == "CT" or (fingerprint.modality is None and _looks_like_ct(fingerprint)):
        return _windows(fingerprint, reasons)
    return _percentiles(fingerprint, reasons)


def values(one: Intensities) -> Array:
    """``(200,)`` values distributed like a channel's, interpolated from its percentiles."""
    return np.interp(_RANKS, PERCENTILES, one.percentiles)


def _looks_like_ct(fingerprint: DatasetFingerprint) -> bool:
    lowest = [fact.intensities[0].percentiles[0] for fact in fingerprint.case_fingerprints if fact.intensities]
    return bool(lowest) and float(np.median(lowest)) <= _LOOKS_LIKE_CT


def _colours(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> IntensityPlan:
    brightest = max(
        (one.percentiles[-1] for fact in fingerprint.case_fingerprints for one in fact.intensities), default=255.0
    )
    top = next((top for top in (1.0, 255.0, 65535.0) if brightest <= top), float(np.ceil(brightest)))
    reasons["preprocess.value_range"] = f"Colours reach {brightest:.4g}: 0 to {top:g} is their range."
    reasons["preprocess.mean"] = reasons["preprocess.std"] = "ImageNet's, which pretrained backbones expect."
    reasons["model.image_channels"] = "Red, green and blue."
    return IntensityPlan(3, value_range=(0.0, top), mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _windows(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> IntensityPlan:
    inside = _foreground(fingerprint.case_fingerprints)
    low = np.median([one.percentiles[0] for one in inside])
    high = np.median([one.percentiles[-1] for one in inside])
    first = _round_outwards(float(low), float(high))
    windows: tuple[tuple[float, float], ...] = (first,)
    more = ""
    soft = np.concatenate([values(one) for one in inside])
    share = float(np.mean((soft >= _SOFT_TISSUE[0]) & (soft <= _SOFT_TISSUE[1])))
    if first[1] - first[0] > _WIDE * (_SOFT_TISSUE[1] - _SOFT_TISSUE[0]) and share >= _SOFT_SHARE:
        windows = (first, _SOFT_TISSUE)
        more = f" That is wide, and {share:.0%} of the objects are soft tissue: its window is a second channel."
    reasons["preprocess.windows"] = f"CT: objects run from {low:.0f} to {high:.0f} HU (percentiles 0.5 and 99.5).{more}"
    reasons["model.image_channels"] = f"{fingerprint.channels} of the image times {len(windows)} windows."
    mean, std = _moments(fingerprint, [_window_map(*window) for window in windows], reasons)
    return IntensityPlan(fingerprint.channels * len(windows), windows=windows, mean=mean, std=std)


def _window_map(low: float, high: float) -> Callable[[Intensities, Array], Array]:
    return lambda whole, x: np.clip((x - low) / (high - low), 0, 1)


def _round_outwards(low: float, high: float) -> tuple[float, float]:
    a = max(_HU[0], np.floor(low / _ROUND_HU) * _ROUND_HU)
    b = min(_HU[1], np.ceil(high / _ROUND_HU) * _ROUND_HU)
    return (float(a), float(b)) if b > a else (float(a), float(a) + _ROUND_HU)


def _percentiles(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> IntensityPlan:
    spreads = {high: _spread(fingerprint, high) for high in _HIGH}
    best = _HIGH[0]
    for high in _HIGH[1:]:
        if spreads[high] < _STEADIER * spreads[best]:
            best = high
    reach = [
        (one.percentiles[-1] - low) / (top - low)
        for fact in fingerprint.case_fingerprints
        for whole, one in zip(fact.intensities, fact.foreground or fact.intensities, strict=False)
        for low, top in [_range(whole, best)]
        if top > low
    ]
    highest = float(np.percentile(reach, 95)) if reach else 1.0
    ceiling = float(np.clip(np.ceil(2 * highest) / 2, 1.0, _HIGHEST_CEILING))
    reasons["preprocess.percentiles"] = (
        f"{fingerprint.modality or 'Values of unknown unit'}: every scan by its own percentiles. With {best:g} as the "
        f"upper one the objects' brightness differs between scans by {_times(spreads[best])} ("
        + ", ".join(f"with {high:g} by {_times(spreads[high])}" for high in _HIGH if high != best)
        + "); a lower one must bring that down by a tenth."
    )
    reasons["preprocess.ceiling"] = f"The brightest objects reach {highest:.2g} times that range."
    reasons["model.image_channels"] = f"{fingerprint.channels} of the image."

    def mapped(whole: Intensities, x: Array) -> Array:
        low, top = _range(whole, best)
        return np.clip((x - low) / max(top - low, 1e-6), 0, ceiling)

    mean, std = _moments(fingerprint, [mapped], reasons)
    return IntensityPlan(fingerprint.channels, percentiles=(_LOW, best), ceiling=ceiling, mean=mean, std=std)


def _times(spread: float) -> str:
    return "a factor of " + f"{np.exp(spread):.2f}" if np.isfinite(spread) else "any factor"


def _spread(fingerprint: DatasetFingerprint, high: float) -> float:
    """Standard deviation over scans of the log of the objects' median, scaled by the scan's percentile range."""
    spreads = []
    for channel in range(fingerprint.channels):
        logs = []
        for fact in fingerprint.case_fingerprints:
            if len(fact.foreground) > channel:
                low, top = _range(fact.intensities[channel], high)
                middle = fact.foreground[channel].percentiles[_MEDIAN]
                if top <= low or middle <= low:
                    return float("inf")
                logs.append(np.log((middle - low) / (top - low)))
        spreads.append(float(np.std(logs)) if logs else float("inf"))
    return float(np.mean(spreads))


def _range(one: Intensities, high: float) -> tuple[float, float]:
    own = dict(zip(PERCENTILES, one.percentiles, strict=True))
    return own[_LOW], own[high]


def _foreground(case_fingerprints: Iterable[CaseFingerprint]) -> list[Intensities]:
    return [one for fact in case_fingerprints for one in fact.foreground]


def _moments(
    fingerprint: DatasetFingerprint, maps: list[Callable[[Intensities, Array], Array]], reasons: dict[str, str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel after mapping; objects and the whole scan have equal weight."""
    means, stds = [], []
    for mapping in maps:
        for channel in range(fingerprint.channels):
            parts = [
                mapping(fact.intensities[channel], values(group[channel]))
                for fact in fingerprint.case_fingerprints
                for group in (fact.intensities, fact.foreground)
                if len(group) > channel
            ]
            pooled = np.concatenate(parts) if parts else np.zeros(1)
            means.append(round(float(pooled.mean()), 2))
            stds.append(max(round(float(pooled.std()), 2), 0.05))
    reasons["preprocess.mean"] = "Of the mapped values, objects and the whole scan counting alike."
    reasons["preprocess.std"] = "As the mean; at least 0.05."
    return tuple(means), tuple(stds)
