"""torchvision's ``maskrcnn_resnet50_fpn`` on our samples and in our pipeline: what the comparisons with it share.

It is built as torchvision builds it for training from scratch (no weights, BatchNorm learnt along), with its own
anchors, sampling, losses and selection. What it is given is the same: prepared images, grey ones repeated in its three
channels, neither normalised nor resized a second time. What it finds goes through the same pasting and scoring.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from medmaskrcnn.hub.torchvision_model import convert_torchvision, torchvision_settings
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN, Watch, unwatched
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, ModelSettings
from medmaskrcnn.training.transfer.apply import transfer

_INSIDE = 128  # occupancy, of 255, from which a pixel belongs to an object


class TorchvisionPeer(nn.Module):
    """torchvision's network behind the two methods of ours that training and the pipeline call.

    Args:
        class_names: Without background.
        detections_per_img: Detections kept per image: torchvision's 100 are too few for fields of cells.
    """

    precision, compiled = "fp32", None

    def __init__(self, class_names: Sequence[str], *, detections_per_img: int) -> None:
        super().__init__()
        self.network = maskrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=len(class_names) + 1,
            box_detections_per_img=detections_per_img,
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
            _skip_resize=True,
        )
        self.network.rpn.head.register_forward_hook(_in_float32)

    def losses(self, images: Tensor, targets: Sequence[Targets], *, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Its five terms for ``(B, 1 or 3, H, W)``; anchors and regions are drawn from the first image's seed."""
        torch.manual_seed(seeds[0])
        self.network.train()
        losses: dict[str, Tensor] = self.network(list(_colour(images)), [_target(t) for t in targets])
        return losses

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        image_shapes: Sequence[tuple[int, ...]] | None = None,
        *,
        proposals: int | None = None,
        watch: Watch = unwatched,
    ) -> list[Detections]:
        """What it finds, as :meth:`medmaskrcnn.models.mask_rcnn.MaskRCNN.detect` gives it."""
        if proposals is not None:
            raise ValueError("torchvision's number of proposals is set where it is built")
        net, shapes = self.network.eval(), image_shapes or [tuple(images.shape[2:])] * len(images)
        cut = [image[:, : shape[0], : shape[1]] for image, shape in zip(_colour(images), shapes, strict=True)]
        # Not net.transform: it skips resizing in training alone, and would enlarge to 800 pixels here.
        sizes = [(image.shape[-2], image.shape[-1]) for image in cut]
        batch = ImageList(net.transform.batch_images(cut), sizes)
        features = net.backbone(batch.tensors)
        proposals, _ = net.rpn(batch, features)
        found, _ = net.roi_heads(features, proposals, sizes)
        return [
            Detections(
                f["boxes"].float()[:, [1, 0, 3, 2]], f["labels"] - 1, f["scores"].float(), f["masks"][:, 0].float()
            )
            for f in found
        ]


def same_start(settings: ModelSettings, peer: TorchvisionPeer) -> MaskRCNN:
    """Our network with the peer's weights wherever both have one: convolutions, heads; not its normalisation."""
    ours = build_model(settings)
    three = torchvision_settings(settings.class_names, norm_eps=1e-5)
    transfer(ours, convert_torchvision(peer.network.state_dict(), three))
    return ours


def resnet50_settings(class_names: tuple[str, ...], *, channels: int = 1, norm: str = "group") -> ModelSettings:
    """Our ResNet-50-FPN with torchvision's anchors, sampling and widths."""
    return ModelSettings(
        image_channels=channels,
        class_names=class_names,
        backbone=BackboneSettings(name="resnet50", norm=norm),  # type: ignore[arg-type]
        anchors=AnchorSettings(offset=0.0, rounded=True, stride_from_size=True),
    )


def _in_float32(_head: nn.Module, _inputs: object, found: tuple[list[Tensor], ...]) -> tuple[list[Tensor], ...]:
    """Under autocast its boxes would be bfloat16 like the deltas, small objects without extent, and the loss NaN."""
    return tuple([level.float() for level in levels] for levels in found)


def _colour(images: Tensor) -> Tensor:
    return images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1)


def _target(target: Targets) -> dict[str, Tensor]:
    assert target.masks is not None
    masks = (target.masks >= _INSIDE).to(torch.uint8)
    return {"boxes": target.boxes[:, [1, 0, 3, 2]], "labels": target.labels + 1, "masks": masks}
