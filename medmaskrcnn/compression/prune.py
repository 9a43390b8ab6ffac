"""Structured pruning: removes the least important channels of a network.

torch-pruning (Fang et al. 2023, "DepGraph") traces a pass through the network to find which layers must lose the same
channels; the importance of a channel is the norm of all weights that belong to it. Every group of layers loses the
same share, so that settings can still describe the network: channels of the four stages, of the pyramid and of the
mask head, width of the box head. Channels are removed in blocks of eight, the groups of GroupNorm, so that the
remaining groups keep their statistics. At least 16 stay.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.backbone import FrozenBatchNorm, ResNetBackbone
from medmaskrcnn.models.box_head import BoxHead
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import ModelSettings

_BLOCK = 8  # channels removed together
_FEWEST = 16  # channels that remain: with 8, oneDNN of torch 2.15 writes past the gradient of 1-wide convolutions
_EXPANSION = 4  # output channels of a bottleneck relative to its inner channels
_CELLS_OF_P5 = 2  # per axis, of the image that is traced through the network


def prune(network: MaskRCNN, share: float) -> MaskRCNN:
    """A copy of a network without about a given share of its channels; it needs fine-tuning.

    Args:
        network: In float32 on the CPU; left unchanged.
        share: Share of the channels of every layer but the outputs, 0..1; rounded to blocks of eight channels.

    Returns:
        A network in evaluation mode with settings of its own.

    Raises:
        ValueError: if ``share`` would remove all channels or none.
        MedMaskRCNNError: if torch-pruning is not installed, or the network is of a kind that cannot be pruned.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    _check_kind(network)
    import torch_pruning as tp

    walk = _Walk(copy.deepcopy(network).train()).requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(
        walk,
        example_inputs=_image(network.settings),
        customized_pruners={FrozenBatchNorm: _frozen_norm_pruner()},
        verbose=False,
    )
    importance = tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
    for group in list(graph.get_all_groups(ignored_layers=walk.outputs)):
        root, remove = group[0].dep.layer, group[0].dep.pruning_fn
        gone = _least(importance(group), _norm_group(group), share, wider=_EXPANSION if _gives_out(group, walk) else 1)
        if gone:
            graph.get_pruning_group(root, remove, gone).prune()
    return _rebuilt(walk.network, network.settings)


def is_prunable(network: MaskRCNN) -> str | None:
    """The reason why a network cannot be pruned; ``None`` if it can."""
    if network.settings.backbone.pyramid != "fpn" or not isinstance(network.box_head, BoxHead):
        return "pruning needs a network with a feature pyramid"
    if not isinstance(network.pyramid.backbone, ResNetBackbone):
        return f"pruning knows ResNets alone, not the backbone {network.settings.backbone.name!r}"
    if find_spec("torch_pruning") is None:
        return 'torch-pruning is not installed; get it with: pip install "medmaskrcnn[prune]"'
    return None


class _Walk(nn.Module):
    """A forward pass through all layers, from which their dependencies are traced; its values are meaningless.

    RoIs are pooled from every level, so all levels must give the heads the same channels: their sum over whole maps
    stands in for RoIAlign.
    """

    def __init__(self, network: MaskRCNN) -> None:
        super().__init__()
        self.network = network

    @property
    def outputs(self) -> list[nn.Module]:
        """Layers whose output channels have a fixed meaning and are kept."""
        net = self.network
        own = [net.rpn_head.objectness, net.rpn_head.deltas, net.box_head.classes, net.box_head.deltas]
        return [*own, *([net.mask_head.logits] if net.mask_head is not None else [])]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        net, roi = self.network, self.network.settings.roi
        pool = F.adaptive_avg_pool2d if images.ndim == 4 else F.adaptive_avg_pool3d
        region = torch.stack([pool(level, roi.box_size) for level in net.pyramid(images)]).sum(dim=0)
        hidden = F.relu(net.rpn_head.conv(region))
        found = (net.rpn_head.objectness(hidden), net.rpn_head.deltas(hidden), *net.box_head(region))
        return found if net.mask_head is None else (*found, net.mask_head(region))


