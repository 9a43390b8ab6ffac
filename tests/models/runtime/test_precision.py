"""In which precision the network runs: the rule, what bf16 leaves exact, and that results agree with fp32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import medmaskrcnn
from medmaskrcnn.models import mask_rcnn
from medmaskrcnn.models.backbone import FrozenBatchNorm, build_backbone
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.runtime import precision
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, DetectionSettings, ModelSettings, RoISettings
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

CPU = torch.device("cpu")
STRIDES = {2: ((4, 4), (8, 8), (16, 16), (32, 32)), 3: ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))}
SHAPE = {2: (64, 96), 3: (16, 64, 64)}

# What docs/fast.md promises: bf16 keeps 8 bits of a number.
MAP_ERROR = 0.03  # of the map's largest value
SCORE = 0.05
LEAST_DICE = 0.95


def tiny(dims: int, *, norm: str = "group") -> MaskRCNN:
    """A network with random weights that always is the same."""
    torch.manual_seed(0)
    settings = ModelSettings(
        spatial_dims=dims,
        class_names=("liver", "kidney"),
        backbone=BackboneSettings(
            name="light", light_channels=(16, 16, 16, 16), strides=STRIDES[dims], fpn_channels=16, norm=norm
        ),
        anchors=AnchorSettings(sizes=tuple((s,) * dims for s in (6, 10, 16, 24, 32))),
        roi=RoISettings(box_size=4, mask_size=4, box_hidden=32, mask_channels=16, mask_convs=1, canonical_size=24.0),
        detection=DetectionSettings(score_thresh=0.0, detections_per_img=9),
    )
    network = build_model(settings).eval()
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm):
            spread(module)
    return network


def spread(norm: FrozenBatchNorm) -> None:
    """Constants that differ from channel to channel, as trained ones do."""
    norm.running_mean.normal_(std=0.1)
    norm.running_var.uniform_(0.5, 2)
    norm.weight.uniform_(0.7, 1.3)
    norm.bias.normal_(std=0.1)


@pytest.mark.parametrize(
    ("asked", "kind", "features", "chosen"),
    [
        ("auto", "cpu", {"avx512_bf16": True}, "bf16"),
        ("auto", "cpu", {"amx_bf16": True}, "bf16"),
        ("auto", "cpu", {"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ("auto", "cpu", {}, "fp32"),
        ("auto", "cuda", {"avx512_bf16": True}, "fp32"),
        ("fp32", "cpu", {"avx512_bf16": True}, "fp32"),
        ("bf16", "cpu", {}, "bf16"),
        ("bf16", "cuda", {}, "bf16"),
    ],
)
def test_rule(monkeypatch: pytest.MonkeyPatch, asked: str, kind: str, features: dict[str, bool], chosen: str) -> None:
    monkeypatch.setattr(precision, "processor_features", lambda: features)
    assert precision.choose_precision(asked, torch.device(kind)) == chosen


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, fp32, bf16, got 'fp16'"):
        precision.choose_precision("fp16", CPU)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_maps_in_bf16_are_those_of_fp32_nearly(dims: int, norm: str) -> None:
    images = torch.randn(2, 1, *SHAPE[dims])
    exact: dict[str, Any] = {}
    rounded: dict[str, Any] = {}
    tiny(dims, norm=norm).detect(images, watch=exact.__setitem__)
    found = tiny(dims, norm=norm).run_in("bf16").detect(images, watch=rounded.__setitem__)
    for fine, coarse in zip(exact["pyramid"], rounded["pyramid"], strict=True):
        assert coarse.dtype == torch.bfloat16 or fine is exact["pyramid"][-1]  # torch pools in 3D in float32
        assert (fine - coarse.float()).abs().max() < MAP_ERROR * fine.abs().max()
    assert rounded["regions"].dtype == torch.bfloat16
    for step in ("rpn", "scores"):  # logits and deltas
        for fine, coarse in zip(exact[step][0], rounded[step][0], strict=False):
            assert coarse.dtype == torch.float32
            if step == "rpn":
                assert (fine - coarse).abs().max() < MAP_ERROR * max(1.0, float(fine.abs().max()))
    for image in found:
        assert image.boxes.dtype == image.scores.dtype == torch.float32
        assert image.mask_probabilities is not None and image.mask_probabilities.dtype == torch.float32


def test_rounded_weights_do_not_come_back() -> None:
    network = tiny(2)
    assert network.run_in("fp32") is network
    network.run_in("bf16").run_in("bf16")
    with pytest.raises(ValueError, match="load the model again"):
        network.run_in("fp32")


@pytest.mark.parametrize("name", ["light", "resnet18", "resnet50"])
def test_folded_normalisation_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    settings = BackboneSettings(name=name, norm="frozen_batch")
    backbone = build_backbone(settings, spatial_dims=2, in_channels=1).eval()
    norms = [m for m in backbone.modules() if isinstance(m, FrozenBatchNorm)]
    for norm in norms:
        spread(norm)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = backbone(image)
        backbone.fold_norms()
        after = backbone(image)
    assert len(norms) >= 5 and not any(isinstance(m, FrozenBatchNorm) for m in backbone.modules())
    for a, b in zip(before, after, strict=True):
        assert (a - b).abs().max() < 1e-4 * a.abs().max()


def test_fewer_proposals_are_the_best_of_them() -> None:
    network, images = tiny(2), torch.randn(2, 1, 64, 96)
    every: dict[str, Any] = {}
    few: dict[str, Any] = {}
    network.detect(images, watch=every.__setitem__)
    network.detect(images, post_nms_top_n=7, watch=few.__setitem__)
    for all_boxes, best in zip(every["proposals"], few["proposals"], strict=True):
        assert len(all_boxes) > 7 and torch.equal(best, all_boxes[:7])


@pytest.mark.parametrize("dims", [2, 3])
def test_masks_do_not_depend_on_how_many_run_together(monkeypatch: pytest.MonkeyPatch, dims: int) -> None:
    network, images = tiny(dims), torch.randn(3, 1, *SHAPE[dims])
    together = network.detect(images)
    monkeypatch.setattr(mask_rcnn, "_MASK_NUMBERS_PER_PASS", 4 * 16 * 8**dims)  # passes of four straddle the images
    for one, other in zip(together, network.detect(images), strict=True):
        assert len(one.boxes) == 9
        torch.testing.assert_close(one.mask_probabilities, other.mask_probabilities, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def phantom() -> Volume:
    """The middle of a body in the voxels of phantom-ct: one tile."""
    return make_phantom(PhantomSettings(seed=5, shape=(64, 96, 96), spacing_mm=(2.0, 1.5, 1.5), tumours=2)).volume


def dice(a: Instances, i: int, b: Instances, j: int) -> float:
    """Of two objects' masks."""
    return 2 * a.masks[i].overlap(b.masks[j]) / (a.masks[i].n_voxels + b.masks[j].n_voxels)


