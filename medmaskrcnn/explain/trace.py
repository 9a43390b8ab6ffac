"""The trace: a page that shows step by step how a network processes one slice or tile of a scan.

    trace(scan, model) -> Trace -> save("trace.html")

Everything on it was recorded while the network ran (:mod:`medmaskrcnn.explain.record`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.explain.focus import choose_focus
from medmaskrcnn.explain.page import HtmlPage, page, paragraph, table
from medmaskrcnn.explain.pictures import Bytes, grey
from medmaskrcnn.explain.record import Walk, record_walk
from medmaskrcnn.explain.scene import Scene
from medmaskrcnn.explain.sections_boxes import class_section, levels_section, refine_section, rpn_section
from medmaskrcnn.explain.sections_end import articles_section, removed_section
from medmaskrcnn.explain.sections_maps import backbone_section, input_section, pyramid_section
from medmaskrcnn.explain.sections_regions import align_section, mask_section, pasted_section
from medmaskrcnn.explain.shapes import Difference, Stage, differences, stages
from medmaskrcnn.explain.window import TracedWindow, choose_window
from medmaskrcnn.hub.loaded_model import DEFAULT_MODEL, LoadedModel, load_as_asked
from medmaskrcnn.inference.prepare import Preprocessed, prepare
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.inference.track_time import read_scan
from medmaskrcnn.settings import ModelSettings, SegmentOptions
from medmaskrcnn.settings.segment_options import options_from
from medmaskrcnn.structures.volume import Volume


@dataclass(frozen=True, eq=False)
class Trace(HtmlPage):
    """The trace of one window through a network.

    Attributes:
        walk: The recorded maps, boxes, scores and masks as tensors.
        stages: Shape, time and memory of each step.
        differences: How the shapes differ from those in articles, and why.
        title: What was traced.
        html: The complete page.
    """

    walk: Walk
    stages: tuple[Stage, ...]
    differences: tuple[Difference, ...]
    title: str
    html: str


def trace(
    source: str | os.PathLike[str] | Volume,
    model: str | os.PathLike[str] | LoadedModel = DEFAULT_MODEL,
    *,
    slice_index: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    series: str | None = None,
    allow_out_of_domain: bool = False,
    options: SegmentOptions | None = None,
) -> Trace:
    """Follow one slice (2D, 2.5D) or tile (3D) of a scan through the network.

    Args:
        source: A file, a DICOM folder, or a volume already read.
        model: Name of a shipped model, a model file, or a loaded model.
        slice_index: Which slice, from 0 along the network's first axis (for most models from the feet up); for 3D
            models the tile around it. By default the middle of the scan, in 3D the slice of the highest-scoring object.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: As for :func:`load_model`; a loaded model keeps its own.
        series: Which series of a folder: its UID, its number in the listing, or ``"largest"``.
        allow_out_of_domain: Trace a model on a scan that it was not made for; the page states it.
        options: All of these and the reading options in one object, used in place of them.

    Raises:
        ReadError: if the scan cannot be read.
        ModelFileError: if the model cannot be read.
        UnsuitableScanError: if the scan does not suit the model.
        InvalidOptionError: if an option is invalid: a missing device, an engine other than torch.
        ValueError: if there is no such slice, or the network has no feature pyramid.

    Example:
        >>> medmaskrcnn.trace("study/", model="abdomen-mr").save("trace.html")  # doctest: +SKIP
    """
    options = options_from(
        options, SegmentOptions, device=device, precision=precision, series=series,
        allow_out_of_domain=allow_out_of_domain,
    )  # fmt: skip
    if options.engine not in ("auto", "torch"):
        raise InvalidOptionError("engine", f"{options.engine} does not show the backbone's maps; torch does")
    loaded = load_as_asked(model, options.model_copy(update={"engine": "torch"}))
    if loaded.network.compiled is not None:
        raise InvalidOptionError("engine", f"{loaded.engine} does not show the backbone's maps; torch does")
    _check_kind(loaded.settings.model)
    volume = source if isinstance(source, Volume) else read_scan(Path(source), options)
    warnings = check_suitable(volume, loaded.settings, options)
    prepared = prepare(volume, loaded.settings.preprocess)
    window = choose_window(prepared, loaded.settings, slice_index)
    walk = record_walk(
        loaded.only_network, window, loaded.device, post_nms_top_n=loaded.settings.inference.post_nms_top_n_test
    )
    focus = choose_focus(walk, loaded.settings.model.roi, None if slice_index is None else window.plane)
    seen = window.low[0] + focus.plane  # in voxels of the network
    shown = min(int((seen + 0.5) * prepared.scale[0]), prepared.turned_shape[0] - 1)
    scene = Scene(walk, loaded.settings, focus, _slice(volume, prepared, shown), _spacing(volume, prepared))
    lines = stages(walk, loaded.settings.model)
    compared = differences(walk, loaded.settings.model)
    title = f"How {loaded.settings.card.name} read slice {shown}"
    return Trace(walk, lines, compared, title, _html(scene, title, lines, compared, window, warnings))


def _check_kind(model: ModelSettings) -> None:
    """Refuse ablation variants: the page explains only the standard networks."""
    if model.backbone.pyramid != "fpn" or model.roi.pooler != "align":
        raise ValueError(
            "the trace explains networks with a feature pyramid and RoIAlign; this model has "
            f"pyramid {model.backbone.pyramid!r} and pooler {model.roi.pooler!r}"
        )


def _html(
    scene: Scene,
    title: str,
    lines: tuple[Stage, ...],
    compared: tuple[Difference, ...],
    window: TracedWindow,
    warnings: tuple[str, ...],
) -> str:
    stage = {line.name: line for line in lines}
    sections = (
        input_section(scene, stage["input"]),
        backbone_section(scene, stage["backbone"]),
        pyramid_section(scene, stage["pyramid"]),
        rpn_section(scene, stage["rpn"]),
        levels_section(scene, stage["levels"]),
        align_section(scene, stage["align"]),
        class_section(scene, stage["classes"]),
        refine_section(scene),
        removed_section(scene, stage["removed"]),
        mask_section(scene, stage["masks"]),
        pasted_section(scene),
        articles_section(compared),
    )
    lead = paragraph(_lead(scene, window)) + _glance(lines)
    return page(title, lead, sections, shared=(scene.shared(),), warnings=warnings)


def _lead(scene: Scene, window: TracedWindow) -> str:
    found, settings = scene.walk.detections, scene.settings
    sure = [
        int(label) for label, s in zip(found.labels, found.scores, strict=True) if float(s) >= settings.inference.score
    ]
    names = [f"{sure.count(k)} x {escape(scene.class_name(k))}" for k in sorted(set(sure))]
    result = ", ".join(names) if names else "nothing with a score high enough to be shown by default"
    what = "slice" if settings.model.spatial_dims == 2 else f"tile of {' x '.join(map(str, window.shape))} voxels"
    followed = ""
    if scene.focus.detection is not None:
        label = int(found.labels[scene.focus.detection])
        score = float(found.scores[scene.focus.detection])
        followed = f" The pictures follow the {escape(scene.class_name(label))} with a score of {score:.2f}."
    walk = f"This page follows one {what} through the network, step by step, as it was recorded."
    return f"{walk} Found in it, before anything is joined or counted: {result}.{followed}"


def _glance(lines: tuple[Stage, ...]) -> str:
    rows = [[f'<a href="#{line.name}">{escape(line.title)}</a>', escape(line.shape), *line.cost] for line in lines]
    return table(["Step", "Hands on", "Time", "Memory"], rows, numbers=("Time", "Memory"), fold=True)


def _slice(volume: Volume, prepared: Preprocessed, index: int) -> Bytes:
    """An original slice of the scan in the network's axes: grey, or colour for colour images."""
    planes: NDArray[np.floating] = np.asarray(prepared.axes.apply(volume.array)[:, index], dtype=np.float64)
    if volume.channel_kind == "colour":
        return np.stack([grey(plane, low=0, high=255) for plane in planes[:3]], axis=-1)
    if volume.window is not None:
        centre, width = volume.window
        return grey(planes[0], low=centre - width / 2, high=centre + width / 2)
    return grey(planes[0])


def _spacing(volume: Volume, prepared: Preprocessed) -> tuple[float, float, float] | None:
    """Size of the network's voxels along D, H, W in mm."""
    if volume.spacing_mm is None:
        return None
    d, h, w = (volume.spacing_mm[axis] * scale for axis, scale in zip(prepared.axes.order, prepared.scale, strict=True))
    return d, h, w
