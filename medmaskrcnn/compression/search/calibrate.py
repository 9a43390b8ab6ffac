"""Calibration images for activation ranges: slices or tiles of the training scans."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from medmaskrcnn.compression.dense import images_of
from medmaskrcnn.data.case_labels import read_image
from medmaskrcnn.data.manifest import FOR_TRAINING, Manifest
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.settings import ModelFileSettings


def calibration_images(manifest: Manifest, settings: ModelFileSettings, count: int) -> Iterator[Tensor]:
    """About ``count`` images of the training split, spread over its scans.

    Args:
        manifest: Its cases of the split ``train``, or of no split, are used.
        settings: The model's settings.
        count: Number of slices or tiles.

    Returns:
        ``(1, C, *spatial)`` float32 each, as the network receives them.

    Raises:
        MedMaskRCNNError: if there is no training case.
    """
    cases = [case for case in manifest.cases if case.split in FOR_TRAINING]
    if not cases:
        raise MedMaskRCNNError(f"{manifest.name} has no case for training, from which ranges may be taken")
    each = -(-count // len(cases))
    step = max(1, len(cases) * each // count)
    volumes = (read_image(manifest, case) for case in cases[::step])
    return images_of(volumes, settings, per_volume=each)
