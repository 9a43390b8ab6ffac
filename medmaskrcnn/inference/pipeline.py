"""START READING HERE: the whole pipeline, from a scan on disk to counted and measured instances.

    read -> check suitability -> prepare -> detect -> suppress, merge or link -> turn back -> measure

Each step is a module of its own; this file only calls them in order. ``export`` writes the result to files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from medmaskrcnn.hub.loaded_model import DEFAULT_MODEL, LoadedModel, load_as_asked
from medmaskrcnn.inference.detect import StageProgress, detect_in_slices, detect_in_tiles
from medmaskrcnn.inference.detection import to_instances
from medmaskrcnn.inference.familiarity import check_familiar
from medmaskrcnn.inference.link_slices import link_slices
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.inference.merge_tiles import merge_tiles
from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.inference.read_source import arrange_channels, read_source
from medmaskrcnn.inference.region import in_region, window_of
from medmaskrcnn.inference.run_record import build_run_record, runtime_info
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.inference.suppress import suppress_contained, suppress_duplicates
from medmaskrcnn.settings import Region, SegmentOptions
from medmaskrcnn.settings.segment_options import options_from
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.memory import retain_freed_memory
from medmaskrcnn.system.stage_timer import StageTimer

Scan = str | os.PathLike[str] | Volume | Any
"""A path, a Volume, or what :func:`medmaskrcnn.as_volume` takes; libraries that are optional name no types here."""


@retain_freed_memory()
def segment(
    source: Scan,
    model: str | os.PathLike[str] | LoadedModel = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    flips: Sequence[str] | None = None,
    score: float | None = None,
    classes: Sequence[str] | None = None,
    series: str | None = None,
    allow_out_of_domain: bool = False,
    region: Region | None = None,
    resample_irregular: bool = False,
    suv: bool = False,
    channels: Mapping[str, str] | None = None,
    track: bool = False,
    merge_series: bool = False,
    drop_duplicates: bool = False,
    spacing_mm: Sequence[float] | None = None,
    affine: ArrayLike | None = None,
    options: SegmentOptions | None = None,
    progress: StageProgress | None = None,
) -> CaseResult:
    """Detect, segment and measure every instance in one scan.

    Args:
        source: A file, a DICOM folder, a volume already read, or a scan in memory as other libraries hold it: a NumPy
            array, a nibabel or SimpleITK image, a MetaTensor of MONAI, pydicom datasets; see
            :func:`medmaskrcnn.as_volume`. For a model of several sequences: a dict from their names to any of these, a
            list in the model's order, or the path of a case by nnU-Net's names (``imagesTs/CASE``).
        model: Name of a shipped model, a model file, or a loaded model (for many scans).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; a loaded model stays on its device.
        precision: As for :func:`load_model`; a loaded model keeps its own.
        engine: As for :func:`load_model`; a loaded model keeps its own.
        flips: As for :func:`load_model`; a loaded model keeps its own.
        score: Score threshold 0..1; the model's own by default. Candidates below it are kept in the result.
        classes: Names of the classes to report; all by default.
        series: Which series of a folder: its UID, its number in the listing, or ``"largest"``.
        allow_out_of_domain: Run a model on a scan for which it was not made; the result is marked as such.
        region: Search only this region and report only instances with a voxel in it: half-open voxel indices
            (low D, H, W), (high D, H, W) of the scan. Intensities are still normalised over the whole scan, and the
            result lies on its grid.
        resample_irregular: Interpolate a DICOM series with uneven slice spacing to even spacing; the result notes it.
        suv: Read PET as standardised uptake values by body weight (g/ml).
        channels: Which scan of a folder is which sequence, by series UID, number of the listing, or a pattern of its
            description or file name: ``{"T1": "*t1*", "FLAIR": "*flair*"}``.
        track: Read a cine series as one film and link its instances over time; needs a 2D or 2.5D model.
        merge_series: As for :func:`medmaskrcnn.read_volume`.
        drop_duplicates: As for :func:`medmaskrcnn.read_volume`.
        spacing_mm: Of an array alone: distance between voxel centres along D, H, W.
        affine: Of an array alone: ``(4, 4)``, index along its axes D, H, W to R, A, S in mm.
        options: All options but ``spacing_mm`` and ``affine`` in one object, instead of single arguments.
        progress: Called with a stage (``read``, ``prepare``, ``find``, ``measure``) and the fraction of it done, 0..1.

    Returns:
        The result on the scan's own grid.

    Raises:
        ReadError: if the scan cannot be read.
        ModelFileError: if the model file cannot be read.
        UnsuitableScanError: if the model cannot be run on the scan.
        InvalidOptionError: if an option is invalid, such as an unknown class or a region outside of the scan; it is a
            ``ValueError`` and names the option.

    Example:
        >>> result = medmaskrcnn.segment("study/", model="phantom-ct")  # doctest: +SKIP
        >>> len(result.instances)  # doctest: +SKIP
        17
    """
    options = options_from(
        options, SegmentOptions, device=device, precision=precision, engine=engine, flips=flips, score=score,
        classes=classes, series=series, allow_out_of_domain=allow_out_of_domain, region=region,
        resample_irregular=resample_irregular, suv=suv, channels=channels or (), track=track,
        merge_series=merge_series, drop_duplicates=drop_duplicates,
    )  # fmt: skip
    on_progress, timer = progress or (lambda stage, done: None), StageTimer()

    model = load_as_asked(model, options)
    settings, inference = model.settings, model.settings.inference
    labels = options.labels_among(settings.model.class_names)
    timer.end("load model")

    on_progress("read", 0.0)
    volume = read_source(source, settings, options, spacing_mm=spacing_mm, affine=affine)
    volume = arrange_channels(volume, settings)
    on_progress("read", 1.0)
    timer.end("read")

    warnings = check_suitable(volume, settings, options)

    on_progress("prepare", 0.0)
    prepared = prepare(volume, settings.preprocess)
    window = None if options.region is None else window_of(options.region, prepared, volume.grid.shape)
    warnings += check_familiar(model, volume, prepared, options)
    on_progress("prepare", 1.0)
    timer.end("prepare")

    on_progress("find", 0.0)
    if settings.model.spatial_dims == 3:  # detections of tiles are merged first, then suppressed in the whole scan
        seen = detect_in_tiles(model, prepared, window, on_progress)
        found = merge_tiles(seen, merge_iou=inference.merge_iou)
        found = suppress_contained(found, max_containment=inference.max_containment, shape=prepared.turned_shape)
    else:  # detections are suppressed within each slice, then linked across slices
        slices = detect_in_slices(model, prepared, window, on_progress)
        plane = 1, *prepared.turned_shape[1:]
        slices = [
            suppress_contained(objects, max_containment=inference.max_containment, shape=plane) for objects in slices
        ]
        found = link_slices(slices, link_iou=inference.link_iou, gap=inference.link_gap)
    found = suppress_duplicates([one for one in found if one.label in labels], settings)
    timer.end("find")

    on_progress("measure", 0.0)
    candidates = to_instances(
        found,
        grid=volume.grid,
        class_names=settings.model.class_names,
        turned_shape=prepared.turned_shape,
        axes=prepared.axes,
    )
    if options.region is not None:
        candidates = in_region(candidates, options.region)
    measurements = measure_instances(volume, candidates)
    timer.end("measure")
    on_progress("measure", 1.0)

    threshold = inference.score if options.score is None else options.score
    record = build_run_record(model, volume, options=options, score=threshold, warnings=warnings)
    return CaseResult(candidates, threshold, measurements, record, runtime_info(timer, volume, model))
