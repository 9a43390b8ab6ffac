"""The page of the trace: whole, self-contained, and right in what it says."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import medmaskrcnn
from medmaskrcnn.errors import UnsuitableScanError
from medmaskrcnn.explain.outline import outline_path
from medmaskrcnn.explain.pictures import data_uri, grey, heat
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import BackboneSettings, ModelCard, ModelFileSettings, ModelSettings, RoISettings, RPNSettings
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.volume import Volume

SECTIONS = [
    "input", "backbone", "pyramid", "rpn", "levels", "align", "classes", "refine", "removed", "masks", "pasted",
    "articles",
]  # fmt: skip
VOID = {"meta", "img", "br", "circle", "rect", "line", "path", "use", "image"}


class Checked(HTMLParser):
    """Tags closed in the order in which they were opened; all addresses and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [value for name, value in given.items() if name in {"href", "src"}]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize(("dims", "context"), [(2, 0), (2, 1), (3, 0)])
def test_page_is_whole_and_needs_nothing_else(tiny_model, blobs, tmp_path, dims, context):
    traced = medmaskrcnn.trace(blobs, tiny_model(dims, context=context))
    page = Checked(traced.save(tmp_path / "trace.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    for address in page.addresses:
        assert address.startswith("data:image/") or address[1:] in page.ids, address
    assert "<script" not in traced.html
    assert "tumour &lt;b&gt;" in traced.html and "tumour <b>" not in traced.html
    for line in traced.stages:
        assert line.shape in traced.html


@pytest.mark.parametrize("what", [{"score_thresh": 1.0}, {"with_masks": False}])
def test_pages_of_walks_that_end_early(tiny_model, blobs, what):
    traced = medmaskrcnn.trace(blobs, tiny_model(2, **what), slice_index=0)
    assert Checked(traced.html).open == []
    assert ("nothing with a score" in traced.html) == ("score_thresh" in what)
    assert ("no mask head" in traced.html) == ("with_masks" in what)


def test_unsuitable_scans_are_refused_or_stamped(tiny_model, blobs):
    model = tiny_model(2, domain="a program of drawings")
    with pytest.raises(UnsuitableScanError):
        medmaskrcnn.trace(blobs, model)
    assert 'role="alert"' in medmaskrcnn.trace(blobs, model, allow_out_of_domain=True).html


def test_networks_without_a_pyramid_are_refused(blobs):
    backbone = BackboneSettings(name="light", light_channels=(8, 8, 8, 8), pyramid="c4")
    settings = ModelSettings(class_names=("a",), backbone=backbone, roi=RoISettings(box_size=8))
    file = ModelFileSettings(card=ModelCard(name="c4"), model=settings)
    with pytest.raises(ValueError, match=r"feature pyramid.*'c4'"):
        medmaskrcnn.trace(blobs, LoadedModel(build_model(settings), file, "", torch.device("cpu")))


def articles_like_model() -> LoadedModel:
    """A network with the sizes of the articles' one behind a small backbone."""
    torch.manual_seed(0)
    backbone = BackboneSettings(name="light", light_channels=(8, 8, 8, 8))
    settings = ModelSettings(class_names=("a", "b", "c"), backbone=backbone, rpn=RPNSettings())
    network = build_model(settings).eval()
    return LoadedModel(network, ModelFileSettings(card=ModelCard(name="like"), model=settings), "", torch.device("cpu"))


@pytest.mark.slow
def test_shapes_that_articles_teach():
    picture = np.random.default_rng(0).random((1, 1, 800, 800)).astype(np.float32)
    traced = medmaskrcnn.trace(Volume(picture, pixel_grid((1, 800, 800))), articles_like_model())
    here = {difference.what: difference.here for difference in traced.differences}
    assert "200 x 200, 100 x 100, 50 x 50, 25 x 25, 13 x 13; 256 channels" in here["Feature map"]
    assert "P4, 50 x 50 x 256" in here["Feature map"]
    assert here["Anchors"].endswith(" = 159,882")
    assert here["Proposals"] == "1,000 (at most 1,000)"
    assert here["Region for class and box"] == "7 x 7 x 256, then two layers of 1,024"
    assert here["Region for the mask"] == "14 x 14 x 256"
    assert here["Mask"] == "28 x 28 for each of 3 classes"
    assert all(difference.why.endswith(".") for difference in traced.differences)


def test_outline_follows_the_voxels():
    mask = np.array([[True, True], [True, False]])
    path = outline_path(mask, top=10, left=20)
    horizontal = set(re.findall(r"M(\d+) (\d+)h(\d+)", path))
    vertical = set(re.findall(r"M(\d+) (\d+)v(\d+)", path))
    assert horizontal == {("20", "10", "2"), ("21", "11", "1"), ("20", "12", "1")}
    assert vertical == {("20", "10", "2"), ("21", "11", "1"), ("22", "10", "1")}
    assert outline_path(np.zeros((3, 3), bool), 0, 0) == ""


def test_pictures_keep_order_and_bounds():
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    assert grey(ramp, low=0, high=1).flatten().tolist() == sorted(grey(ramp, low=0, high=1).flatten().tolist())
    lightness = heat(ramp, low=0, high=1).astype(int) @ np.array([299, 587, 114])
    assert (np.diff(lightness.flatten()) >= 0).all()
    assert grey(np.full((4, 4), np.nan)).shape == (4, 4)
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    assert data_uri(noise).startswith("data:image/jpeg") and data_uri(noise[:9]).startswith("data:image/png")
