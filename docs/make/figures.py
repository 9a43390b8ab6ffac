"""The figures of the concept pages, ``images/concepts/*.svg``, drawn with the package's own functions."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medmaskrcnn.models.anchors import base_anchors
from medmaskrcnn.settings import AnchorSettings
from medmaskrcnn_kernels import roi_align, roi_pool
from medmaskrcnn_kernels.operators import least_areas
from medmaskrcnn_kernels.roi_align_portable import levels_of
from medmaskrcnn_kernels.roi_pool import bin_edges
from medmaskrcnn_kernels.separable import axis_grid

FOLDER = "images/concepts"
COLOURS = ("#1f77b4", "#2ca02c", "#d4a600", "#e07b00", "#d6336c")
STRIDE, BINS, CELLS = 8, 4, 12
BOX = (18.0, 37.4, 50.0, 61.9)
plt.rcParams.update({"svg.hashsalt": "medmaskrcnn", "font.size": 11, "svg.fonttype": "path"})


def drawings() -> dict[str, str | bytes]:
    """Every figure as SVG, by its path on the site."""
    drawn = {"anchors": anchors(), "levels": levels(), "roi-align": roi(), "coordinates": coordinates()}
    made: dict[str, str | bytes] = {}
    for name, figure in drawn.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
        made[f"{FOLDER}/{name}.svg"] = buffer.getvalue()
    return made


def anchors() -> Figure:
    """The anchors of one cell of each level, FPN's sizes."""
    figure, axes = plt.subplots(figsize=(5, 5))
    settings = AnchorSettings()
    for level, size in reversed(list(enumerate(settings.sizes))):
        for number, (top, left, bottom, right) in enumerate(
            base_anchors(size, settings.ratios, rounded=False).tolist()
        ):
            label = f"P{level + 2}: {size[0]:g} voxels" if number == 0 else None
            _rectangle(axes, top, left, bottom, right, COLOURS[level], label)
    axes.set(xlim=(-400, 400), ylim=(400, -400), aspect="equal", xlabel="columns (voxels)", ylabel="rows (voxels)")
    axes.legend(loc="upper right", fontsize=9)
    return figure


def levels() -> Figure:
    """Which level a square box is read from (FPN, equation 1), by the operator's own rule."""
    figure, axes = plt.subplots(figsize=(7, 2.6))
    sides = torch.logspace(1, 3, 600)
    boxes = torch.stack([torch.zeros(600), torch.zeros(600), sides, sides], dim=1)
    level = 2 + levels_of(boxes, least_areas([2, 3, 4, 5], canonical_size=224.0, canonical_level=4))
    axes.step(sides.numpy(), level.numpy(), where="mid", color=COLOURS[0])
    axes.set(xscale="log", xlabel="side of the box (voxels)", yticks=[2, 3, 4, 5], yticklabels=["P2", "P3", "P4", "P5"])
    axes.set_xticks([10, 56, 112, 224, 448, 1000], ["10", "56", "112", "224", "448", "1,000"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    return figure


def roi() -> Figure:
    """One box on one map, read by RoIAlign and by RoIPool, and what comes out."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 7.4), height_ratios=(3, 1.2))
    ramp = torch.arange(float(CELLS)).expand(1, 1, CELLS, CELLS)
    box, image = torch.tensor([BOX]), torch.tensor([0])
    aligned = roi_align(ramp, box, image, output_size=BINS, spatial_scale=1 / STRIDE)[0, 0]
    pooled = roi_pool(ramp, box, image, output_size=BINS, spatial_scale=1 / STRIDE)[0, 0]
    for axes, title in zip(panels[0], ("RoIAlign: nothing is rounded", "RoIPool: rounded to whole cells"), strict=True):
        extent = (0, CELLS * STRIDE, CELLS * STRIDE, 0)
        axes.imshow(ramp[0, 0].numpy(), extent=extent, cmap="Greys", alpha=0.55)
        axes.set_xticks(range(0, CELLS * STRIDE + 1, STRIDE), minor=False)
        axes.set_yticks(range(0, CELLS * STRIDE + 1, STRIDE))
        axes.grid(alpha=0.35)
        axes.tick_params(labelsize=8)
        axes.set(title=title, xlabel="columns (voxels); a cell is 8 wide")
    _draw_aligned(panels[0, 0])
    _draw_pooled(panels[0, 1])
    for axes, values, colour in ((panels[1, 0], aligned, COLOURS[0]), (panels[1, 1], pooled, COLOURS[4])):
        bars = axes.bar(range(1, BINS + 1), values[0].tolist(), color=colour)
        axes.bar_label(bars, fmt="%.2f", fontsize=9)
        axes.set(xticks=range(1, BINS + 1), xlabel="bin, from left to right", ylim=(0, 10), ylabel="value")
    figure.tight_layout()
    return figure


def _draw_aligned(axes: Axes) -> None:
    edges, points = [], []
    for axis in (0, 1):
        low, high = BOX[axis], BOX[2 + axis]
        edges.append(np.linspace(low, high, BINS + 1))
        grid = axis_grid(
            torch.tensor([low]), torch.tensor([high]), torch.tensor([1 / STRIDE]), torch.tensor([CELLS]),
            bins=BINS, sampling_ratio=2, aligned=True,
        )  # fmt: skip
        position = grid.position(torch.arange(BINS)[:, None], torch.arange(2))
        points.append(((position + 0.5) * STRIDE).flatten().numpy())
    axes.vlines(edges[1], *BOX[::2], color=COLOURS[0])
    axes.hlines(edges[0], *BOX[1::2], color=COLOURS[0])
    axes.plot(*np.meshgrid(points[1], points[0]), ".", color=COLOURS[0], markersize=4)


def _draw_pooled(axes: Axes) -> None:
    lines = []
    for axis in (0, 1):
        bins = bin_edges(BOX[axis] / STRIDE, BOX[2 + axis] / STRIDE, BINS, CELLS)
        lines.append([STRIDE * cell for cell in (*(begin for begin, _ in bins), bins[-1][1])])
    axes.vlines(lines[1], lines[0][0], lines[0][-1], color=COLOURS[4])
    axes.hlines(lines[0], lines[1][0], lines[1][-1], color=COLOURS[4])
    _rectangle(axes, *BOX, COLOURS[0], "the box")
    axes.legend(loc="lower right", fontsize=9)


def coordinates() -> Figure:
    """Voxel index and voxel coordinate on one axis."""
    figure, axes = plt.subplots(figsize=(7, 1.9))
    for index in range(5):
        axes.add_patch(Rectangle((index, 0), 1, 1, facecolor="#eceff4", edgecolor="#5b6b7d"))
        axes.plot(index + 0.5, 0.5, "o", color=COLOURS[0])
        axes.text(index + 0.5, 0.72, f"index {index}", ha="center", fontsize=9)  # at the dot the affine puts it
    axes.add_patch(Rectangle((1.25, 0.1), 2.5, 0.25, fill=False, edgecolor=COLOURS[4], linewidth=2))
    axes.text(3.85, 0.16, "box 1.25 .. 3.75", color=COLOURS[4], fontsize=9)
    axes.set(
        xlim=(-0.2, 5.2),
        ylim=(0, 1),
        yticks=[],
        xticks=range(6),
        xlabel="voxel coordinate; dots: where the affine puts an index",
    )
    axes.spines[["top", "left", "right"]].set_visible(False)
    return figure


def _rectangle(
    axes: Axes, top: float, left: float, bottom: float, right: float, colour: str, label: str | None = None
) -> None:
    patch = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.8, label=label)
    axes.add_patch(patch)
