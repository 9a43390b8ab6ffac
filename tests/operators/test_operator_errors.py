"""What the operators refuse, and that the message says where the trouble is."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from medmaskrcnn_kernels import batched_nms, multiscale_roi_align, nms, roi_align, roi_pool

FEATURES = torch.zeros(2, 1, 8, 8)
GOOD = [1.0, 1.0, 5.0, 5.0]


def align(**changes: Any) -> torch.Tensor:
    arguments: dict[str, Any] = {
        "features": FEATURES,
        "boxes": torch.tensor([GOOD, GOOD]),
        "batch_index": torch.tensor([0, 1]),
        "output_size": 2,
        "spatial_scale": 1.0,
    }
    arguments.update(changes)
    return roi_align(**arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_box_that_is_not_finite_is_named(value: float) -> None:
    boxes = torch.tensor([GOOD, GOOD, [1.0, 1.0, value, 5.0]])
    index = torch.zeros(3, dtype=torch.int64)
    message = "boxes row 2 is not a box: it is not finite"
    with pytest.raises(ValueError, match=message):
        align(boxes=boxes, batch_index=index)
    with pytest.raises(ValueError, match=message):
        multiscale_roi_align([FEATURES], boxes, index, output_size=2, strides=[1])
    with pytest.raises(ValueError, match=message):
        roi_pool(FEATURES, boxes, index, output_size=2, spatial_scale=1)
    with pytest.raises(ValueError, match=message):
        nms(boxes, torch.zeros(3), 0.5)
    with pytest.raises(ValueError, match=message):
        batched_nms(boxes, torch.zeros(3), index, 0.5)


def test_box_of_negative_size_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"boxes row 1 is not a box: its maximum lies below its minimum, got \[1.0, 6.0"
    ):
        align(boxes=torch.tensor([GOOD, [1.0, 6.0, 5.0, 5.0]]))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (
            torch.zeros(2, 6),
            r"boxes must have shape \(N, 4\) for 2 spatial axes, got \(2, 6\). Did you pass 3D boxes\?",
        ),
        (torch.zeros(4), r"boxes must have shape \(N, 4\) for 2 spatial axes, got \(4,\)"),
        (torch.zeros(2, 5), r"got \(2, 5\)"),
    ],
)
def test_boxes_of_wrong_shape(boxes: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align(boxes=boxes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_index": torch.tensor([0, 2])}, ValueError, "batch_index row 1 is 2, but there are 2 images"),
        ({"batch_index": torch.tensor([-1, 0])}, ValueError, "batch_index row 0 is -1"),
        ({"batch_index": torch.tensor([0])}, ValueError, r"batch_index must have shape \(2,\), got \(1,\)"),
        ({"batch_index": torch.tensor([0.0, 1.0])}, TypeError, "batch_index must hold integers, got torch.float32"),
        ({"features": torch.zeros(2, 8, 8)}, ValueError, r"features must be \(B, C, H, W\) or \(B, C, D, H, W\)"),
        ({"features": torch.zeros(2, 1, 0, 8)}, ValueError, "at least one cell"),
        ({"features": torch.zeros(2, 1, 8, 8).long()}, TypeError, "got torch.int64"),
        ({"output_size": 0}, ValueError, "output_size must be one positive number or 2 of them, got 0"),
        (
            {"output_size": (7, 7, 7)},
            ValueError,
            r"output_size must be one positive number or 2 of them, got \(7, 7, 7\)",
        ),
        ({"output_size": 2.5}, ValueError, "output_size must be whole numbers, got 2.5"),
        (
            {"spatial_scale": (1.0,)},
            ValueError,
            r"spatial_scale must be one positive number or 2 of them, got \(1.0,\)",
        ),
        ({"spatial_scale": -1.0}, ValueError, "spatial_scale must be one positive number"),
        ({"spatial_scale": math.nan}, ValueError, "spatial_scale must be one positive number"),
        ({"sampling_ratio": -1}, ValueError, r"sampling_ratio must be 0 \(adaptive\) or positive, got -1"),
        (
            {"sampling_ratio": 0, "boxes": torch.tensor([GOOD, [0.0, 0.0, 9.0, 1e9]])},
            ValueError,
            "boxes row 1 would need .* samples",
        ),
    ],
)
def test_other_arguments_of_roi_align(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        align(**changes)


@pytest.mark.parametrize(
    ("scores", "threshold", "message"),
    [
        (torch.tensor([0.1]), 0.5, r"scores must have shape \(2,\), got \(1,\)"),
        (torch.tensor([0.1, math.nan]), 0.5, "scores row 1 is NaN"),
        (torch.tensor([0.1, 0.2]), 1.5, "iou_threshold must lie in 0..1, got 1.5"),
        (torch.tensor([0.1, 0.2]), math.nan, "iou_threshold must lie in 0..1, got nan"),
    ],
)
def test_arguments_of_nms(scores: torch.Tensor, threshold: float, message: str) -> None:
    boxes = torch.tensor([GOOD, GOOD])
    with pytest.raises(ValueError, match=message):
        nms(boxes, scores, threshold)
    with pytest.raises(ValueError, match=message):
        batched_nms(boxes, scores, torch.tensor([0, 1]), threshold)


def test_classes_of_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"idxs must have shape \(2,\), got \(3,\)"):
        batched_nms(torch.tensor([GOOD, GOOD]), torch.zeros(2), torch.zeros(3), 0.5)


def test_boxes_on_another_device_than_the_features(device: torch.device) -> None:
    other = torch.device("meta")
    with pytest.raises(ValueError, match="must lie on one device"):
        align(features=FEATURES.to(device), boxes=torch.zeros(2, 4, device=other))


def test_import_loads_none_of_the_other_packages() -> None:
    code = (
        "import sys, medmaskrcnn_kernels\n"
        "ours = ('medmaskrcnn', 'medmaskrcnn_datasets', 'napari_medmaskrcnn', 'monai', 'torchvision', 'scipy')\n"
        "found = [name for name in ours if name in sys.modules]\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
