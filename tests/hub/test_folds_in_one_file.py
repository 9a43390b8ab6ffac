"""A model file of several folds: written, read, run, and refused where one network is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import medmaskrcnn
from medmaskrcnn.errors import InvalidOptionError, ModelFileError
from medmaskrcnn.hub.loaded_model import load_model
from medmaskrcnn.hub.model_file import read_members, read_model, save_members, save_model
from medmaskrcnn.models.averaged import AveragedRCNN
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.runtime.profile import Profile
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.training.transfer.apply import transfer

Tiny = Callable[..., ModelFileSettings]

PICTURE = Volume(np.random.default_rng(0).integers(0, 255, (1, 1, 64, 64)).astype(np.uint8), pixel_grid((1, 64, 64)))


@pytest.fixture
def three(tiny_file: Tiny, tmp_path: Path) -> tuple[Path, list[MaskRCNN]]:
    settings = tiny_file(2).model_copy(update={"members": 3})
    networks = [build_model(settings.model) for _ in range(3)]
    save_members(networks, settings, tmp_path / "folds.safetensors")
    return tmp_path / "folds.safetensors", networks


def test_all_folds_come_back(three: tuple[Path, list[MaskRCNN]]) -> None:
    path, networks = three
    read, settings = read_members(path)
    assert settings.members == len(read) == 3
    for own, there in zip(networks, read, strict=True):
        for name, value in own.state_dict().items():
            torch.testing.assert_close(there.state_dict()[name], value.half().float())
    with pytest.raises(ModelFileError, match="3 folds"):
        read_model(path)


def test_a_file_of_one_network_is_as_before(tiny_file: Tiny, tmp_path: Path) -> None:
    settings = tiny_file(2)
    network = build_model(settings.model)
    save_model(network, settings, tmp_path / "one.safetensors")
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert set(file.keys()) == set(network.state_dict())
    assert isinstance(load_model(tmp_path / "one.safetensors", device="cpu").network, MaskRCNN)
    with pytest.raises(ValueError, match="members"):
        save_members([network, network], settings, tmp_path / "two.safetensors")


def test_folds_are_run_as_one(three: tuple[Path, list[MaskRCNN]]) -> None:
    loaded = load_model(three[0], device="cpu", precision="fp32")
    assert isinstance(loaded.network, AveragedRCNN) and loaded.views == (3, 1)
    result = medmaskrcnn.segment(PICTURE, loaded, score=0.0)
    assert result.record.settings["networks"] == 3 and result.record.settings["views"] == 1
    mirrored = medmaskrcnn.segment(PICTURE, load_model(three[0], device="cpu", flips=("H", "W")), score=0.0)
    assert mirrored.record.settings["views"] == 4
    with pytest.raises(ModelFileError, match="give the model of a fold"):
        _ = loaded.only_network


@pytest.mark.parametrize(
    "engine", ["torch-compile", pytest.param("openvino", marks=pytest.mark.needs(extra="openvino"))]
)
def test_folds_run_in_other_engines(
    three: tuple[Path, list[MaskRCNN]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # all but TorchInductor
    images = torch.rand((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    plain = load_model(three[0], device="cpu", precision="fp32", flips=("W",))
    fast = load_model(three[0], device="cpu", precision="fp32", flips=("W",), engine=engine)
    assert engine.split("-")[0] in fast.engine and fast.precision == "fp32"
    (expected,), (found,) = plain.network.detect(images), fast.network.detect(images)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-1)


@pytest.mark.needs(extra="openvino")
def test_eight_bits_are_for_one_network(three: tuple[Path, list[MaskRCNN]]) -> None:
    with pytest.raises(InvalidOptionError, match="3 folds") as caught:
        load_model(three[0], device="cpu", engine="openvino", precision="int8")
    assert caught.value.option == "precision"


def test_folds_are_profiled(three: tuple[Path, list[MaskRCNN]]) -> None:
    model = load_model(three[0], device="cpu", precision="fp32")
    profile = Profile(model.device)
    with profile.listening(*model.networks):
        medmaskrcnn.segment(PICTURE, replace(model, watch=profile.watch), progress=profile.progress)
        profile.end()
    assert {"backbone", "FPN", "RPN", "proposals", "RoIAlign", "box head", "mask head"} <= set(profile.seconds)


def test_sides_are_not_mirrored(tiny_file: Tiny, tmp_path: Path) -> None:
    settings = tiny_file(2, class_names=("left kidney", "right kidney"))
    save_model(build_model(settings.model), settings, tmp_path / "sides.safetensors")
    with pytest.raises(InvalidOptionError, match="left kidney") as caught:
        load_model(tmp_path / "sides.safetensors", device="cpu", flips=("H", "W"))
    assert caught.value.option == "flips"
    assert load_model(tmp_path / "sides.safetensors", device="cpu", flips=("H",)).views == (1, 2)
    with pytest.raises(InvalidOptionError, match="no axis D"):
        load_model(tmp_path / "sides.safetensors", device="cpu", flips=("D",))


def test_a_models_own_flips_and_none_of_them(tiny_file: Tiny, tmp_path: Path) -> None:
    settings = tiny_file(2)
    own = settings.model_copy(update={"inference": settings.inference.model_copy(update={"flips": ("W",)})})
    save_model(build_model(own.model), own, tmp_path / "own.safetensors")
    assert load_model(tmp_path / "own.safetensors", device="cpu").views == (1, 2)
    assert load_model(tmp_path / "own.safetensors", device="cpu", flips=()).views == (1, 1)


def test_weights_begin_with_those_of_the_first_fold(three: tuple[Path, list[MaskRCNN]]) -> None:
    path, networks = three
    target = build_model(networks[0].settings)
    transfer(target, path)
    name = "box_head.classes.weight"
    torch.testing.assert_close(target.state_dict()[name], networks[0].state_dict()[name].half().float())


def test_a_file_that_lacks_a_fold_is_damaged(three: tuple[Path, list[MaskRCNN]], tmp_path: Path) -> None:
    path, networks = three
    settings = read_members(path)[1]
    save_model(networks[0], settings.model_copy(update={"members": 1}), tmp_path / "one.safetensors")
    text = (tmp_path / "one.safetensors").read_bytes().replace(b'\\"members\\":1', b'\\"members\\":2')
    (tmp_path / "lying.safetensors").write_bytes(text)
    with pytest.raises(ModelFileError):
        read_members(tmp_path / "lying.safetensors")
