"""Weights of others: what fits is taken as it should be, the rest is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import maskrcnn_resnet50_fpn

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.hub.model_file import read_model, read_model_settings, resolve_model, save_model
from medmaskrcnn.hub.torchvision_model import convert_torchvision, torchvision_settings
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, ModelSettings, RPNSettings
from medmaskrcnn.training.transfer.apply import FREEZABLE, freeze, transfer
from medmaskrcnn.training.transfer.fit import inflate, spread_channels

Tiny = Callable[..., ModelSettings]
RESNET = "pyramid.backbone.resnet."
PER_CLASS = RPNSettings(objectness="per_class")
SUMMED_OTHERWISE = 1e-4  # the same numbers added in another order
STRIDES_3D = ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))


def with_backbone(name: str, norm: str = "group", *, dims: int = 2) -> BackboneSettings:
    strides = STRIDES_3D if dims == 3 else BackboneSettings().strides
    return BackboneSettings(name=name, norm=norm, strides=strides, fpn_channels=8)


def randomise(network: nn.Module) -> nn.Module:
    """Normalisations whose constants differ from channel to channel."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bn1.bias")):
                value.normal_(std=0.2)
    return network.eval()


def test_imagenet_weights_give_the_maps_they_gave(tiny_model: Tiny, tmp_path: Path) -> None:
    theirs = randomise(resnet18())
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = build_model(tiny_model(image_channels=3, backbone=with_backbone("resnet18", "frozen_batch"))).eval()
    report = transfer(ours, tmp_path / "resnet18.pth")
    assert set(report.unused) == {RESNET + "fc.weight", RESNET + "fc.bias"}
    assert all(name.startswith(RESNET) for name in report.taken)
    assert not [name for name in report.new if name.startswith(RESNET)]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for ours_map, stage in zip(ours.pyramid.backbone(image), ("layer1", "layer2", "layer3", "layer4"), strict=True):
            x = getattr(theirs, stage)(x)
            torch.testing.assert_close(ours_map, x, atol=SUMMED_OTHERWISE, rtol=SUMMED_OTHERWISE)


def test_into_group_norm_go_scale_and_shift_alone(tiny_model: Tiny, tmp_path: Path) -> None:
    theirs = randomise(resnet18())
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = build_model(tiny_model(image_channels=3, backbone=with_backbone("resnet18")))
    report = transfer(ours, tmp_path / "resnet18.pth")
    assert torch.equal(ours.get_parameter(RESNET + "bn1.weight"), theirs.bn1.weight)
    assert RESNET + "bn1.running_mean" in report.unused


@pytest.mark.parametrize(("channels", "context"), [(1, 0), (2, 0), (1, 2)])
def test_a_grey_image_sees_through_a_stem_of_other_channels(
    tiny_model: Tiny, tmp_path: Path, channels: int, context: int
) -> None:
    theirs = resnet18()
    torch.save(theirs.state_dict(), tmp_path / "r.pth")
    settings = tiny_model(image_channels=channels, context_slices=context, backbone=with_backbone("resnet18"))
    ours = build_model(settings)
    report = transfer(ours, tmp_path / "r.pth")
    assert report.taken[RESNET + "conv1.weight"] == f"sum of 3 input channels over {settings.input_channels}"
    grey = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(
        ours.pyramid.backbone.resnet.conv1(grey.repeat(1, settings.input_channels, 1, 1)),
        theirs.conv1(grey.repeat(1, 3, 1, 1)),
        atol=SUMMED_OTHERWISE,
        rtol=SUMMED_OTHERWISE,
    )


def test_kernels_by_hand() -> None:
    kernel = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
    assert spread_channels(kernel, 1).tolist() == [[[[6.0, 8.0], [10.0, 12.0]]]]
    assert spread_channels(kernel, 4)[0, 3].tolist() == [[1.5, 2.0], [2.5, 3.0]]
    assert inflate(kernel, 3, "centre")[0, 1].tolist() == [[[0, 0], [0, 0]], [[5, 6], [7, 8]], [[0, 0], [0, 0]]]
    assert inflate(kernel, 2, "mean")[0, 0].tolist() == [[[0.5, 1], [1.5, 2]]] * 2


