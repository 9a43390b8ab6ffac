"""The network: widths that keep the model file small, numbers of proposals, and what is fitted to the objects."""

from __future__ import annotations

import numpy as np

from medmaskrcnn.settings import (
    BackboneSettings,
    DetectionSettings,
    ModelSettings,
    RoISettings,
    RPNSettings,
)
from medmaskrcnn.training.planner.anchors import plan_anchors
from medmaskrcnn.training.planner.dataset_fingerprint import DatasetFingerprint
from medmaskrcnn.training.planner.grid import GridPlan
from medmaskrcnn.training.planner.levels import plan_levels
from medmaskrcnn.training.planner.memory import count_parameters

LARGEST_FILE = 12e6
"""Maximum size of a model file in bytes."""

_BYTES_A_WEIGHT = 2  # fp16
_HEADER = 0.2e6  # bytes left for the settings and the names of the weights
_WIDTHS = {  # channels of the stages, the FPN, the box head, the mask head; number of mask convolutions
    2: (
        ((32, 64, 128, 192), 96, 256, 96, 4),
        ((24, 48, 96, 128), 64, 256, 64, 4),
        ((16, 32, 64, 96), 48, 128, 48, 3),
    ),
    3: (((24, 48, 96, 128), 48, 128, 48, 4), ((16, 32, 64, 96), 32, 96, 32, 3), ((16, 24, 48, 64), 24, 64, 24, 2)),
}


def plan_network(
    fingerprint: DatasetFingerprint, grid: GridPlan, image_channels: int, reasons: dict[str, str]
) -> list[ModelSettings]:
    """Settings of the candidate networks, widest first; the reasons are added to ``reasons``."""
    per_case = fingerprint.objects_p90
    _counting_reasons(fingerprint, reasons)
    common = {
        "spatial_dims": grid.dims,
        "image_channels": image_channels,
        "context_slices": grid.context_slices,
        "class_names": fingerprint.class_names,
        "anchors": plan_anchors(fingerprint, grid, reasons),
        "rpn": RPNSettings(
            pre_nms_top_n=int(np.clip(60 * per_case, 200, 1000)),
            post_nms_top_n=int(np.clip(30 * per_case, 100, 600)),
            matcher="atss",
            batch_per_image=int(np.clip(32 * per_case, 64, 256)),
            objectness="per_class" if fingerprint.partly_labelled else "shared",
        ),
        "detection": DetectionSettings(detections_per_img=_per_image(fingerprint)),
    }
    canonical_size, canonical_level = plan_levels(fingerprint, grid, reasons)
    networks = []
    for stages, pyramid, hidden, mask, convs in _WIDTHS[grid.dims]:
        backbone = BackboneSettings(name="light", light_channels=stages, fpn_channels=pyramid, strides=grid.strides)
        roi = RoISettings(
            canonical_size=canonical_size,
            canonical_level=canonical_level,
            box_hidden=hidden,
            mask_channels=mask,
            mask_convs=convs,
            batch_per_image=int(np.clip(10 * per_case, 32, 160)),
            positive_fraction=0.4,
            max_mask_rois=int(np.clip(2 * per_case, 8, 48 if grid.dims == 2 else 16)),
        )
        networks.append(ModelSettings(backbone=backbone, roi=roi, **common))
    small = [one for one in networks if file_bytes(one) <= LARGEST_FILE]
    return small or networks[-1:]


def file_bytes(model: ModelSettings) -> float:
    """Estimated size of a model file in bytes."""
    return _BYTES_A_WEIGHT * count_parameters(model) + _HEADER


def width_reasons(model: ModelSettings, reasons: dict[str, str]) -> None:
    """Add the reasons for the network's width to ``reasons``."""
    size = file_bytes(model) / 1e6
    text = (
        f"{count_parameters(model) / 1e6:.1f} million weights, a file of {size:.1f} MB; at most {LARGEST_FILE / 1e6:g}."
    )
    reasons["model.backbone"] = f"One block a stage and group normalisation, which needs no large batches. {text}"
    reasons["model.roi.box_hidden"] = reasons["model.roi.mask_channels"] = f"As the backbone: {text}"
    reasons["model.roi.mask_convs"] = "Enough to see across a region."


def _per_image(fingerprint: DatasetFingerprint) -> int:
    most = int(fingerprint.counts().max())
    return int(np.clip(-(-(3 * most + 10) // 10) * 10, 20, 1000))


def _counting_reasons(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> None:
    counts = fingerprint.counts()
    usual, most = f"{np.median(counts):.0f} objects per scan (median)", f"{counts.max():.0f} at most"
    seen = f"{usual}, {fingerprint.objects_p90} in a full one, {most}"
    reasons["model.class_names"] = "As in the manifest."
    reasons["model.with_masks"] = "Objects are outlined, not only boxed."
    reasons["model.rpn"] = "Proposals and samples by the number of objects."
    partly = sum(len(case.annotated) < len(fingerprint.class_names) for case in fingerprint.cases)
    reasons["model.rpn.objectness"] = (
        f"{partly} of {len(fingerprint.cases)} scans are not annotated for every class: each class has its own."
        if partly
        else "Every class was annotated in every scan."
    )
    reasons["model.rpn.matcher"] = "ATSS fits a threshold to each object, so that small ones find anchors too."
    reasons["model.rpn.post_nms_top_n"] = f"30 for each object of a full scan: {seen}."
    reasons["model.rpn.pre_nms_top_n"] = "Twice as many for each level."
    reasons["model.rpn.batch_per_image"] = "32 for each object of a full scan, 64 to 256."
    reasons["model.roi"] = "As in the paper where nothing else is said."
    reasons["model.roi.batch_per_image"] = f"10 for each object of a full scan: {seen}."
    reasons["model.roi.positive_fraction"] = "Four regions on every object, six beside."
    reasons["model.roi.max_mask_rois"] = "Two for each object of a full scan; more cost memory and teach little."
    reasons["model.detection"] = "Candidates far below the threshold are kept, so that it can be changed afterwards."
    reasons["model.detection.detections_per_img"] = f"Three times the most objects in a scan, and ten: {seen}."
    reasons["model.loss"] = "All terms count alike."
    reasons["model.semantic"] = "None: masks are read from the levels of their boxes alone."
