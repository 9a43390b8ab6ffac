"""At the end of a training: what the model's own scans look like to it, stored in its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from medmaskrcnn.data.cases import open_prepared
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.hub.model_file import read_members, save_members
from medmaskrcnn.inference.familiarity import LEAST_SCANS, fit_familiarity, pooled_features
from medmaskrcnn.models.averaged import AveragedRCNN
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import ModelSettings

_MOST_SCANS = 60  # enough for a distribution; more cost time


def remember_scans(
    file: Path, prepared: Sequence[Path], *, device: torch.device, build: Callable[[ModelSettings], MaskRCNN]
) -> None:
    """Measure how familiar scans of its own kind look to a model, and write that into its file.

    Args:
        file: The model file; it stays as it is if there are too few scans.
        prepared: Prepared cases of the training (:func:`medmaskrcnn.data.cases.prepare_cases`).
        device: Where the network runs.
        build: Builds the network.
    """
    count = min(len(prepared), _MOST_SCANS)
    if count < LEAST_SCANS:
        return
    members, settings = read_members(file, build=build)
    network = members[0] if len(members) == 1 else AveragedRCNN(members)
    loaded = LoadedModel(network.to(device), settings, "", device)
    chosen = [prepared[i * len(prepared) // count] for i in range(count)]
    cases = [open_prepared(one) for one in chosen]
    fitted = fit_familiarity([pooled_features(loaded, c.image.float()) for c in cases], [c.spacing_mm for c in cases])
    network.to("cpu")
    save_members(members, settings.model_copy(update={"familiarity": fitted}), file)
