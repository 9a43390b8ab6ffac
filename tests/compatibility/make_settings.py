"""What ``make_files.py`` asked version 0.1.0 for: models, plans, searches, rules and a batch, as far as can be without
a single default."""

from __future__ import annotations

from typing import Any

SIDE = 64  # of a window of the pictures, in pixels

PLANE: dict[str, Any] = {
    "card": {
        "name": "plane",
        "summary": "A tiny network for bright and dark blocks.",
        "modality": "MR",
        "domain": None,
        "data": "Six pictures that were drawn.",
        "licence": "CC0-1.0",
        "attribution": "Nobody in particular.",
        "scores": {"drawn pictures": "all found"},
        "limits": ["Knows nothing but blocks."],
        "made_by": "tests/compatibility/make_files.py",
        "codes": {
            "liver": {
                "type": ["SCT", "10200004", "Liver"],
                "category": ["SCT", "123037004", "Anatomical Structure"],
                "modifier": ["SCT", "24028007", "Right"],
                "region": ["SCT", "818983003", "Abdomen"],
            }
        },
    },
    "model": {
        "spatial_dims": 2,
        "image_channels": 2,
        "context_slices": 0,
        "class_names": ["liver", "tumour"],
        "with_masks": True,
        "backbone": {
            "name": "resnet10",
            "light_channels": [32, 40, 56, 64],
            "channels": [8, 8, 8, 8],
            "norm": "group",
            "norm_eps": 2.25e-05,
            "strides": [[2, 4], [4, 8], [8, 16], [16, 32]],
            "fpn_channels": 8,
            "pyramid": "fpn",
        },
        "anchors": {
            "sizes": [[7, 9], [11, 12], [19, 21], [27, 29], [41, 43]],
            "ratios": [0.61, 1.03, 1.69],
            "offset": 0.26,
            "rounded": True,
            "stride_from_size": True,
        },
        "rpn": {
            "pre_nms_top_n": 57,
            "post_nms_top_n": 53,
            "nms_iou": 0.71,
            "min_size": 0.52,
            "matcher": "atss",
            "foreground_iou": 0.66,
            "background_iou": 0.34,
            "batch_per_image": 33,
            "positive_fraction": 0.46,
            "negatives": "hard",
        },
        "roi": {
            "pooler": "align",
            "box_size": 3,
            "mask_size": 5,
            "sampling_ratio": 4,
            "aligned": False,
            "canonical_size": 48.5,
            "canonical_level": 3,
            "box_hidden": 12,
            "mask_channels": 9,
            "mask_convs": 1,
            "mask_activation": "sigmoid",
            "foreground_iou": 0.56,
            "batch_per_image": 31,
            "positive_fraction": 0.31,
            "max_mask_rois": 15,
        },
        "detection": {"candidate_score": 0.037, "nms_iou": 0.44, "per_image": 13, "mask_threshold": 0.47},
        "loss": {
            "objectness": 1.11,
            "rpn_box": 1.12,
            "classification": 1.13,
            "box": 1.14,
            "mask": 1.15,
            "mask_dice": 0.62,
            "focal": 1.17,
        },
    },
    "preprocess": {
        "orientation": "as_stored",
        "spacing_mm": [None, None, None],
        "resize_min_max": [68, 96],
        "antialias": False,
        "windows": [[0.0, 140.0], [60.0, 255.0]],
        "percentiles": None,
        "ceiling": 1.6,
        "value_range": [5.0, 250.0],
        "mean": [0.32, 0.33],
        "std": [0.28, 0.29],
        "pad_multiple": [16, 64],
    },
    "inference": {
        "tile": [65, 73, 81],
        "tile_overlap": 0.22,
        "merge_iou": 0.35,
        "tiles_per_batch": 2,
        "slices_per_batch": 6,
        "proposals": 37,
        "link_iou": 0.41,
        "link_gap": 0,
        "covered": 0.63,
        "score": 0.23,
        "single": ["liver"],
        "precision": "fp32",
        "engine": "torch-compile",  # holds on a GPU; on a CPU layers run as without it
    },
}
"""2D, a pyramid."""

