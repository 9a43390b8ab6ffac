"""Settings of inference: how a whole scan is walked through, and which of its candidates are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medmaskrcnn.settings.base import Count, Fraction, Settings


class InferenceSettings(Settings):
    """How a scan larger than one forward pass is walked through.

    Attributes:
        tile: Largest tile in voxels of the network's grid, per axis D, H, W (3D models).
        tile_overlap: Share of a tile that it shares with its neighbour.
        merge_iou: Two detections of neighbouring tiles are one object if their masks agree so well where both saw.
        tiles_per_batch: Tiles a forward pass (3D models): more keep a GPU busy, and take its memory.
        slices_per_batch: Slices a forward pass (2D and 2.5D models).
        post_nms_top_n_test: Proposals per tile or slice, at most: fewer is faster; ``None`` leaves it at
            ``rpn.post_nms_top_n``.
        link_iou: Masks on neighbouring slices are one object from this overlap on (2D and 2.5D models).
        link_gap: Slices in between that may lack the object.
        max_containment: An object is dropped if better ones of its class hold more than this share of its voxels
            (2D and 2.5D models: slice by slice, before they are linked); ``None`` drops none.
        score: Default score threshold of the result.
        one_per_scan_classes: Names of classes of which a body has one: only the best candidate is kept.
        precision: What ``auto`` means for this model: the rule of :mod:`medmaskrcnn.models.runtime.precision`, or a
            precision that was found to be worth it (``medmaskrcnn optimize``); ``int8`` goes with engine ``openvino``.
        engine: What runs the layers where the user names nothing; ``openvino`` holds on a CPU, ``torch-compile`` on a
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
    score: Fraction = 0.5
    one_per_scan_classes: tuple[str, ...] = ()
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    engine: Literal["torch", "openvino", "torch-compile"] = "torch"

    @model_validator(mode="after")
    def _check(self) -> InferenceSettings:
        if self.precision == "int8" and self.engine != "openvino":
            raise ValueError("inference.precision int8 needs inference.engine openvino")
        return self
