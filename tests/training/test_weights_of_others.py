"""First weights of other projects, made at random under the right names: each tensor goes where it belongs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.resenc import BLOCKS, CHANNELS, ResEncBackbone, stage_steps
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, ModelSettings, RoISettings
from medmaskrcnn.training.transfer.apply import TransferReport, freeze, transfer

Tiny = Callable[..., ModelSettings]
WIDTHS = (4, 8, 8, 8)  # of the blocks; outputs of the stages are four times as wide
BLOCKS_OF = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
CLASSES = 3
STRIDES_3D = ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))
SUMMED_OTHERWISE = 1e-4


def detectron2_state(name: str) -> dict[str, Tensor]:
    """The names and shapes of detectron2's ``mask_rcnn_R_*_FPN``, with narrow layers."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(where: str, outputs: int, inputs: int, size: int, *, norm: bool = True) -> None:
        shapes[f"{where}.weight"] = (outputs, inputs, size, size)
        for part in ("weight", "bias", "running_mean", "running_var") if norm else ():
            shapes[f"{where}.norm.{part}"] = (outputs,)
        if not norm:
            shapes[f"{where}.bias"] = (outputs,)

    bottom, before = "backbone.bottom_up.", WIDTHS[0]
    conv(f"{bottom}stem.conv1", before, 3, 7)
    for stage, (count, width) in enumerate(zip(BLOCKS_OF[name], WIDTHS, strict=True), start=2):
        for block in range(count):
            where = f"{bottom}res{stage}.{block}"
            if block == 0:
                conv(f"{where}.shortcut", 4 * width, before, 1)
            conv(f"{where}.conv1", width, before, 1)
            conv(f"{where}.conv2", width, width, 3)
            conv(f"{where}.conv3", 4 * width, width, 1)
            before = 4 * width
        conv(f"backbone.fpn_lateral{stage}", 8, before, 1, norm=False)
        conv(f"backbone.fpn_output{stage}", 8, 8, 3, norm=False)
    conv("proposal_generator.rpn_head.conv", 8, 8, 3, norm=False)
    conv("proposal_generator.rpn_head.objectness_logits", 3, 8, 1, norm=False)
    conv("proposal_generator.rpn_head.anchor_deltas", 12, 8, 1, norm=False)
    for layer, outputs, inputs in (("box_head.fc1", 24, 8 * 16), ("box_head.fc2", 24, 24)):
        shapes |= {f"roi_heads.{layer}.weight": (outputs, inputs), f"roi_heads.{layer}.bias": (outputs,)}
    for layer, outputs in (("cls_score", CLASSES + 1), ("bbox_pred", 4 * CLASSES)):
        where = f"roi_heads.box_predictor.{layer}"
        shapes |= {f"{where}.weight": (outputs, 24), f"{where}.bias": (outputs,)}
    conv("roi_heads.mask_head.mask_fcn1", 8, 8, 3, norm=False)
    conv("roi_heads.mask_head.deconv", 8, 8, 2, norm=False)
    conv("roi_heads.mask_head.predictor", CLASSES, 8, 1, norm=False)
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def named(name: str, **changes: object) -> BackboneSettings:
    return BackboneSettings(**{"name": name, "norm": "frozen_batch", "fpn_channels": 8, **changes})