def pair_2d_3d(tiny_model: Tiny) -> tuple[MaskRCNN, MaskRCNN]:
    """A 2D network and one that is alike in 3D."""
    flat = build_model(tiny_model(2, backbone=with_backbone("resnet10")))
    with torch.no_grad():
        for weight in flat.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    return flat.eval(), build_model(tiny_model(3, backbone=with_backbone("resnet10", dims=3))).eval()


@torch.no_grad()
def test_inflated_at_the_centre_slices_that_are_alike_give_the_flat_maps(tiny_model: Tiny) -> None:
    flat, deep = pair_2d_3d(tiny_model)
    report = transfer(deep, flat, inflation="centre")
    assert report.taken[RESNET + "layer1.0.conv1.weight"] == "inflated (centre)"
    assert not report.new
    image = torch.randn(1, 1, 64, 64)
    volume = image[:, :, None].expand(-1, -1, 16, -1, -1)
    maps, levels = flat.pyramid.backbone(image), flat.pyramid(image)
    for ours, wanted in zip([*deep.pyramid.backbone(volume), *deep.pyramid(volume)], [*maps, *levels], strict=True):
        expected = wanted[:, :, None].expand_as(ours)
        torch.testing.assert_close(ours, expected, atol=SUMMED_OTHERWISE, rtol=SUMMED_OTHERWISE)
    assert float(levels[0].std()) > 0.01


@torch.no_grad()
def test_inflated_heads_give_the_flat_heads_answers(tiny_model: Tiny) -> None:
    flat, deep = pair_2d_3d(tiny_model)
    for how in ("centre", "mean"):
        transfer(deep, flat, inflation=how)
        bins = flat.settings.roi.box_size
        region = torch.randn(5, 8, bins, bins)
        (logits, deltas), (deep_logits, deep_deltas) = (
            flat.box_head(region),
            deep.box_head(region[:, :, None].expand(-1, -1, bins, -1, -1)),
        )
        torch.testing.assert_close(deep_logits, logits, atol=SUMMED_OTHERWISE, rtol=SUMMED_OTHERWISE)
        torch.testing.assert_close(deep_deltas[..., [1, 2, 4, 5]], deltas, atol=SUMMED_OTHERWISE, rtol=0)
    transfer(deep, flat, inflation="centre")
    side = flat.settings.roi.mask_size
    region = torch.randn(3, 8, side, side)
    masks = deep.mask_head(region[:, :, None].expand(-1, -1, side, -1, -1))
    expected = flat.mask_head(region)[:, :, None].expand_as(masks)
    torch.testing.assert_close(masks, expected, atol=SUMMED_OTHERWISE, rtol=SUMMED_OTHERWISE)
    level = torch.randn(1, 8, 6, 6)
    (objectness,), (offsets,) = flat.rpn_head([level])
    (deep_objectness,), (deep_offsets,) = deep.rpn_head([level[:, :, None].expand(-1, -1, 4, -1, -1)])
    torch.testing.assert_close(deep_objectness.view(4, -1)[1], objectness[0], atol=SUMMED_OTHERWISE, rtol=0)
    inner = deep_offsets.view(4, -1, 6)[1][:, [1, 2, 4, 5]]
    torch.testing.assert_close(inner, offsets[0], atol=SUMMED_OTHERWISE, rtol=0)


@torch.no_grad()
def test_inflated_by_the_mean_the_middle_slices_are_the_flat_maps(tiny_model: Tiny) -> None:
    flat, deep = pair_2d_3d(tiny_model)
    transfer(deep, flat, inflation="mean")
    image = torch.randn(1, 1, 32, 32)
    volume = image[:, :, None].expand(-1, -1, 32, -1, -1)
    stem = deep.pyramid.backbone.resnet.conv1(volume)
    expected = flat.pyramid.backbone.resnet.conv1(image)
    torch.testing.assert_close(stem[:, :, 16], expected, atol=SUMMED_OTHERWISE, rtol=SUMMED_OTHERWISE)
    assert not torch.allclose(stem[:, :, 0], expected, atol=1e-2), "padding lies within reach of the first slice"


def medicalnet_file(path: Path, *, shortcut: bool) -> dict[str, Tensor]:
    """A file as MedicalNet's are: a checkpoint whose names begin with ``module.``, with its own segmentation head."""
    donor = build_model(
        ModelSettings(
            spatial_dims=3, class_names=("x",), backbone=with_backbone("resnet10", "frozen_batch", dims=3),
            anchors=AnchorSettings(sizes=((8, 8, 8),) * 5),
        )
    )  # fmt: skip
    state = {
        "module." + name.removeprefix(RESNET): torch.rand_like(value)
        for name, value in donor.state_dict().items()
        if name.startswith(RESNET) and (shortcut or "downsample" not in name)
    }
    torch.save({"epoch": 3, "state_dict": {**state, "module.conv_seg.0.weight": torch.zeros(2)}}, path)
    return state


