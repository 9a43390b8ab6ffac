"""From settings to a network: the only place that knows which parts a Mask R-CNN is made of."""

from __future__ import annotations

from medmaskrcnn.models.backbone import build_backbone
from medmaskrcnn.models.box_head import BoxHead, MeanBoxHead
from medmaskrcnn.models.fpn import build_pyramid
from medmaskrcnn.models.mask_head import MaskHead
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.rpn import RPNHead
from medmaskrcnn.settings import ModelSettings


def build_model(settings: ModelSettings) -> MaskRCNN:
    """Make the network that ``settings`` describe, with random weights (torch's global generator).

    Example:
        >>> from medmaskrcnn.settings import ModelSettings
        >>> model = build_model(ModelSettings(class_names=("liver", "tumour")))
        >>> model.box_head.classes.out_features  # with background
        3
    """
    dims, classes, roi = settings.spatial_dims, len(settings.class_names), settings.roi
    backbone = build_backbone(settings.backbone, spatial_dims=dims, in_channels=settings.input_channels)
    pyramid = build_pyramid(backbone, settings.backbone, spatial_dims=dims)
    rpn_head = RPNHead(spatial_dims=dims, channels=pyramid.channels, anchors_per_cell=settings.anchors_per_cell)
    channels, c4 = pyramid.region_channels, settings.backbone.pyramid == "c4"
    box_head: BoxHead | MeanBoxHead
    if c4:
        box_head = MeanBoxHead(channels=channels, spatial_dims=dims, classes=classes)
    else:
        box_head = BoxHead(
            channels=channels, bins=roi.box_size, spatial_dims=dims, hidden=roi.box_hidden, classes=classes
        )
    mask_head = None
    if settings.with_masks:
        convs = 0 if c4 else roi.mask_convs
        mask_head = MaskHead(
            channels=channels, hidden=roi.mask_channels, convs=convs, spatial_dims=dims, classes=classes
        )
    return MaskRCNN(pyramid, rpn_head, box_head, mask_head, settings)
