"""Sections on the dense part of the network: input, backbone features and feature pyramid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.explain.canvas import Canvas
from medmaskrcnn.explain.page import Section, figure, figures, more, paragraph
from medmaskrcnn.explain.pictures import Bytes, data_uri, heat, plane_of, strength
from medmaskrcnn.explain.scene import Scene
from medmaskrcnn.explain.shapes import Stage, shape_text, size_text, time_text

_CHANNELS_SHOWN = 4
_INPUTS_SHOWN = 6


def chips(stage: Stage) -> tuple[str, ...]:
    """A stage's figures in short."""
    parts = [stage.shape]
    if stage.seconds is not None:
        parts.append(time_text(stage.seconds))
    if stage.made_bytes:
        parts.append(f"hands on {size_text(stage.made_bytes)}")
    if stage.memory_bytes:
        parts.append(f"memory in use {size_text(stage.memory_bytes)}")
    return tuple(parts)


def input_section(scene: Scene, stage: Stage) -> Section:
    """The slice as stored, and as the network sees it."""
    preprocess, model = scene.settings.preprocess, scene.settings.model
    height, width = scene.scan.shape[:2]
    stored = figure(
        Canvas((0, 0, height, width), "The slice as the scan has it")
        .picture(data_uri(scene.scan), (0, 0, height, width), sharp=False)
        .svg(),
        f"The slice as the scan has it: {height} x {width} voxels.",
    )
    seen = [
        figure(
            Canvas((0, 0, scene.height, scene.width), name)
            .picture(data_uri(channel), (0, 0, scene.height, scene.width), sharp=False)
            .svg(),
            f"{name}: {scene.height} x {scene.width} voxels.",
        )
        for name, channel in list(zip(_channel_names(scene), scene.channels, strict=True))[:_INPUTS_SHOWN]
    ]
    text = f"The scan's axes are turned as the model wants them ({preprocess.orientation}), {_resampled(scene)}"
    text += " and the values are mapped to what the network was trained on: " + _values(scene) + "."
    padding = tuple(scene.walk.image.shape[1:])
    if padding != scene.walk.shape:
        text += (
            f" Zeros at the far ends bring the window to {shape_text(scene.walk.image.shape)} (space, then channels)."
        )
    kind = (
        f"A 2.5D model sees a slice with {model.context_slices} neighbours on each side as further channels."
        if model.context_slices
        else f"A {model.spatial_dims}D model sees a {'slice' if model.spatial_dims == 2 else 'tile'} at a time."
    )
    return Section("input", "What goes in", paragraph(f"{kind} {text}") + figures(stored, *seen), chips(stage))


def backbone_section(scene: Scene, stage: Stage) -> Section:
    """A few channels of each of the backbone's maps."""
    parts = []
    for number, (level, stride) in enumerate(zip(scene.walk.backbone, scene.walk.strides, strict=False), 2):
        planes = plane_of(level, scene.focus.plane, stride)
        tiles = _montage(planes)
        shown = min(len(planes), _CHANNELS_SHOWN)
        drawing = Canvas((0, 0, tiles.shape[0], tiles.shape[1]), f"Channels of C{number}").picture(
            data_uri(tiles), (0, 0, tiles.shape[0], tiles.shape[1])
        )
        size = f"C{number}: {shape_text(level.shape)}, one cell for {_stride(stride)} voxels."
        caption = f"{size} {shown} of its {len(level)} channels."
        parts.append(figure(drawing.svg(), caption))
    name = scene.settings.model.backbone.name
    text = paragraph(
        f"The backbone ({name}) is a ladder of convolutions. Each stage halves the maps and adds channels: early ones "
        "answer to edges and textures, late ones to larger arrangements. Bright means a strong answer of that channel."
    )
    return Section("backbone", "What the backbone sees", text + figures(*parts, each="16rem", pairs=True), chips(stage))