@pytest.mark.parametrize("shortcut", [True, False])
def test_medicalnet(tiny_model: Tiny, tmp_path: Path, shortcut: bool) -> None:
    state = medicalnet_file(tmp_path / "resnet_10_23dataset.pth", shortcut=shortcut)
    ours = build_model(tiny_model(3, backbone=with_backbone("resnet10", "frozen_batch", dims=3)))
    report = transfer(ours, tmp_path / "resnet_10_23dataset.pth")
    for name, value in state.items():
        assert torch.equal(ours.state_dict()[RESNET + name.removeprefix("module.")], value)
    new = [name for name in report.new if name.startswith(RESNET)]
    assert bool(new) is not shortcut and all("downsample" in name for name in new)
    flat = build_model(tiny_model(2, backbone=with_backbone("resnet10")))
    with pytest.raises(ModelFileError, match=r"nothing of .* fits this model: the source is 3D"):
        transfer(flat, tmp_path / "resnet_10_23dataset.pth")


def test_a_stage_of_other_blocks_is_not_taken(tiny_model: Tiny, tmp_path: Path) -> None:
    torch.save(resnet50().state_dict(), tmp_path / "resnet50.pth")
    ours = build_model(tiny_model(image_channels=3, backbone=with_backbone("resnet18")))
    before = ours.get_parameter(RESNET + "layer1.0.conv2.weight").clone()  # of the same shape in both
    report = transfer(ours, tmp_path / "resnet50.pth")
    assert torch.equal(ours.get_parameter(RESNET + "layer1.0.conv2.weight"), before)
    assert {name.split(".")[3] for name in report.taken} == {"conv1", "bn1"}
    assert "stage1: 0 of 12 weights taken; 12 new: the source's stage has other blocks" in report.lines()


@pytest.mark.parametrize(("shallow", "deep"), [("light", "resnet34"), ("resnet50", "resnet101")])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_deeper_network_begins_as_the_shallower_one(tiny_model: Tiny, shallow: str, deep: str, dims: int) -> None:
    widths = {"channels": (8, 8, 8, 8), "light_channels": (8, 8, 8, 8)}
    settings = [with_backbone(name, dims=dims).model_copy(update=widths) for name in (shallow, deep)]
    source, ours = (build_model(tiny_model(dims, backbone=backbone)) for backbone in settings)
    randomise(source)
    report = transfer(ours, source)
    image = torch.randn(1, 1, *(16, 64, 64)[-dims:])
    with torch.no_grad():
        for ours_map, source_map in zip(ours.pyramid.backbone(image), source.pyramid.backbone(image), strict=True):
            torch.testing.assert_close(ours_map, source_map, atol=SUMMED_OTHERWISE, rtol=SUMMED_OTHERWISE)
    assert any("further blocks begin as the identity" in line for line in report.lines())
    loss = torch.stack([m.square().mean() for m in ours.pyramid.backbone(image)]).sum()
    loss.backward()
    last = "bn2" if shallow == "light" else "bn3"
    assert ours.get_parameter(f"{RESNET}layer3.5.{last}.weight").grad.abs().max() > 0, "the new blocks must learn"


def test_frozen_norms_cannot_grow(tiny_model: Tiny) -> None:
    source, ours = (
        build_model(tiny_model(backbone=with_backbone(name, "frozen_batch"))) for name in ("resnet18", "resnet34")
    )
    report = transfer(ours, source)
    assert report.new[RESNET + "layer1.0.conv1.weight"] == "the source's stage has other blocks"


