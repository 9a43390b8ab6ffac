"""START READING HERE: the whole walk, from a scan on disk to counted and measured instances.

    read -> suits the model? -> prepare -> find (tiles or slices) -> merge or link -> turn back -> measure

Each step is a room of its own; this file only joins them.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medmaskrcnn
from medmaskrcnn.config import InferenceSettings, ModelFileSettings
from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.dense_part import DensePart
from medmaskrcnn.models.mask_rcnn import MaskRCNN, Watch, unwatched
from medmaskrcnn.models.model_file import model_sha256, read_model, resolve_model
from medmaskrcnn.postprocess.found import Found, paste, to_instances
from medmaskrcnn.postprocess.link_slices import link_slices
from medmaskrcnn.postprocess.merge_tiles import Tile, merge_tiles, tile_starts
from medmaskrcnn.preprocess.prepare import Preprocessed, Window, pad_to_multiple, prepare
from medmaskrcnn.preprocess.suitable import check_suitable, is_out_of_domain
from medmaskrcnn.results.measure import measure_instances
from medmaskrcnn.runtime.device import choose_device
from medmaskrcnn.runtime.openvino_engine import OpenVINOProgram, check_engine, quantised_form
from medmaskrcnn.runtime.precision import choose_precision, processor_features
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0..1."""

Region = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Half-open voxel indices of a part of the scan: low D, H, W, then high D, H, W."""

DEFAULT_MODEL = "phantom-ct"
REGION_MARGIN = 32
"""The network's voxels around a region that are looked at with it: one cell of its coarsest level."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network ready to run, with what its file says.

    Attributes:
        network: On :attr:`device`, in evaluation mode.
        settings: Settings and card of the file.
        sha256: Hash of the file.
        device: Where it runs.
        watch: Is shown what the network makes at each step, as :meth:`MaskRCNN.detect` says, and before and after it
            ``"input"`` (the padded images) and ``"masks"`` (the detections).
    """

    network: MaskRCNN
    settings: ModelFileSettings
    sha256: str
    device: torch.device
    watch: Watch = unwatched

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16``, or ``int8`` where the dense part is quantised."""
        program = self.network.compiled
        return "int8" if program is not None and program.quantised is not None else self.network.precision

    @property
    def engine(self) -> str:
        """What runs the dense part, with its version."""
        program = self.network.compiled
        return f"torch {torch.__version__}" if program is None else f"openvino {program.version}"


def load_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "torch",
) -> LoadedModel:
    """Load a shipped model by name, or any model file by path.

    Args:
        name_or_path: See ``medmaskrcnn models`` for the names.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (see :mod:`medmaskrcnn.runtime.precision`), ``fp32`` or ``bf16``; ``int8`` with
            engine ``openvino``, of a model with its 8-bit form beside it.
        engine: What runs backbone, FPN and RPN head: ``torch``, or ``openvino`` on a CPU.

    Raises:
        ModelFileError: if the model is unknown or its file damaged.
        ValueError: if the device or engine is not there, or the precision unknown.
    """
    path = resolve_model(name_or_path)
    where = choose_device(device)
    check_engine(engine)
    network, settings = read_model(path)
    sha256 = model_sha256(path)
    eight_bits = engine == "openvino" and precision == "int8"
    chosen = choose_precision("auto" if eight_bits else precision, where, spatial_dims=settings.model.spatial_dims)
    if engine == "openvino":
        if where.type != "cpu":
            raise ValueError(f"engine openvino runs on the CPU, not on {where.type}; use --device cpu")
        part = DensePart(network.pyramid, network.rpn_head).eval()
        quantised = quantised_form(path, sha256) if eight_bits else None
        if quantised is not None and not quantised.is_file():
            raise ModelFileError(
                f"model {path} has no 8-bit form beside it ({quantised.name}); make one with medmaskrcnn export"
            )
        network.compiled = OpenVINOProgram(part, precision=chosen, name=sha256, quantised=quantised)
    return LoadedModel(network.run_in(chosen).to(where), settings, sha256, where)