@pytest.mark.parametrize("name", list(BLOCKS_OF))
def test_detectron2(tiny_model: Tiny, tmp_path: Path, name: str) -> None:
    state = detectron2_state(name)
    extra = {"pixel_mean": torch.zeros(3, 1, 1)}
    torch.save({"model": state | extra, "optimizer": {}, "iteration": 7}, tmp_path / "model_final.pth")
    settings = tiny_model(
        2,
        image_channels=3,
        class_names=tuple(f"class {i}" for i in range(1, CLASSES + 1)),
        backbone=named(name, channels=WIDTHS),
    )
    ours = build_model(settings)
    report = transfer(ours, tmp_path / "model_final.pth")
    assert report.new == {} and report.unused == ("pixel_mean",)
    assert sorted(theirs for theirs, _, _ in report.table()) == sorted([*state, "pixel_mean"])
    found, resnet = ours.state_dict(), "pyramid.backbone.resnet."
    last = BLOCKS_OF[name][2] - 1
    for here, there in {
        f"{resnet}layer3.{last}.bn2.running_var": f"backbone.bottom_up.res4.{last}.conv2.norm.running_var",
        f"{resnet}layer1.0.downsample.0.weight": "backbone.bottom_up.res2.0.shortcut.weight",
        f"{resnet}layer4.0.downsample.1.bias": "backbone.bottom_up.res5.0.shortcut.norm.bias",
        "pyramid.fpn.inner_blocks.3.bias": "backbone.fpn_lateral5.bias",
        "pyramid.fpn.layer_blocks.0.weight": "backbone.fpn_output2.weight",
        "rpn_head.conv.weight": "proposal_generator.rpn_head.conv.weight",
        "box_head.fc1.weight": "roi_heads.box_head.fc1.weight",
        "mask_head.upsample.weight": "roi_heads.mask_head.deconv.weight",
        "mask_head.logits.weight": "roi_heads.mask_head.predictor.weight",
    }.items():
        assert torch.equal(found[here], state[there]), here
    assert torch.equal(found[f"{resnet}conv1.weight"][:, 0], state["backbone.bottom_up.stem.conv1.weight"][:, 2])
    scores = state["roi_heads.box_predictor.cls_score.bias"]
    assert found["box_head.classes.bias"].tolist() == [scores[-1], *scores[:-1].tolist()]
    x, y, w, h = state["roi_heads.box_predictor.bbox_pred.bias"][:4].tolist()
    assert found["box_head.deltas.bias"][4:8].tolist() == [y, x, h, w]
    x, y, w, h = state["proposal_generator.rpn_head.anchor_deltas.bias"][4:8].tolist()
    assert found["rpn_head.deltas.bias"][4:8].tolist() == [y, x, h, w]


@pytest.mark.slow  # two ResNet-50
def test_torchvisions_v2_gives_the_maps_it_gave(tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=4).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value, low, high in (
                    (module.weight, 0.5, 1.0), (module.running_var, 0.5, 1.5),
                    (module.bias, -0.2, 0.2), (module.running_mean, -0.2, 0.2),
                ):  # fmt: skip
                    value.uniform_(low, high)
    torch.save(theirs.state_dict(), tmp_path / "v2.pth")
    ours = build_model(
        ModelSettings(
            image_channels=3,
            class_names=("class 1", "class 2", "class 3"),
            backbone=BackboneSettings(norm="frozen_batch"),
            roi=RoISettings(aligned=False),
        )
    ).eval()
    report = transfer(ours, tmp_path / "v2.pth")
    assert all(name.startswith(("rpn_head.", "box_head.")) for name in report.new)
    assert {name.partition(".")[0] for name in report.unused} <= {"rpn", "roi_heads"}
    assert not any(name.startswith("roi_heads.mask") for name in report.unused)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for level, expected in zip(ours.pyramid(image), theirs.backbone(image).values(), strict=True):
            torch.testing.assert_close(level, expected, atol=SUMMED_OTHERWISE, rtol=1e-3)
        regions = torch.randn(2, 256, 14, 14)
        expected = theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(regions))[:, 1:]
        assert ours.mask_head is not None
        torch.testing.assert_close(ours.mask_head(regions), expected, atol=SUMMED_OTHERWISE, rtol=1e-3)
    with pytest.raises(ModelFileError, match="v2"):
        from medmaskrcnn.hub.model_file import read_model

        read_model(tmp_path / "v2.pth")


def resenc_state(*, channels: int = 1, prefix: str = "encoder.") -> dict[str, Tensor]:
    """The names of nnssl's ResEnc-L (dynamic_network_architectures), each layer listed twice as there."""
    state: dict[str, Tensor] = {}

    def layer(where: str, outputs: int, inputs: int, size: int, *, bias: bool = True) -> None:
        values = {"conv.weight": torch.randn(outputs, inputs, size, size, size) / (inputs * size**3) ** 0.5}
        values |= {"conv.bias": torch.randn(outputs)} if bias else {}
        values |= {"norm.weight": torch.rand(outputs) + 0.5, "norm.bias": torch.randn(outputs)}
        for name, value in values.items():
            state[f"{where}.{name}"] = value
            number = 0 if name.startswith("conv") else 1
            state[f"{where}.all_modules.{number}.{name.rpartition('.')[2]}"] = value

    layer(f"{prefix}stem.convs.0", CHANNELS[0], channels, 3)
    before = CHANNELS[0]
    for stage, (width, count) in enumerate(zip(CHANNELS, BLOCKS, strict=True)):
        for block in range(count):
            where = f"{prefix}stages.{stage}.blocks.{block}"
            layer(f"{where}.conv1", width, before, 3)
            layer(f"{where}.conv2", width, width, 3)
            if before != width:
                layer(f"{where}.skip.{int(stage > 0)}", width, before, 1, bias=False)
            before = width
    state |= {name.replace(prefix, f"decoder.{prefix}", 1): value for name, value in state.items()}
    return state | {"decoder.seg_layers.0.weight": torch.randn(2, 32, 1, 1, 1)}


