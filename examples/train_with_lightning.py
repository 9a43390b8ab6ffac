"""Our network in a LightningModule; what it learnt becomes a model file that ``medmaskrcnn segment`` runs."""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from phantom_slices import CLASSES, PhantomSlices
from torch.utils.data import DataLoader

import medmaskrcnn
from medmaskrcnn import ModelSettings, build_model
from medmaskrcnn.hub.model_file import save_model
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, ModelCard, ModelFileSettings, PreprocessSettings
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

STEPS = 8


def collate(batch: list) -> tuple:
    """Images and targets stay lists, since targets differ in size."""
    return tuple(zip(*batch, strict=True))


class Detector(lightning.LightningModule):
    """The network, its loss and its optimizer."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.network = build_model(settings)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """The sum of the losses."""
        images, targets = batch
        losses = self.network(images, targets)
        self.log_dict(losses, batch_size=len(images))
        return sum(losses.values())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    """Train, save, segment a scan."""
    lightning.seed_everything(0, verbose=False)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings = ModelFileSettings(
        card=ModelCard(name="by-lightning"),
        model=ModelSettings(
            class_names=CLASSES,
            backbone=BackboneSettings(name="light", fpn_channels=32),
            anchors=AnchorSettings(sizes=((6, 6), (12, 12), (20, 20), (32, 32), (48, 48))),
        ),
        preprocess=PreprocessSettings(windows=((-160, 240),), mean=(0.5,), std=(0.5,)),  # as PhantomSlices has it
    )
    detector = Detector(settings.model)
    loader = DataLoader(PhantomSlices(seed=0), batch_size=2, shuffle=True, collate_fn=collate)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(detector, loader)
    save_model(detector.network.eval(), settings, "by-lightning.safetensors")
    phantom = make_phantom(PhantomSettings(seed=1, shape=(8, 64, 64), spacing_mm=(24.0, 6.0, 6.0)))
    result = medmaskrcnn.segment(phantom.volume, "by-lightning.safetensors", score=0.05)
    print(f"{trainer.global_step} steps; {len(result.candidates)} candidates in another phantom")


if __name__ == "__main__":
    main()