def _check_kind(network: MaskRCNN) -> None:
    reason = is_prunable(network)
    if reason:
        raise MedMaskRCNNError(reason)


def _image(settings: ModelSettings) -> Tensor:
    sides = [_CELLS_OF_P5 * stride for stride in settings.backbone.strides[-1]]
    return torch.randn(1, settings.input_channels, *sides, generator=torch.Generator().manual_seed(0))


def _norm_group(group: Any) -> int:
    """Channels per group of a normalisation among the group's layers; 1 without one."""
    sizes = [dep.layer.num_channels // dep.layer.num_groups for dep, _ in group if isinstance(dep.layer, nn.GroupNorm)]
    return max(sizes, default=1)


def _gives_out(group: Any, walk: _Walk) -> bool:
    """Whether the group holds bottleneck outputs, which have four times the inner channels."""
    last = {id(layer) for name, layer in walk.named_modules() if name.endswith(".conv3")}
    return any(id(dep.layer) in last and dep.pruning_fn.__name__ == "prune_out_channels" for dep, _ in group)


def _least(importance: Tensor, together: int, share: float, *, wider: int) -> list[int]:
    """Channels to remove: whole blocks with the lowest summed importance; ``wider`` blocks where others lose one."""
    block = together if together > 1 else _BLOCK
    blocks = importance[: len(importance) // block * block].reshape(-1, block)
    others = len(blocks) // wider
    count = wider * max(0, min(int(share * others + 1e-6), others - -(-_FEWEST // block)))
    if together > 1:
        worst = blocks.sum(dim=1).argsort(stable=True)[:count].tolist()
        return sorted(b * block + i for b in worst for i in range(block))
    return sorted(importance.argsort(stable=True)[: count * block].tolist())


def _rebuilt(pruned: MaskRCNN, settings: ModelSettings) -> MaskRCNN:
    """A network built from settings with the widths of ``pruned``, with its weights."""
    if _widths(pruned, settings) == settings:
        raise ValueError("the share is too small: no layer would lose a channel")
    with torch.random.fork_rng(devices=[]):
        network = build_model(_widths(pruned, settings))
    network.load_state_dict(pruned.state_dict())
    return network.eval()


def _widths(pruned: MaskRCNN, settings: ModelSettings) -> ModelSettings:
    resnet, light = pruned.pyramid.backbone.get_submodule("resnet"), settings.backbone.name == "light"
    stages = tuple(_conv(resnet.get_submodule(f"layer{i}.0.conv1")).out_channels for i in (1, 2, 3, 4))
    backbone = settings.backbone.model_copy(
        update={
            "light_channels" if light and settings.backbone.channels is None else "channels": stages,
            "fpn_channels": _conv(pruned.rpn_head.conv).out_channels,
        }
    )
    assert isinstance(pruned.box_head, BoxHead)
    hidden = {"box_hidden": pruned.box_head.fc1.out_features}
    if pruned.mask_head is not None:
        hidden["mask_channels"] = _conv(pruned.mask_head.upsample).out_channels
    return settings.model_copy(update={"backbone": backbone, "roi": settings.roi.model_copy(update=hidden)})


def _conv(module: nn.Module) -> nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d:
    assert isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    return module


def _frozen_norm_pruner() -> Any:
    """The torch-pruning function for our frozen normalisation, whose constants are buffers."""
    import torch_pruning as tp

    class FrozenNormPruner(tp.BasePruningFunc):  # type: ignore[misc]
        def prune_out_channels(self, layer: FrozenBatchNorm, idxs: Sequence[int]) -> nn.Module:
            kept = torch.tensor(sorted(set(range(len(layer.weight))) - set(idxs)))
            for name, value in list(layer.named_buffers()):
                layer.register_buffer(name, value[kept])
            return layer

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer: FrozenBatchNorm) -> int:
            return len(layer.weight)

        get_in_channels = get_out_channels

    return FrozenNormPruner()