def segment(
    source: str | os.PathLike[str] | Volume,
    model: str | os.PathLike[str] | LoadedModel = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "torch",
    score: float | None = None,
    classes: Sequence[str] | None = None,
    series: str | None = None,
    allow_out_of_domain: bool = False,
    region: Region | None = None,
    progress: Progress | None = None,
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
    tell = progress or (lambda stage, done: None)
    clock = _Clock()
    loaded = (
        model
        if isinstance(model, LoadedModel)
        else load_model(model, device=device, precision=precision, engine=engine)
    )
    settings = loaded.settings
    threshold = settings.inference.score if score is None else score
    wanted = _wanted_classes(settings, classes)
    if not 0 <= threshold <= 1:
        raise ValueError(f"score must lie in 0..1, got {threshold}")
    clock.lap("load model")

    tell("read", 0.0)
    volume = source if isinstance(source, Volume) else read_volume(Path(source), series=series)
    tell("read", 1.0)
    clock.lap("read")
    warnings = check_suitable(volume, settings, allow_out_of_domain=allow_out_of_domain)

    tell("prepare", 0.0)
    prepared = prepare(volume, settings.preprocess)
    window = prepared.whole if region is None else _window(prepared, region, volume)
    tell("prepare", 1.0)
    clock.lap("prepare")

    tell("find", 0.0)
    find = find_in_tiles if settings.model.spatial_dims == 3 else find_in_slices
    found = _one_of_each([f for f in find(loaded, prepared, tell, window) if f.label in wanted], settings)
    clock.lap("find")

    tell("measure", 0.0)
    candidates = to_instances(
        found,
        grid=volume.grid,
        class_names=settings.model.class_names,
        turned_shape=prepared.turned_shape,
        axes=prepared.axes,
    )
    if region is not None:
        candidates = candidates.select([i for i in range(len(candidates)) if _meets(candidates, i, region)])
    measurements = measure_instances(volume, candidates)
    clock.lap("measure")
    tell("measure", 1.0)
    record = _record(loaded, volume, threshold, classes, warnings)
    if region is not None:
        record.settings["region"] = [list(corner) for corner in region]
    return CaseResult(candidates, threshold, measurements, record, _run(clock, volume, loaded))


def _window(prepared: Preprocessed, region: Region, volume: Volume) -> Window:
    """The network's voxels that are looked at for a region of the scan."""
    for a, b, n in zip(*region, volume.grid.shape, strict=True):
        if not 0 <= a < b <= n:
            raise ValueError(f"region must lie in the scan of shape {volume.grid.shape}, got {region}")
    return prepared.window(prepared.box_in_turned([*region[0], *region[1]]), margin=REGION_MARGIN)


def _meets(found: Instances, i: int, region: Region) -> bool:
    """Whether an object has a voxel in a region of the scan."""
    start = found.mask_starts[i].tolist()
    inside = tuple(slice(max(0, a - s), max(0, b - s)) for a, b, s in zip(*region, start, strict=True))
    return bool(found.masks[i][inside].any())


def find_in_tiles(
    loaded: LoadedModel, prepared: Preprocessed, tell: Progress, part: Window | None = None
) -> list[Found]:
    """Walk a 3D model over a prepared scan, tile by tile, and join what neighbouring tiles saw of one object.

    Args:
        loaded: The model.
        prepared: The scan as its network sees it.
        tell: Called with ``"find"`` and the share done.
        part: The network's voxels to walk over, by default all.
    """
    settings, inference = loaded.settings, loaded.settings.inference
    first, end = part or prepared.whole
    scale, windows = prepared.scale, tile_windows(np.subtract(end, first).tolist(), inference)
    found: list[tuple[Found, Tile]] = []
    for done, window in enumerate(windows):
        low, high = (np.add(corner, first).tolist() for corner in window)
        image = prepared.tensor[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        (detections,) = _detect(loaded, image[None], [image.shape[1:]])
        tile = _tile(low, high, scale)
        found += [(f, tile) for f in _paste(detections, low, scale, prepared.turned_shape, settings)]
        tell("find", (done + 1) / len(windows))
    return merge_tiles(found, merge_iou=inference.merge_iou)


def tile_windows(shape: Sequence[int], inference: InferenceSettings) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """First voxel and last voxel + 1 (D, H, W) of each tile of an array of ``shape``."""
    starts = [tile_starts(n, t, inference.tile_overlap) for n, t in zip(shape, inference.tile, strict=True)]
    return [
        (low, tuple(min(a + t, n) for a, t, n in zip(low, inference.tile, shape, strict=True)))
        for low in product(*starts)
    ]


def find_in_slices(
    loaded: LoadedModel, prepared: Preprocessed, tell: Progress, part: Window | None = None
) -> list[Found]:
    """Walk a 2D or 2.5D model over a prepared scan, slice by slice, and link neighbouring slices' objects.

    Arguments as :func:`find_in_tiles`; of ``part`` the slices count alone, each is looked at whole.
    """
    settings, inference = loaded.settings, loaded.settings.inference
    begin, end = (corner[0] for corner in part or prepared.whole)
    plane = tuple(prepared.tensor.shape[2:])
    slices: list[list[Found]] = [[]] * begin
    for first in range(begin, end, inference.slices_per_batch):
        last = min(first + inference.slices_per_batch, end)
        batch = slice_images(prepared.tensor, range(first, last), settings.model.context_slices)
        for detections in _detect(loaded, batch, [plane] * len(batch)):
            slices.append(_paste(detections, (0, 0), prepared.scale[1:], prepared.turned_shape[1:], settings))
        tell("find", (len(slices) - begin) / (end - begin))
    return link_slices(slices, link_iou=inference.link_iou, gap=inference.link_gap)


def slice_images(tensor: Tensor, indices: range, context: int) -> Tensor:
    """Slices of ``(C, D, H, W)`` with ``context`` neighbours on each side as channels: ``(B, C * (2 c + 1), H, W)``."""
    low, high = indices.start - context, indices.stop + context
    beyond = max(-low, 0), max(high - tensor.shape[1], 0)  # past the ends: zeros, as in training
    part = torch.nn.functional.pad(tensor[:, max(low, 0) : high], (0, 0, 0, 0, *beyond))
    return torch.stack([part[:, i : i + 2 * context + 1].flatten(0, 1) for i in range(len(indices))])


def _detect(loaded: LoadedModel, images: Tensor, shapes: list[tuple[int, ...]]) -> list[Detections]:
    padded = pad_to_multiple(images, loaded.settings.preprocess.pad_multiple)
    loaded.watch("input", padded)
    most = loaded.settings.inference.proposals
    found = loaded.network.detect(padded.to(loaded.device), shapes, proposals=most, watch=loaded.watch)
    loaded.watch("masks", found)
    return found


def _paste(
    detections: Detections,
    low: Sequence[int],
    scale: Sequence[float],
    shape: tuple[int, ...],
    settings: ModelFileSettings,
) -> list[Found]:
    """Detections of a window that begins at ``low`` (network voxels), in the turned scan's voxels."""
    offset, factor = torch.tensor([*low, *low]), torch.tensor([*scale, *scale], dtype=torch.float32)
    probabilities = detections.mask_probabilities
    return paste(
        (detections.boxes.cpu() + offset) * factor,
        detections.labels.cpu(),
        detections.scores.cpu(),
        None if probabilities is None else probabilities.cpu(),
        shape=shape,
        threshold=settings.model.detection.mask_threshold,
    )


def _tile(low: Sequence[int], high: Sequence[int], scale: Sequence[float]) -> Tile:
    """The scan's voxels whose centres lie in a window of the network's: the ones that its masks may hold."""
    first, last = (
        [math.ceil(x * factor - 0.5) for x, factor in zip(corner, scale, strict=True)] for corner in (low, high)
    )
    return Tile((first[0], first[1], first[2]), (last[0], last[1], last[2]))


def _one_of_each(found: Sequence[Found], settings: ModelFileSettings) -> list[Found]:
    """Only the most certain candidate with a voxel of each class of which a body has one; all of the others."""
    single = {settings.model.class_names.index(name) for name in settings.inference.single}
    kept: list[Found] = []
    seen: set[int] = set()
    for item in found:
        if item.label not in single:
            kept.append(item)
        elif item.label not in seen and item.mask.size:
            kept.append(item)
            seen.add(item.label)
    return kept


def _wanted_classes(settings: ModelFileSettings, classes: Sequence[str] | None) -> set[int]:
    names = settings.model.class_names
    unknown = sorted(set(classes or ()) - set(names))
    if unknown:
        raise ValueError(f"the model has no class {', '.join(unknown)}; its classes are: {', '.join(names)}")
    return {i for i, name in enumerate(names) if classes is None or name in classes}


def _record(
    loaded: LoadedModel, volume: Volume, threshold: float, classes: Sequence[str] | None, warnings: tuple[str, ...]
) -> RunRecord:
    card, origin = loaded.settings.card, volume.provenance
    return RunRecord(
        software=f"medmaskrcnn {medmaskrcnn.__version__}",
        model_name=card.name,
        model_sha256=loaded.sha256,
        model_licence=card.licence,
        device=loaded.device.type,
        precision=loaded.precision,
        settings={
            "score": threshold,
            "classes": list(classes) if classes is not None else list(loaded.settings.model.class_names),
            "inference": loaded.settings.inference.model_dump(mode="json"),
            **({} if loaded.network.compiled is None else {"engine": loaded.engine}),
            **({"codes": {n: c.model_dump(mode="json") for n, c in card.codes.items()}} if card.codes else {}),
        },
        source={
            "format": origin.format,
            "modality": volume.modality,
            "study_uid": origin.study_uid,
            "series_uid": origin.series_uid,
            "frame_of_reference_uid": origin.frame_of_reference_uid,
            "sop_instance_uids": list(origin.sop_instance_uids),
            "generator": origin.generator,
            "notes": list(origin.notes),
            "reading": asdict(origin.policy),
        },
        warnings=warnings,
        out_of_domain=is_out_of_domain(volume, loaded.settings),
    )


@dataclass
class _Clock:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.monotonic)

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self.last, 3)
        self.last = now


def _run(clock: _Clock, volume: Volume, loaded: LoadedModel) -> dict[str, Any]:
    return {
        "seconds": clock.seconds,
        "precision": loaded.precision,
        "engine": loaded.engine,
        "processor": processor_features().get("cpu_name", platform.machine()),
        "host": platform.node(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "files": list(volume.provenance.files),
    }