def test_classes_are_taken_by_name(tiny_model: Tiny, tmp_path: Path) -> None:
    source = build_model(tiny_model(2, class_names=("liver", "kidney", "spleen")))
    ours = build_model(tiny_model(2, class_names=("tumour", "spleen", "liver")))
    fresh = {name: value.clone() for name, value in ours.state_dict().items()}
    report = transfer(ours, source)
    assert report.taken["box_head.classes.weight"] == "rows of spleen, liver"
    state, theirs = ours.state_dict(), source.state_dict()
    for name, own, other in (
        ("box_head.classes.weight", (0, 2, 3), (0, 3, 1)),
        ("mask_head.logits.bias", (1, 2), (2, 0)),
    ):
        assert torch.equal(state[name][list(own)], theirs[name][list(other)])
    assert torch.equal(state["box_head.classes.weight"][1], fresh["box_head.classes.weight"][1])
    assert torch.equal(state["box_head.deltas.weight"][8:12], theirs["box_head.deltas.weight"][12:16])
    assert torch.equal(state["box_head.deltas.weight"][4:8], fresh["box_head.deltas.weight"][4:8])
    assert torch.equal(state["mask_head.logits.weight"][0], fresh["mask_head.logits.weight"][0])

    spelt = build_model(tiny_model(2, class_names=("Spleen", "Kidneys", "LIVER")))
    report = transfer(spelt, source)
    assert report.taken["box_head.classes.weight"] == "rows of Spleen (there spleen), LIVER (there liver)"
    rows = spelt.state_dict()["box_head.classes.weight"]
    assert torch.equal(rows[[0, 1, 3]], theirs["box_head.classes.weight"][[0, 3, 1]])

    strangers = build_model(tiny_model(2, class_names=("car", "bus", "cat")))
    report = transfer(strangers, source)
    assert report.new["box_head.classes.weight"] == report.new["mask_head.logits.bias"] == "no class in common"
    assert "box_head.fc1.weight" in report.taken


def test_the_same_model_is_taken_whole(tiny_file: Callable[..., object], tmp_path: Path) -> None:
    settings = tiny_file(3)
    first = build_model(settings.model)
    save_model(first, settings, tmp_path / "first.safetensors")
    second = build_model(settings.model)
    report = transfer(second, tmp_path / "first.safetensors")
    assert set(report.taken.values()) == {"as it is"} and not report.new and not report.unused
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name].half().float())


def test_other_anchors_and_heads_are_new(tiny_model: Tiny) -> None:
    source = build_model(tiny_model(2))
    ours = build_model(tiny_model(2, anchors=AnchorSettings(ratios=(1.0,)), with_masks=False))
    report = transfer(ours, source)
    assert {name for name in report.new} == {
        f"rpn_head.{a}.{b}" for a in ("objectness", "deltas") for b in ("weight", "bias")
    }
    assert "shape (1, 8, 1, 1) here, (3, 8, 1, 1) in the source" in report.new["rpn_head.objectness.weight"]
    assert "mask_head.logits.weight" in report.unused


def test_one_objectness_becomes_that_of_every_class(tiny_model: Tiny) -> None:
    source = build_model(tiny_model(2))
    ours = build_model(tiny_model(2, class_names=("spleen", "kidney", "liver"), rpn=PER_CLASS))
    report = transfer(ours, source)
    assert report.taken["rpn_head.objectness.weight"] == "one logit for all classes"
    level = torch.randn((1, 8, 5, 5))
    for theirs, same in zip(source.rpn_head([level]), ours.rpn_head([level]), strict=True):
        torch.testing.assert_close(same[0], theirs[0])


def test_objectness_of_each_class_goes_by_name(tiny_model: Tiny) -> None:
    source = build_model(tiny_model(2, rpn=PER_CLASS))  # liver, kidney
    ours = build_model(tiny_model(2, class_names=("spleen", "kidney", "liver"), rpn=PER_CLASS))
    before = ours.rpn_head.objectness.weight.detach().clone()
    report = transfer(ours, source)
    assert report.taken["rpn_head.objectness.weight"] == "rows of kidney, liver"
    here, there = (n.rpn_head.objectness.weight.unflatten(0, (3, -1)) for n in (ours, source))  # anchors, classes
    assert torch.equal(here[:, 1], there[:, 1]) and torch.equal(here[:, 2], there[:, 0])
    assert torch.equal(here[:, 0], before.unflatten(0, (3, -1))[:, 0])


@pytest.mark.parametrize("part", [part for part in FREEZABLE if part not in ("stage5", "stage6")])
def test_freezing_a_part(tiny_model: Tiny, part: str) -> None:
    network = build_model(tiny_model(2))
    freeze(network, [part])
    still = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    prefixes = {"stem": (RESNET + "conv1", RESNET + "bn1"), "fpn": ("pyramid.fpn.",), "rpn": ("rpn_head.",)}
    wanted = prefixes.get(part, (f"{RESNET}layer{part[-1]}.",))
    assert still == {name for name, _ in network.named_parameters() if name.startswith(wanted)} != set()


