"""The dense part: strides per axis, no statistics over the batch, levels of one width."""

from __future__ import annotations

import pytest
import torch
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from monai.networks.nets import resnet as monai_resnet
from torch import Tensor, nn

from medmaskrcnn.models.backbone import Backbone, FrozenBatchNorm, build_backbone
from medmaskrcnn.models.fpn import Pyramid, build_pyramid
from medmaskrcnn.settings import BackboneSettings

ISOTROPIC_3D = ((4, 4, 4), (8, 8, 8), (16, 16, 16), (32, 32, 32))
THICK_3D = ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))
VERY_THICK_3D = ((1, 4, 4), (1, 8, 8), (1, 16, 16), (2, 32, 32))
SAME_IMAGE = 1e-4  # a batch of two is summed in another order than one image


def small(settings: BackboneSettings, *, dims: int, channels: int = 1) -> tuple[Backbone, Pyramid]:
    backbone = build_backbone(settings, spatial_dims=dims, in_channels=channels).eval()
    narrow = settings.model_copy(update={"fpn_channels": 8})
    return backbone, build_pyramid(backbone, narrow, spatial_dims=dims).eval()


@torch.no_grad()
def run(network: nn.Module, images: Tensor) -> list[Tensor]:
    return network(images)


@pytest.mark.parametrize("name", ["light", "resnet18", "resnet34", "resnet50", "resnet101"])
def test_every_network_has_its_maps(name: str) -> None:
    backbone, pyramid = small(BackboneSettings(name=name), dims=2)
    maps = run(backbone, torch.zeros(1, 1, 64, 32))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 8), (8, 4), (4, 2), (2, 1)]
    assert tuple(m.shape[1] for m in maps) == backbone.out_channels
    levels = run(pyramid, torch.zeros(1, 1, 64, 32))
    assert [tuple(m.shape) for m in levels] == [(1, 8, 16, 8), (1, 8, 8, 4), (1, 8, 4, 2), (1, 8, 2, 1), (1, 8, 1, 1)]