@pytest.mark.slow  # 90 million weights
def test_openmind(tmp_path: Path) -> None:
    state = resenc_state()
    saved = {"network_weights": state, "nnssl_adaptation_plan": {"architecture_plans": {"arch_class_name": "ResEncL"}}}
    torch.save(saved, tmp_path / "checkpoint_final.pth")
    settings = ModelSettings(
        spatial_dims=3,
        image_channels=2,
        class_names=("lesion",),
        backbone=BackboneSettings(name="resenc", strides=STRIDES_3D, fpn_channels=8),
        anchors=AnchorSettings(sizes=tuple((n / 2, n, n) for n in (8, 16, 32, 64, 96))),
        roi=RoISettings(box_size=2, mask_size=2, box_hidden=8, mask_channels=8, mask_convs=1),
    )
    ours = build_model(settings)
    report = transfer(ours, tmp_path / "checkpoint_final.pth")
    encoder = {name for name in ours.state_dict() if name.startswith("pyramid.backbone.")}
    assert encoder == set(report.taken)
    assert "sum of 1 input channels over 2" in report.taken["pyramid.backbone.stem.convs.0.conv.weight"]
    assert report.unused == ("decoder.seg_layers.0.weight",)
    origin = dict((here, there) for there, here, _ in report.table())
    assert origin["pyramid.backbone.stages.5.blocks.5.conv2.norm.bias"] == "encoder.stages.5.blocks.5.conv2.norm.bias"
    weight = ours.get_parameter("pyramid.backbone.stages.3.blocks.0.skip.1.conv.weight")
    assert torch.equal(weight, state["encoder.stages.3.blocks.0.skip.1.conv.weight"])
    freeze(ours, ["stem", "stage6"])
    assert not ours.get_parameter("pyramid.backbone.stages.5.blocks.0.conv1.conv.weight").requires_grad


@pytest.mark.parametrize(
    ("strides", "steps"),
    [
        (((4, 4), (8, 8), (16, 16), (32, 32)), [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2)]),
        (((2, 2), (4, 4), (8, 8), (16, 16)), [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2)]),
        (STRIDES_3D, [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]),
        (
            ((2, 4, 4), (4, 8, 8), (8, 16, 16), (8, 32, 32)),
            [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)],
        ),
        (((1, 1), (2, 2), (4, 4), (8, 8)), [(1, 1), (2, 2), (2, 2), (2, 2)]),
    ],
)
def test_stages_of_the_encoder_follow_the_strides(
    strides: tuple[tuple[int, ...], ...], steps: list[tuple[int, ...]]
) -> None:
    assert stage_steps(strides) == steps
    dims = len(strides[0])
    backbone = ResEncBackbone(BackboneSettings(name="resenc", strides=strides), dims, 1)
    image = torch.randn(1, 1, *strides[-1])
    maps = backbone(image)
    assert [m.shape[1] for m in maps] == list(backbone.out_channels)
    for level, stride in zip(maps, strides, strict=True):
        assert tuple(level.shape[2:]) == tuple(n // s for n, s in zip(image.shape[2:], stride, strict=True))


def test_the_table_is_written_as_csv() -> None:
    report = TransferReport(
        "x", {"a": "as it is"}, {"b": "the source has none"}, ("c",), {"a": "their a", "c": "their c"}
    )
    rows = list(csv.reader(report.csv().splitlines()))
    assert rows[1:] == [
        ["their a", "a", "as it is"],
        ["", "b", "new: the source has none"],
        ["their c", "", "not used"],
    ]


def test_pickles_are_not_run(tiny_model: Tiny, tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.zeros(1)}, "hook": print}, tmp_path / "evil.pth")
    with pytest.raises(ModelFileError, match=r"evil\.pth"):
        transfer(build_model(tiny_model()), tmp_path / "evil.pth")