def test_what_cannot_be_frozen(tiny_model: Tiny) -> None:
    with pytest.raises(ValueError, match="cannot freeze stage5; of this model can be frozen: stem, stage1"):
        freeze(build_model(tiny_model(2)), ["stem", "stage5"])


def test_sources_of_no_use(tiny_model: Tiny, tmp_path: Path) -> None:
    network = build_model(tiny_model(2))
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"other\.pth holds no network .* such as a\.weight"):
        transfer(network, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match="unknown model"):
        transfer(network, "no-such-model")


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    return randomise(network).state_dict()


def saved_with_hash(state: dict[str, Tensor], folder: Path, name: str) -> Path:
    torch.save(state, folder / "plain.pth")
    digest = hashlib.sha256((folder / "plain.pth").read_bytes()).hexdigest()
    return (folder / "plain.pth").rename(folder / f"{name}-{digest[:8]}.pth")


def test_coco_weights_are_a_model_as_they_are(torchvision_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved_with_hash(torchvision_state, tmp_path, "maskrcnn_resnet50_fpn_coco")
    assert resolve_model(f"torchvision:{path}") == resolve_model(f"torchvision:maskrcnn_resnet50_fpn:{path}") == path
    network, settings = read_model(path)
    assert settings == read_model_settings(path)
    names = settings.model.class_names
    assert len(names) == 90 and (names[0], names[16], names[89]) == ("person", "cat", "toothbrush")
    assert sum(name.startswith("unused") for name in names) == 10
    expected = convert_torchvision(torchvision_state, torchvision_settings(names, norm_eps=1e-5))
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in network.state_dict().items())

    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFileError, match="is damaged: by its name its SHA-256 begins with"):
        read_model(path)


def test_coco_weights_into_a_medical_model(torchvision_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(torchvision_state, tmp_path / "coco.pth")
    settings = ModelSettings(
        spatial_dims=3, class_names=("cat", "nodule"), anchors=AnchorSettings(sizes=((8, 8, 8),) * 5),
        backbone=BackboneSettings(name="resnet50", strides=STRIDES_3D),
    )  # fmt: skip
    ours = build_model(settings)
    report = transfer(ours, f"torchvision:{tmp_path / 'coco.pth'}")
    assert set(report.new) == set()
    assert report.taken["box_head.deltas.weight"] == "rows of cat (deltas within the plane)"
    weight = torchvision_state["roi_heads.mask_predictor.mask_fcn_logits.weight"]
    assert torch.equal(ours.mask_head.logits.weight[0, ..., 0, 0, 0], weight[17, :, 0, 0])
    assert torch.equal(
        ours.mask_head.upsample.weight[:, :, 1], torchvision_state["roi_heads.mask_predictor.conv5_mask.weight"]
    )


def test_torchvisions_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    file = "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"
    with pytest.raises(ModelFileError, match=rf"{file} is not in {folder}: get it from https://download\.pytorch\.org"):
        resolve_model("torchvision:maskrcnn_resnet50_fpn")
    folder.mkdir(parents=True)
    (folder / file).write_bytes(b"something else")
    assert resolve_model("torchvision:maskrcnn_resnet50_fpn") == folder / file
    with pytest.raises(ModelFileError, match="begins with bf2d0c1e, got "):
        read_model_settings(folder / file)
    with pytest.raises(ModelFileError, match="'vgg' cannot be used: the names are: maskrcnn_resnet50_fpn, "):
        resolve_model("torchvision:vgg")
    with pytest.raises(ModelFileError, match="no such file"):
        resolve_model("torchvision:resnet50:absent.pth")


def test_fetching_only_when_asked_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked: list[tuple[str, str, str]] = []

    def fetch(url: str, to: str, digest: str, *, progress: bool) -> None:
        asked.append((url, to, digest))
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    with pytest.raises(ModelFileError):
        resolve_model("torchvision:resnet50")
    assert not asked
    with pytest.raises(ModelFileError, match=r"cannot fetch https://.*resnet50-0676ba61\.pth: no network"):
        resolve_model("torchvision:resnet50:download")
    ((url, to, digest),) = asked
    assert url.endswith(Path(to).name) and Path(to).parent == tmp_path / "hub" / "checkpoints" and digest == "0676ba61"
