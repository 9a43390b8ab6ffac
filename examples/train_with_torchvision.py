"""The training loop of torchvision's ``references/detection`` on our network: it takes it as it takes its own."""

from __future__ import annotations

import torch
from phantom_slices import CLASSES, PhantomSlices
from torch.utils.data import DataLoader

from medmaskrcnn import MaskRCNN, ModelSettings, build_model
from medmaskrcnn.settings import AnchorSettings, BackboneSettings

EPOCHS = 2


def collate(batch: list) -> tuple:
    """As ``utils.collate_fn`` there: images and targets stay lists, since their sizes differ."""
    return tuple(zip(*batch, strict=True))


def train_one_epoch(model: MaskRCNN, optimizer: torch.optim.Optimizer, loader: DataLoader, device: str) -> float:
    """``engine.train_one_epoch``: losses of a batch, summed; gradients; a step. Gives the mean loss."""
    model.train()
    seen = []
    for images, targets in loader:
        images = [image.to(device) for image in images]
        targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
        losses = sum(model(images, targets).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        seen.append(losses.item())
    return sum(seen) / len(seen)


@torch.inference_mode()
def evaluate(model: MaskRCNN, loader: DataLoader, device: str) -> int:
    """``engine.evaluate`` up to the metrics: detections of every image on the CPU. Gives their number."""
    model.eval()
    found = [model([image.to(device) for image in images]) for images, _ in loader]
    return sum(len(one["scores"].cpu()) for batch in found for one in batch)


def main() -> None:
    """Train and detect."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = ModelSettings(
        class_names=CLASSES,
        backbone=BackboneSettings(name="light", fpn_channels=32),
        anchors=AnchorSettings(sizes=((6, 6), (12, 12), (20, 20), (32, 32), (48, 48))),
    )
    model = build_model(settings).to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    learnt = DataLoader(PhantomSlices(seed=0), batch_size=2, shuffle=True, collate_fn=collate)
    held_out = DataLoader(PhantomSlices(seed=1), batch_size=2, collate_fn=collate)
    for epoch in range(EPOCHS):
        print(f"epoch {epoch}: loss {train_one_epoch(model, optimizer, learnt, device):.2f}")
    print(f"{evaluate(model, held_out, device)} detections in {len(held_out.dataset)} slices of another phantom")


if __name__ == "__main__":
    main()
