"""MONAI's transforms, CacheDataset and SupervisedTrainer around our network, in 3D."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, EnsureChannelFirstd, MapTransform, RandFlipd, ScaleIntensityRanged
from torch import Tensor

from medmaskrcnn import ModelSettings, build_model
from medmaskrcnn.settings import AnchorSettings, BackboneSettings
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

CLASSES = ("liver", "spleen")
STRIDES = ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))
STEPS = 4


class ToTargets(MapTransform):
    """A label map of objects, after all spatial transforms, becomes boxes, labels and masks.

    x runs along the array's last axis, whatever that is in the patient.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the key ``target``."""
        made, labels = dict(data), torch.as_tensor(np.asarray(data["label"]))[0]
        kept = {value: label for value, label in data["meaning"].items() if (labels == value).any()}
        masks = torch.stack([labels == value for value in kept])
        made["target"] = {
            "boxes": torch.stack([box_of(mask) for mask in masks]),
            "labels": torch.tensor(list(kept.values())),
            "masks": masks,
        }
        return made


def box_of(mask: Tensor) -> Tensor:
    """``x0, y0, z0, x1, y1, z1``."""
    inside = mask.nonzero().flip(1)
    return torch.cat([inside.amin(0), inside.amax(0) + 1]).float()


def case(seed: int) -> dict[str, Any]:
    """A phantom CT; with files this is ``{"image": path, "label": path}`` and a LoadImaged in front."""
    phantom = make_phantom(PhantomSettings(seed=seed, shape=(16, 64, 64), spacing_mm=(12.0, 6.0, 6.0)))
    meaning = {i.value: 1 + CLASSES.index(i.class_name) for i in phantom.instances if i.class_name in CLASSES}
    return {"image": phantom.volume.array[0], "label": phantom.labels.astype(np.int32), "meaning": meaning}


def prepare_batch(batch: list[dict[str, Any]], device: torch.device, non_blocking: bool, **_: Any) -> tuple:
    """What SupervisedTrainer hands on: the network is called with the images and, as an argument, the targets."""
    images = [one["image"].to(device, non_blocking=non_blocking) for one in batch]
    targets = [{name: value.to(device) for name, value in one["target"].items()} for one in batch]
    return images, targets, (targets,), {}


def main() -> None:
    """Train a few steps."""
    torch.manual_seed(0)
    settings = ModelSettings(
        spatial_dims=3,
        class_names=CLASSES,
        backbone=BackboneSettings(name="light", fpn_channels=16, strides=STRIDES),
        anchors=AnchorSettings(sizes=((4, 8, 8), (6, 14, 14), (8, 20, 20), (12, 30, 30), (16, 44, 44))),
    )
    network = build_model(settings)
    transform = Compose(
        [
            EnsureChannelFirstd(["image", "label"], channel_dim="no_channel"),
            ScaleIntensityRanged("image", -160, 240, 0, 1, clip=True),
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            ToTargets(["label"]),
        ]
    )
    cached = CacheDataset([case(seed) for seed in range(2)], transform, progress=False)
    seen: list[float] = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=STEPS // len(cached),
        train_data_loader=DataLoader(cached, batch_size=1, shuffle=True, collate_fn=list),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-3),
        loss_function=lambda losses, _: sum(losses.values()),
        prepare_batch=prepare_batch,
        iteration_update=None,
        decollate=False,
    )
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: seen.append(engine.state.output["loss"].item()))
    trainer.run()
    print("losses", [round(value, 2) for value in seen])


if __name__ == "__main__":
    main()