def pyramid_section(scene: Scene, stage: Stage) -> Section:
    """Activation strength of each level over the slice."""
    parts = []
    for number, (level, stride) in enumerate(zip(scene.walk.pyramid, scene.walk.strides, strict=True), 2):
        planes = plane_of(level, scene.focus.plane, stride)
        rows, columns = planes.shape[1] * stride[-2], planes.shape[2] * stride[-1]
        drawing = scene.canvas(f"Strength of P{number} over the slice").picture(
            data_uri(_lit(strength(planes))), (0, 0, rows, columns), opacity=0.75
        )
        parts.append(figure(drawing.svg(), f"P{number}: {shape_text(level.shape)}, stride {_stride(stride)}."))
    channels = scene.walk.pyramid[0].shape[0]
    text = paragraph(
        "Coarse maps know <em>what</em> there is, fine maps know <em>where</em>. The pyramid walks back down: each "
        "coarse map is enlarged and added to the finer one below. P6 is P5 subsampled, for the largest boxes. All "
        f"levels have {channels} channels; brightness is the root mean square over them."
    )
    return Section(
        "pyramid",
        "The feature pyramid",
        text + figures(*parts, each="16rem", pairs=True) + _why_pyramid(),
        chips(stage),
    )


def _why_pyramid() -> str:
    return more(
        "Articles show one map at 1/16. Where is it?",
        "It is P4. The first Mask R-CNN (and Faster R-CNN before it) took everything from that one map. The form "
        "with a feature pyramid, which most programs use today, reads small boxes from finer and large boxes from "
        "coarser maps.",
    )


def _montage(planes: NDArray[np.float32]) -> Bytes:
    """The channels that vary most, two by two, each scaled by itself."""
    order = np.argsort(-_inside(planes).reshape(len(planes), -1).std(axis=1), kind="stable")[:_CHANNELS_SHOWN]
    pictures = [_lit(planes[i]) for i in sorted(order)]
    while len(pictures) < _CHANNELS_SHOWN:
        pictures.append(np.zeros_like(pictures[0]))
    gap_down = np.zeros((pictures[0].shape[0], 1, 3), np.uint8)
    rows = [np.concatenate([a, gap_down, b], axis=1) for a, b in zip(pictures[::2], pictures[1::2], strict=True)]
    return np.concatenate([rows[0], np.zeros((1, rows[0].shape[1], 3), np.uint8), rows[1]])


def _lit(plane: NDArray[np.float32]) -> Bytes:
    """``(H, W)`` in colours, scaled by the values away from the border, which zero padding affects."""
    inside = _inside(plane)
    return heat(plane, low=float(np.percentile(inside, 0.5)), high=float(np.percentile(inside, 99.5)))


def _inside(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(..., H, W)`` without an eighth of it on each side."""
    rows, columns = (n // 8 for n in planes.shape[-2:])
    return planes[..., rows : planes.shape[-2] - rows, columns : planes.shape[-1] - columns]


def _stride(stride: tuple[int, ...]) -> str:
    return " x ".join(map(str, stride))


def _channel_names(scene: Scene) -> list[str]:
    preprocess, model = scene.settings.preprocess, scene.settings.model
    if preprocess.windows:
        names = [f"Values {low:g} to {high:g}" for low, high in preprocess.windows]
    elif model.image_channels == 3:
        names = ["Red", "Green", "Blue"]
    else:
        names = ["Values as the network sees them"]
    images = [names[i * len(names) // model.image_channels] for i in range(model.image_channels)]
    around = range(-model.context_slices, model.context_slices + 1)
    return [name if not where else f"{name}, slice {where:+d}" for name in images for where in around]


def _resampled(scene: Scene) -> str:
    preprocess = scene.settings.preprocess
    if preprocess.resize_min_max:
        return f"the picture is scaled to a shorter side of {preprocess.resize_min_max[0]}"
    if any(preprocess.spacing_mm):
        sizes = [f"{s:g}" if s else "own" for s in preprocess.spacing_mm]
        return f"resampled to {' x '.join(sizes)} mm (slices, rows, columns)"
    return "its voxels are kept"


def _values(scene: Scene) -> str:
    preprocess = scene.settings.preprocess
    if preprocess.windows:
        return "one channel for each window, " + ", ".join(f"{low:g} to {high:g}" for low, high in preprocess.windows)
    if preprocess.percentiles:
        low, high = preprocess.percentiles
        return f"the scan's own {low:g}th to {high:g}th percentile becomes 0 to 1"
    low, high = preprocess.value_range
    return f"{low:g} to {high:g} becomes 0 to 1, then mean and deviation are taken out"