SLICES: dict[str, Any] = {
    "card": {"name": "slices", "modality": "CT", "licence": "CC0-1.0"},
    "model": {
        "spatial_dims": 2,
        "context_slices": 1,
        "class_names": ["liver", "tumour"],
        "backbone": {"name": "light", "light_channels": [8, 8, 8, 8], "fpn_channels": 8},
        "anchors": {"sizes": [[7, 7], [11, 11], [15, 15], [23, 23], [31, 31]], "ratios": [1.0]},
        "rpn": {"pre_nms_top_n": 40, "post_nms_top_n": 30, "matcher": "atss"},
        "roi": {
            "pooler": "pool",
            "box_size": 3,
            "mask_size": 6,
            "box_hidden": 16,
            "mask_channels": 8,
            "mask_convs": 1,
            "max_mask_rois": 6,
        },
        "detection": {"candidate_score": 0.06, "per_image": 4},
    },
    "preprocess": {
        "spacing_mm": [None, 1.4, 1.3],
        "percentiles": [0.6, 98.5],
        "ceiling": 1.7,
        "mean": [0.36],
        "std": [0.27],
        "pad_multiple": [32, 64],
    },
    "inference": {"proposals": 20, "link_iou": 0.2, "link_gap": 2, "score": 0.3, "slices_per_batch": 5},
}
"""2.5D, RoIPool."""

VOLUME: dict[str, Any] = {
    "card": {"name": "volume", "modality": "CT", "licence": "CC0-1.0"},
    "model": {
        "spatial_dims": 3,
        "class_names": ["liver", "tumour"],
        "backbone": {
            "name": "light",
            "light_channels": [8, 8, 16, 32],
            "norm": "frozen_batch",
            "strides": [[1, 4, 4], [2, 8, 8], [2, 16, 16], [2, 32, 32]],
            "fpn_channels": 8,
            "pyramid": "c4",
        },
        "anchors": {"sizes": [[5, 8, 8], [10, 22, 22]], "ratios": [1.0]},
        "rpn": {"pre_nms_top_n": 40, "post_nms_top_n": 30, "matcher": "atss", "negatives": "hard"},
        "roi": {
            "box_size": 4,
            "mask_size": 4,
            "mask_channels": 8,
            "mask_convs": 1,
            "batch_per_image": 64,
            "max_mask_rois": 8,
        },
        "detection": {"candidate_score": 0.03, "per_image": 6},
    },
    "preprocess": {
        "orientation": "acquisition",
        "spacing_mm": [2.9, 1.4, 1.5],
        "value_range": [10.0, 290.0],
        "mean": [0.34],
        "std": [0.26],
        "pad_multiple": [2, 32, 32],
    },
    "inference": {
        "tile": [12, 40, 44],
        "tile_overlap": 0.3,
        "merge_iou": 0.25,
        "score": 0.2,
        "single": ["liver", "tumour"],
    },
}
"""3D in tiles, a network without pyramid, frozen normalisation."""

AUGMENT: dict[str, Any] = {
    "patch": [1, SIDE, SIDE],
    "foreground": 0.58,
    "favoured": "tumour",
    "favoured_patch": [1, 48, 64],
    "flip": ["H"],
    "rotate_degrees": 10.5,
    "zoom": 0.105,
    "shift": 0.055,
    "elastic": 0.015,
    "blur": 0.35,
    "shift_intensity": 0.115,
    "scale_intensity": 0.125,
    "gamma": 0.135,
    "bias_field": 0.145,
    "noise": 0.065,
    "colour": 0.075,
}

LOOP: dict[str, Any] = {
    "steps": 12,
    "hours": None,
    "batch": 1,
    "accumulate": 3,
    "learning_rate": 0.0045,
    "warmup": 5,
    "weight_decay": 0.025,
    "clip": 2.75,
    "ema": 0.87,
    "precision": "fp32",
    "validate_every": 4,
    "patience": 77,
    "freeze": ["stem", "stage1", "stage2"],
    "seed": 71,
}

SEARCHED: dict[str, Any] = {
    "train.learning_rate": {"low": 0.0011, "high": 0.0077, "log": True, "points": 4},
    "augment.rotate_degrees": {"low": 3, "high": 18, "step": 5},
    "augment.foreground": [0.515, 0.525],
    "train.clip": {"low": 3.25, "high": 3.75},
    "train.ema": [0.815],
    "train.accumulate": [2],
    "train.warmup": [1],
    "model.detection.candidate_score": [0.0325],
    "model.detection.per_image": [11],
    "model.roi.batch_per_image": [29],
    "model.anchors.ratios": [[0.55, 1.05, 1.75]],
    "inference.proposals": [23],
    "inference.covered": [0.645],
    "inference.link_gap": [3],
}

RULES = """\
# Every key that rules may have.
take:
  - modality: [CT, MR]
    description: trunk|liver
    kernel: ^B[23]
    slices: {min: 3, max: 40}
  - modality: NM
leave:
  - description: thin|bone
  - slices: {min: 900}
per_study: 1
"""

BATCH_OPTIONS = (
    *("--score", "0.0", "--classes", "tumour", "--format", "csv,json,nifti,seg", "--resample-irregular"),
    *("--allow-out-of-domain", "--label-map-seg", "--deidentify", "--track", "--device", "cpu"),
)
