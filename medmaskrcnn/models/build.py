"""From settings to a network: the only place that knows which parts a Mask R-CNN is made of."""

from __future__ import annotations

from medmaskrcnn.config import ModelSettings
from medmaskrcnn.models.backbone import build_backbone
from medmaskrcnn.models.box_head import BoxHead
from medmaskrcnn.models.fpn import build_pyramid
from medmaskrcnn.models.mask_head import MaskHead
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.rpn import RPNHead


def build_model(settings: ModelSettings) -> MaskRCNN:
    """Make the network that ``settings`` describe, with random weights (torch's global generator).

    Example:
        >>> from medmaskrcnn.config import ModelSettings
        >>> model = build_model(ModelSettings(class_names=("liver", "tumour")))
        >>> model.box_head.classes.out_features  # with background
        3
    """
    dims, channels, classes = settings.spatial_dims, settings.backbone.fpn_channels, len(settings.class_names)
    backbone = build_backbone(settings.backbone, spatial_dims=dims, in_channels=settings.input_channels)
    pyramid = build_pyramid(backbone, spatial_dims=dims, channels=channels, strides=settings.backbone.strides)
    rpn_head = RPNHead(spatial_dims=dims, channels=channels, anchors_per_cell=len(settings.anchors.ratios))
    roi = settings.roi
    box_head = BoxHead(channels=channels, bins=roi.box_size, spatial_dims=dims, hidden=roi.box_hidden, classes=classes)
    mask_head = None
    if settings.with_masks:
        mask_head = MaskHead(
            channels=channels, hidden=roi.mask_channels, convs=roi.mask_convs, spatial_dims=dims, classes=classes
        )
    return MaskRCNN(pyramid, rpn_head, box_head, mask_head, settings)
