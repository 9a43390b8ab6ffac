"""Our 2D network with torchvision's weights finds what torchvision finds: an oracle for the whole walk.

The weights are random, but made to behave like trained ones: constants of every normalisation differ from channel to
channel, and the last layers are scaled until scores, deltas and masks spread. Without that a wrong conversion of, say,
the running means would pass unseen, and scores would tie.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.hub.torchvision_model import convert_torchvision, read_state_dict, torchvision_settings
from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.images import pad_to_multiple
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn_kernels import mask_windows, paste_masks

CLASSES = ("a", "b", "c", "d")
THRESHOLD = 0.6
DETECTIONS = 40
"""At most; torchvision and we keep 100 by default, and each costs a pass of the mask head."""
SETTINGS = torchvision_settings(CLASSES, norm_eps=1e-5, score_thresh=THRESHOLD)
SETTINGS = SETTINGS.model_copy(
    update={
        "model": SETTINGS.model.model_copy(
            update={"detection": SETTINGS.model.detection.model_copy(update={"detections_per_img": DETECTIONS})}
        )
    }
)
SIZES = ((75, 333), (1500, 260), (500, 480))
"""Rows and columns. Resized to 800 / 1333 the first is enlarged and the second shrunk to 1333, and both are narrow and
cheap; the last has 800 columns. P5 has odd and even sizes."""

# The contract's tolerances. The two networks add the same numbers in different orders; nothing else differs.
BOX_PX = 1e-3
SCORE = 1e-5
PROBABILITY = 1e-4
LEAST_FOUND = 20
# torchvision's paste truncates a box to whole pixels and counts its last one: small masks come out a row or so larger.
# Shifted by one pixel more, the worst of those below would be 0.86 and the mean 0.92.
LEAST_DICE, LEAST_MEAN_DICE = 0.95, 0.97


def random_image(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """``(3, H, W)`` uint8: coloured blobs, so that regions differ from one another, under noise."""
    coarse = torch.rand((1, 3, 2 + shape[0] // 40, 2 + shape[1] // 40), generator=generator)
    smooth = nn.functional.interpolate(coarse, shape, mode="bilinear")[0]
    noise = torch.rand((3, *shape), generator=generator)
    return ((0.8 * smooth + 0.2 * noise) * 255).to(torch.uint8)


@torch.no_grad()
def oracle_network(seed: int) -> nn.Module:
    """torchvision's network with random weights that behave."""
    torch.manual_seed(seed)
    network = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=len(CLASSES) + 1,
        box_score_thresh=THRESHOLD,
        box_detections_per_img=DETECTIONS,
    )
    network.eval()
    for name, value in network.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
        elif name.endswith("weight"):
            value.uniform_(0.1, 0.4) if "bn3" in name else value.uniform_(0.7, 1.3)
    heads = network.roi_heads
    # Spreads need not be exact, and few proposals in a small image are soon through.
    full_size, all_proposals = network.transform.min_size, network.rpn._post_nms_top_n
    network.transform.min_size, network.rpn._post_nms_top_n = (200,), {"training": 100, "testing": 100}
    heads.score_thresh = 0.0
    spread(network, network.rpn.head.cls_logits, 2.0)
    spread(network, network.rpn.head.bbox_pred, 0.1)
    spread(network, heads.box_predictor.cls_score, 1.5)
    spread(network, heads.box_predictor.bbox_pred, 0.3)
    spread(network, heads.mask_predictor.mask_fcn_logits, 2.0)
    network.transform.min_size, network.rpn._post_nms_top_n = full_size, all_proposals
    heads.score_thresh = THRESHOLD
    return network


def spread(network: nn.Module, layer: nn.Module, deviation: float) -> None:
    """Scale a layer until its outputs have this standard deviation over places, and mean 0 per channel."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    network([random_image((90, 500), torch.Generator().manual_seed(99)).float() / 255])
    hook.remove()
    rows = torch.cat([o.movedim(1, -1).reshape(-1, o.shape[1]) for o in outputs])
    factor = deviation / rows.std(dim=0)
    layer.weight.mul_(factor.view(-1, *(1,) * (layer.weight.ndim - 1)))
    layer.bias.copy_(factor * (layer.bias - rows.mean(dim=0)))


@torch.no_grad()
def detect_with_oracle(network: nn.Module, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """torchvision's detections in ``(3, H, W)`` uint8, and their probabilities ``(N, 1, 28, 28)`` before the paste."""
    seen: list[Tensor] = []
    hook = network.roi_heads.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0][0]["masks"]))
    (found,) = network([image.float() / 255])
    hook.remove()
    return found, seen[0]


