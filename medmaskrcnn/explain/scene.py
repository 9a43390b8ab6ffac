"""What all pictures of a page share: recorded forward pass, focus, background scan, colours and units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from medmaskrcnn.explain.canvas import Canvas, colour, shared_picture
from medmaskrcnn.explain.focus import Focus, on_plane
from medmaskrcnn.explain.pictures import Bytes, data_uri, grey
from medmaskrcnn.explain.record import Walk
from medmaskrcnn.report.colours import class_colours
from medmaskrcnn.settings import ModelFileSettings

LEVEL_COLOURS = ("#4fc3f7", "#81dc84", "#ffee58", "#ffa726", "#ff5f9e")
"""Colours of P2 to P6."""
PROPOSAL = "#ffee58"
GONE = "#9aa0a8"
_MARGIN = 0.35  # shown around a box, as a share of its longer side


@dataclass(frozen=True, eq=False)
class Scene:
    """The data shown on one page.

    Attributes:
        walk: The recorded forward pass.
        settings: The model's settings.
        focus: The object that is followed.
        scan: The original slice, in the network's axes and the scan's own voxels: grey or colour.
        spacing_mm: Size of the network's voxels along D, H, W; ``None`` where unknown.
    """

    walk: Walk
    settings: ModelFileSettings
    focus: Focus
    scan: Bytes
    spacing_mm: tuple[float, float, float] | None

    @property
    def height(self) -> int:
        """Rows of the window without padding."""
        return self.walk.shape[-2]

    @property
    def width(self) -> int:
        """Columns of the window without padding."""
        return self.walk.shape[-1]

    @cached_property
    def channels(self) -> list[Bytes]:
        """The slice in each channel of the network's input, in grey."""
        image = self.walk.image[..., : self.height, : self.width]
        if self.walk.dims == 3:
            image = image[:, self.focus.plane]
        planes = image.numpy()
        return [grey(plane, low=float(plane.min()), high=float(plane.max())) for plane in planes]

    def shared(self) -> str:
        """The background of all drawings: the slice as the network sees it, in its most informative channel."""
        model = self.settings.model
        if model.image_channels == 3 and not model.context_slices:
            pixels = np.stack(self.channels, axis=-1)
        else:
            middle = (model.image_channels - 1) * (2 * model.context_slices + 1) + model.context_slices
            pixels = self.channels[middle]
        return shared_picture("plane", data_uri(pixels), self.height, self.width)

    def canvas(self, label: str, around: Tensor | None = None) -> Canvas:
        """A drawing over the slice; only what lies around a box ``(2S,)``, if one is given."""
        view = (0.0, 0.0, float(self.height), float(self.width)) if around is None else self._around(around)
        return Canvas(view, label).shared("plane")

    def _around(self, box: Tensor) -> tuple[float, float, float, float]:
        dims = self.walk.dims
        (top, left), (bottom, right) = box[dims - 2 : dims].tolist(), box[2 * dims - 2 :].tolist()
        half = (0.5 + _MARGIN) * max(bottom - top, right - left, 8.0)
        row, column = (top + bottom) / 2, (left + right) / 2
        return row - half, column - half, row + half, column + half

    def seen(self, boxes: Tensor) -> list[int]:
        """Indices of the boxes ``(N, 2S)`` (voxels of the window) that intersect the slice."""
        return [int(i) for i in torch.nonzero(on_plane(boxes, self.focus.plane)).flatten()]

    def class_colour(self, label: int) -> str:
        """Colour of a class, the same as in every other picture of this package."""
        return colour(class_colours(self.settings.model.class_names)[label])

    def class_name(self, label: int) -> str:
        """Name of a class."""
        return self.settings.model.class_names[label]

    @cached_property
    def proposal_origin(self) -> Tensor:
        """Row of each proposal among the candidates, ``(P,)`` int64."""
        if not len(self.walk.proposals):
            return torch.zeros(0, dtype=torch.int64)
        return torch.cdist(self.walk.proposals, self.walk.candidates[0], p=1).argmin(dim=1)

    @property
    def objectness(self) -> Tensor:
        """Objectness of each proposal ``(P,)``, 0..1."""
        return self.walk.candidates[1][self.proposal_origin]

    def length(self, voxels: float, axis: int) -> str:
        """A length along D, H or W (0, 1, 2): voxels of the network, and millimetres if known."""
        text = f"{voxels:.1f} voxels"
        return text if self.spacing_mm is None else f"{text} ({voxels * self.spacing_mm[axis]:.1f} mm)"