def check_agreement(exact: CaseResult, other: CaseResult) -> None:
    """Every object that is not on the edge of the threshold is in both, with like score and mask."""
    pairs = 0
    for one, two in ((exact, other), (other, exact)):
        for i in range(len(one.candidates)):
            if one.candidates.scores[i] < one.score_threshold + SCORE or one.candidates.masks[i].is_empty:
                continue
            same = [j for j in range(len(two.candidates)) if two.candidates.labels[j] == one.candidates.labels[i]]
            best = max(same, key=lambda j: dice(one.candidates, i, two.candidates, j))
            assert dice(one.candidates, i, two.candidates, best) >= LEAST_DICE
            assert abs(float(one.candidates.scores[i] - two.candidates.scores[best])) < SCORE
            pairs += 1
    assert pairs >= 6


@pytest.mark.slow
def test_shipped_model_agrees_with_fp32(phantom: Volume) -> None:
    results = {
        p: medmaskrcnn.segment(phantom, "phantom-ct", device="cpu", precision=p, allow_out_of_domain=True)
        for p in ("fp32", "bf16")
    }
    for asked, result in results.items():
        assert result.record.precision == result.run["precision"] == asked
    check_agreement(results["fp32"], results["bf16"])


def test_budget_of_the_settings_reaches_the_network(phantom: Volume) -> None:
    loaded = medmaskrcnn.load_model("phantom-ct", device="cpu")
    inference = loaded.settings.inference.model_copy(update={"post_nms_top_n_test": 40})
    few = replace(loaded, settings=loaded.settings.model_copy(update={"inference": inference}))
    seen: list[int] = []

    def watch(step: str, made: Any) -> None:
        if step == "proposals":
            seen.extend(len(boxes) for boxes in made)

    result = medmaskrcnn.segment(phantom, replace(few, watch=watch), allow_out_of_domain=True)
    assert seen == [40]
    assert result.record.settings["inference"]["post_nms_top_n_test"] == 40