def detect(network: MaskRCNN, image: Tensor) -> tuple[Detections, Tensor]:
    """Our walk over ``(3, H, W)`` uint8: detections, and their boxes in pixels of the image."""
    volume = Volume(image[:, None].numpy(), pixel_grid((1, *image.shape[1:])), channel_kind="colour")
    prepared = prepare(volume, SETTINGS.preprocess)
    shape = tuple(prepared.tensor.shape[2:])
    padded = pad_to_multiple(prepared.tensor.movedim(1, 0), SETTINGS.preprocess.pad_multiple)
    (found,) = network.detect(padded, [shape])
    return found, found.boxes * torch.tensor([*prepared.scale[1:], *prepared.scale[1:]], dtype=torch.float32)


def assert_same(found: Detections, boxes: Tensor, oracle: dict[str, Tensor], probabilities: Tensor) -> None:
    """Each of torchvision's detections is one of ours, and the other way round (near ties may change places)."""
    assert len(boxes) == len(oracle["boxes"]) >= LEAST_FOUND
    assert oracle["scores"].unique().numel() > LEAST_FOUND, "the oracle's scores tie: this would show nothing"
    assert (found.scores.diff() <= 0).all()
    distance = torch.cdist(boxes[:, [1, 0, 3, 2]], oracle["boxes"], p=float("inf"))
    distance[found.labels[:, None] + 1 != oracle["labels"]] = float("inf")
    twin = distance.argmin(dim=1)
    assert twin.unique().numel() == len(twin)
    assert float(distance.amin(dim=1).max()) < BOX_PX
    assert float((found.scores - oracle["scores"][twin]).abs().max()) < SCORE
    assert found.mask_probabilities is not None
    assert found.mask_probabilities.shape[1:] == (28, 28)
    assert float((found.mask_probabilities - probabilities[twin, 0]).abs().max()) < PROBABILITY


def check(network: nn.Module, ours: MaskRCNN, shape: tuple[int, int], seed: int) -> None:
    image = random_image(shape, torch.Generator().manual_seed(seed))
    oracle, probabilities = detect_with_oracle(network, image)
    found, boxes = detect(ours, image)
    assert_same(found, boxes, oracle, probabilities)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_same_detections(seed: int) -> None:
    """The first weights with two sizes, others with the third."""
    network = oracle_network(seed)
    ours = convert_torchvision(network.state_dict(), SETTINGS)
    for number in (0, 1) if seed == 0 else (2,):
        check(network, ours, SIZES[number], seed=number)


def test_pasted_masks_are_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand((12, 2), generator=generator) * 60
    boxes = torch.cat([low, low + 15 + torch.rand((12, 2), generator=generator) * 60], dim=1)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    probabilities = torch.stack([torch.sigmoid(9 * (0.6 - rows**2 - (1 + i / 12) * columns**2)) for i in range(12)])
    shape = (110, 120)
    oracle = paste_masks_in_image(probabilities[:, None], boxes[:, [1, 0, 3, 2]], shape)[:, 0] >= 0.5
    windows, scores = mask_windows(boxes, shape), []
    for mask, window, theirs in zip(paste_masks(probabilities, boxes, windows), windows.tolist(), oracle, strict=True):
        ours = torch.zeros(shape, dtype=torch.bool)
        ours[window[0] : window[2], window[1] : window[3]] = mask >= 0.5
        scores.append(float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())))
    assert min(scores) > LEAST_DICE
    assert sum(scores) / len(scores) > LEAST_MEAN_DICE


def test_state_dicts_of_other_networks_are_refused() -> None:
    state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1).state_dict()
    without = {name: value for name, value in state.items() if name != "roi_heads.box_head.fc7.bias"}
    with pytest.raises(ModelFileError, match=r"not a state dict of maskrcnn_resnet50_fpn.*box_head\.fc2\.bias"):
        convert_torchvision(without, SETTINGS)
    with pytest.raises(ModelFileError, match=r"not a state dict of maskrcnn_resnet50_fpn.*backbone\.extra"):
        convert_torchvision({**state, "backbone.extra": torch.zeros(3)}, SETTINGS)
    with pytest.raises(ModelFileError, match="not a state dict of maskrcnn_resnet50_fpn"):
        convert_torchvision({**state, "rpn.head.bbox_pred.bias": torch.zeros(7)}, SETTINGS)
    with pytest.raises(ModelFileError, match=r"box_head\.classes\.weight"):
        convert_torchvision(state, torchvision_settings(("one",), norm_eps=0.0))


def test_reading_state_dicts(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "good.pth")
    torch.save({"a": 3}, tmp_path / "number.pth")
    torch.save({"a": Path("x")}, tmp_path / "object.pth")
    (tmp_path / "text.pth").write_text("no weights at all")
    assert torch.equal(read_state_dict(tmp_path / "good.pth")["a"], torch.arange(3.0))
    for name in ("number.pth", "object.pth", "text.pth", "absent.pth"):
        with pytest.raises(ModelFileError, match=name):
            read_state_dict(tmp_path / name)
