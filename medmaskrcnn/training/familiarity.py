"""At the end of a training: what the model's own scans look like to it, stored in its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from medmaskrcnn.data.cases import open_prepared
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.hub.model_file import read_model, save_model
from medmaskrcnn.inference.familiarity import LEAST_SCANS, fit_familiarity, pooled_features
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import ModelSettings

_MOST_SCANS = 60  # enough for a distribution; more cost time


def remember_scans(
    file: Path, prepared: Sequence[Path], *, device: torch.device, build: Callable[[ModelSettings], MaskRCNN]
) -> None:
    """Measure how familiar scans of its own kind look to a model, and write that into its file.

    Args:
        file: The model file, of one network; it stays as it is if there are too few scans.
        prepared: Prepared cases of the training (:func:`medmaskrcnn.data.cases.prepare_cases`).
        device: Where the network runs.
        build: Builds the network.
    """
    count = min(len(prepared), _MOST_SCANS)
    if count < LEAST_SCANS:
        return
    network, settings = read_model(file, build=build)
    loaded = LoadedModel(network.to(device), settings, "", device)
    features, spacings = [], []
    for i in range(count):  # one case in memory at a time
        case = open_prepared(prepared[i * len(prepared) // count])
        features.append(pooled_features(loaded, case.image.float()))
        spacings.append(case.spacing_mm)
    familiarity = fit_familiarity(features, spacings)
    save_model(network.to("cpu"), settings.model_copy(update={"familiarity": familiarity}), file)
