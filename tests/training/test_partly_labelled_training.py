"""Training on cases in which not every class was annotated, and with regions to ignore."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.evaluation.evaluate import evaluate
from medmaskrcnn.hub.model_file import read_model
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    ModelCard,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
    RPNSettings,
)
from medmaskrcnn.training.plan import AugmentSettings, LoopSettings, Plan
from medmaskrcnn.training.run import check_objectness, train

SIDE = 64
NAMES = ("liver", "tumour", "spleen")


def make_plan(objectness: str = "per_class", names: tuple[str, ...] = NAMES) -> Plan:
    model = ModelSettings(
        class_names=names,
        backbone=BackboneSettings(name="light", light_channels=(8, 8, 8, 8), fpn_channels=8),
        anchors=AnchorSettings(sizes=((8, 8), (16, 16), (24, 24), (32, 32), (48, 48))),
        rpn=RPNSettings(pre_nms_top_n=50, post_nms_top_n=20, batch_per_image=32, objectness=objectness),
        roi=RoISettings(box_size=3, mask_size=4, box_hidden=16, mask_channels=8, mask_convs=1, batch_per_image=16),
    )
    return Plan(
        card=ModelCard(name="tiny"),
        model=model,
        preprocess=PreprocessSettings(orientation="as_stored", value_range=(0, 255)),
        augment=AugmentSettings(patch=(1, SIDE, SIDE), flip=("H",), rotate_degrees=10),
        train=LoopSettings(steps=4, batch=2, precision="fp32", validate_every=4),
    )


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """Six pictures that all show a liver, a tumour and a spleen; two sets, with the liver or the others labelled."""
    random, cases = np.random.default_rng(0), []
    for number in range(6):
        picture = random.normal(90, 8, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)
        label = np.zeros(picture.shape, np.uint8)
        label[4:28, 4:30], label[34:46, 10:24], label[34:50, 36:52], label[:, 56:] = 1, 2, 3, 255
        picture[(label > 0) & (label < 9)] += 60
        known = ("liver",) if number % 2 else ("tumour", "spleen")
        values = {1: "liver", 2: "tumour", 3: "spleen"}
        label[np.isin(label, [v for v, name in values.items() if name not in known])] = 0
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        Image.fromarray(label).save(tmp_path / f"{number}_label.png")
        named = [{"value": value, "class": name} for value, name in values.items() if name in known]
        cases.append(
            {
                "id": f"case {number}",
                "patient": f"p{number}",
                "image": f"{number}.png",
                "label": f"{number}_label.png",
                "split": "train" if number < 4 else "val",
                "annotated": known,
                "instances": [*named, {"value": 255, "ignore": True}],
            }
        )
    manifest = {"version": 1, "name": "joined", "class_names": NAMES, "cases": cases}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "manifest.json"


def test_two_sets_with_different_classes_train_one_model(joined: Path, tmp_path: Path) -> None:
    record = train(joined, make_plan(), tmp_path / "run", workers=0)
    network, settings = read_model(record.model)
    assert network.rpn_head.logits == 3 and settings.model.rpn.objectness == "per_class"
    found = evaluate(str(record.model), joined, split="val", score=0.0)
    assert [found.classes[name].references for name in NAMES] == [1, 1, 1]  # of two cases, one for each set
    assert [found.classes[name].empty_cases for name in NAMES] == [0, 0, 0]


def test_one_objectness_needs_a_case_with_every_class(joined: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="none of 4 cases is annotated for all of 3 classes") as raised:
        train(joined, make_plan("shared"), tmp_path / "run", workers=0)
    assert raised.value.option == "model.rpn.objectness" and not (tmp_path / "run").exists()
    manifest = read_manifest(joined)
    first = manifest.cases[0]
    complete = Manifest(
        name="x", class_names=NAMES, cases=(*manifest.cases[1:], first.model_copy(update={"annotated": None}))
    )
    check_objectness(make_plan("shared"), complete, complete.cases)
    check_objectness(make_plan("shared", ("liver",)), manifest, manifest.cases)  # complete for this model's class


def test_what_nobody_labelled_does_not_matter(joined: Path, tmp_path: Path) -> None:
    """A model of livers alone learns the same, bit for bit, whether or not other classes were annotated."""
    plan = make_plan("shared", ("liver",))
    runs = []
    for name, annotated in (("as it is", ["liver"]), ("all", None)):
        manifest = json.loads(joined.read_text())
        manifest["cases"] = [{**c, "annotated": annotated} for c in manifest["cases"] if c["annotated"] == ["liver"]]
        path = joined.with_name(f"{name}.json")
        path.write_text(json.dumps(manifest))
        runs.append(load_file(str(train(path, plan, tmp_path / name, workers=0).folder / "last.safetensors")))
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())
