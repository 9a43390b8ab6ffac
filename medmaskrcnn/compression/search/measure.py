"""Measures the speed and AP of a variant.

Time is that of ``segment`` on a scan in memory: preprocessing, detection, measurement. The original and the variant
alternate on every scan, so that other load on the machine affects both; each has run on every scan once before timing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.evaluation.evaluate import evaluate
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.memory import retain_freed_memory

_LIGHT = MetricSettings(surfaces=False, replicates=0)

CountProgress = Callable[[int, int], None]
"""Called with the number of cases done and the total."""


def paired_seconds(
    original: LoadedModel,
    variant: LoadedModel,
    volumes: Sequence[Volume],
    *,
    turns: int,
    enough: float,
    options: SegmentOptions = AS_THE_MODEL_SAYS,
) -> tuple[list[float], list[float]]:
    """Seconds of both on each scan, in pairs.

    Args:
        original: The original, which has already run on every scan.
        variant: The variant, which has not.
        volumes: The scans.
        turns: Maximum number of timings per scan.
        enough: No further round begins after this many seconds.
        options: How scans are segmented.

    Returns:
        Times of the original and of the variant, one pair after the other.
    """

    def seconds(model: LoadedModel, volume: Volume) -> float:
        began = time.perf_counter()
        segment(volume, model, options=options)
        return time.perf_counter() - began

    pairs: list[tuple[float, float]] = []
    with retain_freed_memory():  # as when processing many scans
        for volume in volumes:
            seconds(variant, volume)
        began = time.perf_counter()
        for turn in range(turns):
            if turn and time.perf_counter() - began > enough:
                break
            pairs += [(seconds(original, volume), seconds(variant, volume)) for volume in volumes]
    return [a for a, _ in pairs], [b for _, b in pairs]


def times_as_fast(original: Sequence[float], variant: Sequence[float]) -> float:
    """The median speed-up over the pairs."""
    return statistics.median(a / b for a, b in zip(original, variant, strict=True))


def average_precision(
    model: LoadedModel,
    manifest: Manifest,
    split: str,
    *,
    options: SegmentOptions = AS_THE_MODEL_SAYS,
    progress: CountProgress,
) -> float:
    """COCO's mask AP over the classes; box AP if the model has no masks.

    Raises:
        MedMaskRCNNError: if a case fails, or the cases contain no objects.
    """
    found = evaluate(model, manifest, split=split, settings=_LIGHT, options=options, progress=progress)
    if found.failed:
        first = found.failed[0]
        raise MedMaskRCNNError(f"{len(found.failed)} cases failed, the first: {first.error}", first.remedy)
    table = found.overall.mask if model.settings.model.with_masks else found.overall.box
    if table["ap"].value is None:
        raise MedMaskRCNNError(f"{manifest.name} holds no object of the model's classes in split {split}")
    return table["ap"].value
