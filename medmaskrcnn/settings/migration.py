"""Conversion of settings between the names of format 1 and the current ones.

Format 1 (version 0.1.0) had its own names for settings that torchvision, detectron2 and Lightning name differently.
Model files, plans, search spaces and checkpoints in that format stay readable. In the other direction, UIDs of DICOM
objects are hashes of the settings with their names in format 1, so that renaming a setting does not change the UID of
the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, str] = {
    "model.detection.candidate_score": "score_thresh",
    "model.detection.per_image": "detections_per_img",
    "inference.proposals": "post_nms_top_n_test",
    "inference.covered": "max_containment",
    "inference.single": "one_per_scan_classes",
    "augment.foreground": "foreground_prob",
    "augment.favoured": "oversampled_class",
    "augment.favoured_patch": "oversampled_patch",
    "train.accumulate": "accumulate_grad_batches",
    "train.clip": "grad_clip_norm",
    "train.ema": "ema_decay",
    "train.warmup": "warmup_steps",
}
"""Dotted path of a setting in format 1, and its last name in format 2."""


def to_current_names(settings: Any) -> Any:
    """Settings of a model file or a plan, as JSON or YAML give them, with the names of format 2.

    Anything that is not a mapping where format 1 has one is left for validation to refuse. So is a setting given
    under both names, since it would not be clear which one is meant.
    """
    for path, new in RENAMED.items():
        settings = _renamed(settings, path.split("."), new)
    if isinstance(settings, Mapping) and settings.get("format_version") == 1:
        settings = {**settings, "format_version": 2}
    return settings


def to_current_path(path: str) -> str:
    """The dotted path of a setting in format 2: ``"train.ema"`` becomes ``"train.ema_decay"``."""
    new = RENAMED.get(path)
    return path if new is None else f"{path.rpartition('.')[0]}.{new}"


def to_first_path(path: str) -> str:
    """A setting's dotted path with the name of format 1; the inverse of :func:`to_current_path`."""
    return next((first for first in RENAMED if to_current_path(first) == path), path)


def to_first_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from a run record, with the names of format 1 in their ``inference`` section."""
    old_names = {new: path.rpartition(".")[2] for path, new in RENAMED.items() if path.startswith("inference.")}
    inference = settings.get("inference")
    if not isinstance(inference, Mapping):
        return dict(settings)
    return {**settings, "inference": {old_names.get(name, name): value for name, value in inference.items()}}


def _renamed(settings: Any, path: list[str], new: str) -> Any:
    """``settings`` with the key at ``path`` renamed in place; unchanged if there is no such key."""
    name, *rest = path
    if not isinstance(settings, Mapping) or name not in settings:
        return settings
    if rest:
        return {key: _renamed(value, rest, new) if key == name else value for key, value in settings.items()}
    if new in settings:
        return settings
    return {new if key == name else key: value for key, value in settings.items()}
