"""START READING HERE: the whole walk, from a scan on disk to counted and measured instances.

    read -> suits the model? -> prepare -> find (tiles or slices) -> merge or link -> turn back -> measure

Each step is a room of its own; this file only joins them. What is written of the result is ``export``'s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medmaskrcnn.hub.loaded_model import DEFAULT_MODEL, LoadedModel, load_model
from medmaskrcnn.inference.detect import StageProgress, find
from medmaskrcnn.inference.detection import to_instances
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.inference.region import Region, in_region, window_of
from medmaskrcnn.inference.run_record import Stopwatch, build_run_record, runtime_info
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.memory import memory_kept


@memory_kept()
def segment(
    source: str | os.PathLike[str] | Volume,
    model: str | os.PathLike[str] | LoadedModel = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    score: float | None = None,
    classes: Sequence[str] | None = None,
    series: str | None = None,
    allow_out_of_domain: bool = False,
    region: Region | None = None,
    progress: StageProgress | None = None,
) -> CaseResult:
    """Find, outline and measure every instance in one scan.

    Args:
        source: A file, a DICOM folder, or a volume already read.
        model: Name of a shipped model, a model file, or a loaded model (for many scans).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; a loaded model stays where it is.
        precision: As for :func:`load_model`; a loaded model stays as it was loaded.
        engine: As for :func:`load_model`; likewise.
        score: Score threshold 0..1; the model's own by default. Candidates below it are kept in the result.
        classes: Names of the classes to report; all by default.
        series: Which series of a folder: its UID, its number in the listing, or ``"largest"``.
        allow_out_of_domain: Run a model on a scan that it was not made for; the result is stamped.
        region: Look only here, and report only what has a voxel here: half-open voxel indices (low D, H, W),
            (high D, H, W) of the scan. Intensities are still those of the whole scan, and the result lies in its grid.
        progress: Called with a stage (``read``, ``prepare``, ``find``, ``measure``) and its share done, 0..1.

    Returns:
        The result in the scan's own grid.

    Raises:
        ReadError: if the scan cannot be read.
        ModelFileError: if the model cannot.
        UnsuitableScanError: if they do not fit each other.
        ValueError: if a class, score, device, precision or engine is unknown, or the region lies outside of the scan.

    Example:
        >>> result = medmaskrcnn.segment("study/", model="phantom-ct")  # doctest: +SKIP
        >>> len(result.instances)  # doctest: +SKIP
        17
    """
    on_progress, stopwatch = progress or (lambda stage, done: None), Stopwatch()

    if not isinstance(model, LoadedModel):
        model = load_model(model, device=device, precision=precision, engine=engine)
    settings = model.settings
    threshold = _threshold(score, settings)
    labels = _labels(classes, settings)
    stopwatch.lap("load model")

    on_progress("read", 0.0)
    volume = source if isinstance(source, Volume) else read_volume(Path(source), series=series)
    on_progress("read", 1.0)
    stopwatch.lap("read")

    warnings = check_suitable(volume, settings, allow_out_of_domain=allow_out_of_domain)

    on_progress("prepare", 0.0)
    prepared = prepare(volume, settings.preprocess)
    window = None if region is None else window_of(region, prepared, volume.grid.shape)
    on_progress("prepare", 1.0)
    stopwatch.lap("prepare")

    on_progress("find", 0.0)
    found = find(model, prepared, labels=labels, window=window, progress=on_progress)
    stopwatch.lap("find")

    on_progress("measure", 0.0)
    candidates = to_instances(
        found,
        grid=volume.grid,
        class_names=settings.model.class_names,
        turned_shape=prepared.turned_shape,
        axes=prepared.axes,
    )
    if region is not None:
        candidates = in_region(candidates, region)
    measurements = measure_instances(volume, candidates)
    stopwatch.lap("measure")
    on_progress("measure", 1.0)

    record = build_run_record(model, volume, score=threshold, classes=classes, region=region, warnings=warnings)
    return CaseResult(candidates, threshold, measurements, record, runtime_info(stopwatch, volume, model))


def _threshold(score: float | None, settings: ModelFileSettings) -> float:
    threshold = settings.inference.score if score is None else score
    if not 0 <= threshold <= 1:
        raise ValueError(f"score must lie in 0..1, got {threshold}")
    return threshold


def _labels(classes: Sequence[str] | None, settings: ModelFileSettings) -> set[int]:
    """Indices of the classes asked for."""
    names = settings.model.class_names
    unknown = sorted(set(classes or ()) - set(names))
    if unknown:
        raise ValueError(f"the model has no class {', '.join(unknown)}; its classes are: {', '.join(names)}")
    return {i for i, name in enumerate(names) if classes is None or name in classes}