@pytest.mark.parametrize("strides", [ISOTROPIC_3D, THICK_3D, VERY_THICK_3D], ids=["isotropic", "thick", "very thick"])
@pytest.mark.parametrize("name", ["light", "resnet18"])
def test_strides_per_axis_in_3d(name: str, strides: tuple[tuple[int, ...], ...]) -> None:
    _, pyramid = small(BackboneSettings(name=name, strides=strides), dims=3)
    image = (32, 64, 32)
    levels = run(pyramid, torch.zeros(1, 1, *image))
    assert pyramid.strides[:-1] == strides
    assert pyramid.strides[-1] == tuple(2 * s for s in strides[-1])
    expected = [tuple(-(-n // s) for n, s in zip(image, stride, strict=True)) for stride in pyramid.strides]
    assert [tuple(level.shape[2:]) for level in levels] == expected


def test_bottleneck_strides_in_3d() -> None:
    backbone, _ = small(BackboneSettings(name="resnet50", strides=VERY_THICK_3D), dims=3)
    net = backbone.resnet
    assert [net.layer2[0].conv2.stride, net.layer2[0].downsample[0].stride] == [(1, 2, 2)] * 2
    assert [net.layer4[0].conv2.stride, net.layer4[0].downsample[0].stride] == [(2, 2, 2)] * 2
    assert net.layer2[0].conv1.stride == (1, 1, 1)


def test_p6_is_every_second_cell_of_p5() -> None:
    _, pyramid = small(BackboneSettings(name="light"), dims=2)
    *_, p5, p6 = run(pyramid, torch.randn(1, 1, 96, 160))
    assert p5.shape[2:] == (3, 5)
    assert torch.equal(p6, p5[..., ::2, ::2])


def test_more_channels_in() -> None:
    _, pyramid = small(BackboneSettings(name="light"), dims=2, channels=5)
    assert run(pyramid, torch.zeros(1, 5, 32, 32))[0].shape == (1, 8, 8, 8)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_nothing_depends_on_the_batch_or_on_the_mode(norm: str, dims: int) -> None:
    strides = THICK_3D if dims == 3 else BackboneSettings().strides
    _, pyramid = small(BackboneSettings(name="light", norm=norm, strides=strides), dims=dims)
    kinds = {type(m) for m in pyramid.modules() if "Norm" in type(m).__name__}
    assert kinds == {nn.GroupNorm if norm == "group" else FrozenBatchNorm}
    images = torch.randn(2, 1, *(8, 64, 64)[-dims:]) * torch.tensor([1.0, 30.0]).view(2, *(1,) * (dims + 1))
    together = run(pyramid, images)
    before = {name: value.clone() for name, value in pyramid.state_dict().items()}
    training = run(pyramid.train(), images)
    for level, in_training in zip(together, training, strict=True):
        assert torch.equal(level, in_training)
    assert all(torch.equal(before[name], value) for name, value in pyramid.state_dict().items())
    for i in range(2):
        for level, alone in zip(together, run(pyramid, images[i : i + 1]), strict=True):
            torch.testing.assert_close(level[i : i + 1], alone, atol=SAME_IMAGE, rtol=SAME_IMAGE)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.1])
def test_frozen_batch_norm_is_batch_norm_in_evaluation(eps: float) -> None:
    frozen, oracle = FrozenBatchNorm(6, eps), nn.BatchNorm3d(6, eps=eps).eval()
    with torch.no_grad():
        for value in (*oracle.parameters(), oracle.running_mean, oracle.running_var):
            value.uniform_(0.5, 2.0)
    state = {name: value for name, value in oracle.state_dict().items() if name != "num_batches_tracked"}
    frozen.load_state_dict(state)
    x = torch.randn(2, 6, 3, 4, 5)
    torch.testing.assert_close(frozen(x), oracle(x))
    assert not list(frozen.parameters()), "frozen constants must not be learnt"
    assert frozen(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("channels", [8, 24, 48, 96, 128, 2048])
def test_group_norm_has_groups_of_eight(channels: int) -> None:
    settings = BackboneSettings(name="light", light_channels=(channels, 8, 8, 8))
    norm = build_backbone(settings, spatial_dims=2, in_channels=1).resnet.bn1
    assert norm.num_channels == channels
    assert norm.num_groups == channels // 8


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_it_computes_what_monai_does_and_begins_with_the_same_weights(name: str, dims: int) -> None:
    strides = ISOTROPIC_3D if dims == 3 else BackboneSettings().strides
    settings = BackboneSettings(name=name, strides=strides, norm="frozen_batch", fpn_channels=16)
    torch.manual_seed(0)
    backbone = build_backbone(settings, spatial_dims=dims, in_channels=2)
    pyramid = build_pyramid(backbone, settings, spatial_dims=dims)
    torch.manual_seed(0)
    make = getattr(monai_resnet, name)
    resnet = make(spatial_dims=dims, n_input_channels=2, conv1_t_stride=2, feed_forward=False, bias_downsample=False)
    fpn = FeaturePyramidNetwork(dims, list(backbone.out_channels), 16, LastLevelMaxPool(dims))
    for ours, theirs in ((backbone.resnet, resnet.eval()), (pyramid.fpn, fpn)):
        expected = {key: value for key, value in theirs.state_dict().items() if "num_batches" not in key}
        assert {*ours.state_dict()} == {*expected}
        for key, value in ours.state_dict().items():
            assert torch.equal(value, expected[key]), key
    x, maps = torch.randn(1, 2, *(64,) * dims), {}
    levels = run(pyramid, x)
    with torch.no_grad():
        x = resnet.maxpool(resnet.act(resnet.bn1(resnet.conv1(x))))
        for number, stage in enumerate((resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4), start=2):
            maps[f"C{number}"] = x = stage(x)
        for level, wanted in zip(levels, fpn(maps).values(), strict=True):
            torch.testing.assert_close(level, wanted)
