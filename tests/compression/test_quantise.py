"""8 bits: what ranges are taken from, what stays as it is, and where the form lies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny, tiny_settings

from medmaskrcnn.compression import quantise as quantising
from medmaskrcnn.compression.quantise import copy_eight_bits, quantise, quantise_network
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.inference_backend import compile_parts, quantised_forms
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.runtime.openvino_engine import imported_openvino
from medmaskrcnn.settings import ModelSettings

pytestmark = pytest.mark.needs(extra="openvino")

SIZES = {2: (64, 64), 3: (8, 32, 64)}
ROI = {"box_size": 4, "mask_size": 4}
ALIKE = 0.9
"""Cosine between what a quantised head makes and its own; random heads are near 0."""


def network_of(settings: ModelSettings) -> MaskRCNN:
    torch.manual_seed(0)
    return build_model(settings).eval()


@pytest.mark.parametrize(("certain", "mask_samples"), [(0.0, 3), (0.9, 10)])
def test_heads_are_shown_the_regions_that_the_network_makes(
    certain: float, mask_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is found, the best proposals stand in for objects."""
    network = network_of(tiny_settings(roi=ROI, detection={"score_thresh": certain, "detections_per_img": 3}).model)
    images = [torch.randn(1, 1, *SIZES[2]) for _ in range(2)]
    made: dict[str, torch.Tensor] = {}
    network.detect(images[0], watch=made.__setitem__)
    assert len(made["found"][0].boxes) == (3 if not certain else 0)
    samples = quantising._inputs_of_parts(network, images)
    assert samples["dense"] == images and [len(s) for s in samples["mask_head"]] == [mask_samples] * 2
    assert torch.equal(samples["box_head"][0], made["regions"])
    monkeypatch.setattr(quantising, "_NUMBERS", 5 * 8 * 4 * 4)
    some = quantising._inputs_of_parts(network, images[:1])["box_head"][0]
    assert len(some) == 5 and all((row == made["regions"]).flatten(1).all(dim=1).any() for row in some)
    assert not network.box_head._forward_pre_hooks and not network.mask_head._forward_pre_hooks


@pytest.mark.parametrize(("dims", "pyramid", "with_masks"), [(3, "fpn", True), (2, "c4", True), (2, "fpn", False)])
def test_every_kind_of_network(dims: int, pyramid: str, with_masks: bool, tmp_path: Path) -> None:
    sizes = (16,) if pyramid == "c4" else (8, 16, 32, 64, 128)
    changes = {"with_masks": with_masks}
    settings = tiny_settings(dims, sizes=sizes, roi=ROI, backbone={"pyramid": pyramid}, model=changes).model
    network = network_of(settings)
    images = torch.randn(1, 1, *SIZES[dims])
    folder = quantise_network(network, [images, torch.randn_like(images)], tmp_path / "form")
    forms = quantised_forms(folder, network.parts())
    assert {f.name for f in folder.iterdir()} == {f"{part}{s}" for part in forms for s in (".xml", ".bin")}
    for part in ("box_head", "mask_head") if with_masks else ("box_head",):
        model = imported_openvino().Core().read_model(forms[part])
        last = [node for node in model.get_ordered_ops() if node.get_friendly_name() in quantising._last_layers(model)]
        assert {n.input_value(0).get_node().get_type_name() for n in last}.isdisjoint({"FakeQuantize"})
    regions: dict[str, torch.Tensor] = {}
    network.detect(images, watch=regions.__setitem__)
    programs = compile_parts(network.parts(), precision="fp32", name="t", quantised=forms, folder=tmp_path)
    with torch.no_grad():
        pairs = zip(network.box_head(regions["regions"]), programs.box_head(regions["regions"]), strict=True)
    for ours, theirs in pairs:
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > ALIKE
    network.compiled = programs
    assert programs.quantised and len(network.detect(images)[0].boxes)


def test_the_form_is_there_in_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(roi=ROI, model={"with_masks": False})
    model = save_tiny(settings, tmp_path / "a.safetensors")
    target = save_tiny(settings, tmp_path / "b.safetensors", seed=1)
    assert copy_eight_bits(model, target) == []
    images = [torch.randn(1, 1, *SIZES[2])]
    with pytest.raises(MedMaskRCNNError, match="at least one image"):
        quantise(model, [])
    folder = quantise(model, images)
    written = copy_eight_bits(model, target)
    assert [file.name for file in written] == ["box_head.bin", "box_head.xml", "dense.bin", "dense.xml"]
    assert all(file.is_file() and file.parent.name.startswith("b-") for file in written)
    monkeypatch.setattr(quantising, "_quantised", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quantise(model, images)
    assert len(list(folder.iterdir())) == 4 and not list(tmp_path.glob(".*"))
