"""Settings of inference: how a whole scan is tiled, and which of its candidates are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medmaskrcnn.settings.base import Count, Fraction, Settings


class InferenceSettings(Settings):
    """Inference on a scan larger than one forward pass.

    Attributes:
        tile: Largest tile in voxels of the network's grid, per axis D, H, W (3D models).
        tile_overlap: Fraction of a tile that overlaps with its neighbour.
        merge_iou: Detections of neighbouring tiles are merged from this mask IoU on, within the overlap.
        tiles_per_batch: Tiles per forward pass (3D models): more use a GPU better, but need more memory.
        slices_per_batch: Slices per forward pass (2D and 2.5D models).
        post_nms_top_n_test: Most proposals per tile or slice: fewer are faster; ``None`` stands for
            ``rpn.post_nms_top_n``.
        link_iou: Masks on neighbouring slices are linked from this IoU on (2D and 2.5D models).
        link_gap: Number of slices in between on which the object may be missing.
        max_containment: An object is removed if higher-scoring ones of its class contain over this share of its voxels
            (2D and 2.5D models: slice by slice, before they are linked); ``None`` removes none.
        flips: Axes that are mirrored at inference, in all combinations, with the mean of what is found: better outlines
            for twice the time per axis. Not the left-right axis of classes with sides.
        score: Default score threshold of the result.
        one_per_scan_classes: Names of classes that occur once in a body: only the best candidate is kept.
        precision: What ``auto`` means for this model: the rule of :mod:`medmaskrcnn.models.runtime.precision`, or a
            precision chosen by ``medmaskrcnn optimize``; ``int8`` requires engine ``openvino``.
        engine: What runs the layers unless the user chooses; ``openvino`` applies on a CPU, ``torch-compile`` on a
            GPU.
    """

    tile: tuple[Count, Count, Count] = (160, 160, 160)
    tile_overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    merge_iou: Fraction = 0.3
    tiles_per_batch: Count = 1
    slices_per_batch: Count = 8
    post_nms_top_n_test: Count | None = None
    link_iou: Fraction = 0.3
    link_gap: Annotated[int, Field(ge=0)] = 1
    max_containment: Fraction | None = None
    flips: tuple[Literal["D", "H", "W"], ...] = ()
    score: Fraction = 0.5
    one_per_scan_classes: tuple[str, ...] = ()
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    engine: Literal["torch", "openvino", "torch-compile"] = "torch"

    @model_validator(mode="after")
    def _check(self) -> InferenceSettings:
        if self.precision == "int8" and self.engine != "openvino":
            raise ValueError("inference.precision int8 needs inference.engine openvino")
        return self
