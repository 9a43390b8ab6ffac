"""A model's file: comes back bit for bit, and whatever is not whole is refused with the file's name."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from medmaskrcnn.errors import ModelFileError, OutputError
from medmaskrcnn.hub.model_file import (
    model_sha256,
    read_model,
    read_model_settings,
    resolve_model,
    save_model,
    shipped_models,
)
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import BackboneSettings, ModelFileSettings

FileSettings = Callable[..., ModelFileSettings]
FROZEN = BackboneSettings(name="light", light_channels=(8, 8, 16, 16), norm="frozen_batch", fpn_channels=8)


@pytest.fixture
def saved(tiny_file: FileSettings, tmp_path: Path) -> Path:
    settings = tiny_file(2)
    save_model(build_model(settings.model), settings, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def with_settings(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A whole file (without a checksum) whose settings say something else."""
    header, body = header_of(data)
    settings = json.loads(header["__metadata__"]["medmaskrcnn"])
    change(settings)
    header["__metadata__"] = {"medmaskrcnn": json.dumps(settings)}
    return with_header(header, body)


def refused(path: Path, message: str | None = None) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dims", [2, 3])
def test_round_trip(tiny_file: FileSettings, tmp_path: Path, dims: int) -> None:
    settings, path = tiny_file(dims), tmp_path / "m.safetensors"
    network = build_model(settings.model)
    save_model(network, settings, path)
    state = torch.random.get_rng_state()
    again, read = read_model(path)
    assert torch.equal(torch.random.get_rng_state(), state), "reading must not draw from the caller's generator"
    assert read == settings == read_model_settings(path)
    assert not again.training
    for name, value in network.state_dict().items():
        assert again.state_dict()[name].dtype == torch.float32
        assert torch.equal(again.state_dict()[name], value.half().float()), name
    save_model(again, read, tmp_path / "n.safetensors")
    assert model_sha256(path) == model_sha256(tmp_path / "n.safetensors"), "the same model must be the same bytes"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "n.safetensors"]


def test_frozen_constants_are_not_rounded(tiny_file: FileSettings, tmp_path: Path) -> None:
    settings = tiny_file(2, backbone=FROZEN)
    network = build_model(settings.model)
    network.pyramid.backbone.resnet.bn1.running_var.fill_(1e-12)  # 0 in fp16: the network would divide by it
    save_model(network, settings, tmp_path / "m.safetensors")
    again, _ = read_model(tmp_path / "m.safetensors")
    for name, value in network.named_buffers():
        assert torch.equal(dict(again.named_buffers())[name], value), name


def test_files_are_as_readable_as_others(saved: Path) -> None:
    (saved.parent / "other").write_bytes(b"")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE((saved.parent / "other").stat().st_mode)


def test_files_without_a_checksum_are_read(saved: Path) -> None:
    saved.write_bytes(with_settings(saved.read_bytes(), lambda settings: None))
    read_model(saved)


def test_settings_are_read_without_torch(saved: Path) -> None:
    code = (
        "import sys; from medmaskrcnn.hub.model_file import read_model_settings, shipped_models; shipped_models();"
        f"print(read_model_settings({str(saved)!r}).card.name, 'torch' in sys.modules, 'monai' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert out.stdout.split() == ["tiny", "False", "False"]


def test_names_and_paths(saved: Path) -> None:
    assert resolve_model(saved) == saved
    for name, path in shipped_models().items():
        assert resolve_model(name) == path and path.stem == name
    with pytest.raises(ModelFileError, match="unknown model 'no-such-model': no such file, and the shipped models are"):
        resolve_model("no-such-model")
    with pytest.raises(ModelFileError, match="unknown model"):
        resolve_model(saved.parent)
    refused(saved.parent / "absent.safetensors", "cannot read model .*No such file")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 2000, -1000, -1])
def test_truncated(saved: Path, keep: int) -> None:
    data = saved.read_bytes()
    assert len(data) > 4000
    saved.write_bytes(data[:keep])
    refused(saved)


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    header, body = header_of(data)
    start = len(data) - len(body)
    names = data.index(b"medmaskrcnn_sha256"), data.index(b"medmaskrcnn_sha256") + len("medmaskrcnn_sha256")
    places = [*range(0, start, start // 60), *range(start, len(data), len(body) // 20), len(data) - 1]
    for place in places:
        if names[0] <= place < names[1]:
            continue  # without its name the checksum is not looked at; all else is whole
        for bit in (0x01, 0x10):
            saved.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            refused(saved)
    assert len(header) > 10


@pytest.mark.parametrize(
    "data",
    [b"a model? no, a letter\n" * 50, os.urandom(5000), struct.pack("<Q", 2**63) + b"{}", b"\x02" + bytes(7) + b"[]",
     b"\x02" + bytes(7) + b"\xff\xff", struct.pack("<Q", 200_000) + b"[" * 200_000],
    ids=["text", "random", "huge header", "list", "no text", "nested"],
)  # fmt: skip
def test_other_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(data)
    refused(path, "not a readable model file")
    with pytest.raises(ModelFileError, match=re.escape(path.name)):
        read_model_settings(path)


def test_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"a": torch.zeros(3)}, path, metadata=metadata)
        refused(path, "not a medmaskrcnn model")
    path.write_bytes(with_header({"__metadata__": {"medmaskrcnn": 5}}, b""))
    refused(path, "not a medmaskrcnn model")


def test_settings_that_do_not_fit(saved: Path) -> None:
    data = saved.read_bytes()
    for change, message in (
        (lambda s: s.update(format_version=3), "newer medmaskrcnn; upgrade"),
        (lambda s: s.update(format_version=3, new_part={}), "newer medmaskrcnn; upgrade"),
        (lambda s: s["model"].update(dropout=0.5), "do not fit this version.*model.dropout: Extra inputs"),
        (lambda s: s["model"]["roi"].update(box_size=0), "do not fit this version.*model.roi.box_size"),
        (lambda s: s.pop("card"), "do not fit this version.*card"),
        (lambda s: s["model"]["roi"].update(box_hidden=32), "do not fit its settings.*box_head"),
        (lambda s: s["model"]["roi"].update(box_hidden=10**12), "do not fit its settings"),
    ):
        saved.write_bytes(with_settings(data, change))
        refused(saved, message)


def test_weights_that_do_not_fit(tiny_file: FileSettings, tmp_path: Path) -> None:
    settings, path = tiny_file(2), tmp_path / "m.safetensors"
    good = build_model(settings.model).state_dict()
    name = "box_head.classes.bias"
    for weights, message in (
        ({k: v for k, v in good.items() if k != name}, f"do not fit its settings.*{name}"),
        ({**good, "surplus": torch.zeros(2)}, "do not fit its settings.*surplus"),
        ({**good, name: torch.zeros(9)}, f"do not fit its settings.*{name}"),
        ({**good, name: torch.full_like(good[name], float("nan"))}, "not finite"),
        ({**good, name: torch.full_like(good[name], float("inf"))}, "not finite"),
    ):
        save_file(weights, path, metadata={"medmaskrcnn": settings.model_dump_json()})
        refused(path, message)


def test_what_could_not_be_read_is_not_written(tiny_file: FileSettings, tmp_path: Path) -> None:
    settings, path = tiny_file(2), tmp_path / "m.safetensors"
    network = build_model(settings.model)
    with pytest.raises(ValueError, match="differs from the settings"):
        save_model(network, tiny_file(2, with_masks=False), path)
    with pytest.raises(ValueError, match=r"training\.loss"):
        save_model(network, settings.model_copy(update={"training": {"loss": float("nan")}}), path)
    with torch.no_grad():
        network.box_head.fc1.bias[0] = 1e6  # beyond fp16
    with pytest.raises(ValueError, match=r"box_head\.fc1\.bias cannot be saved"):
        save_model(network, settings, path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tiny_file: FileSettings, tmp_path: Path) -> None:
    settings = tiny_file(2)
    network = build_model(settings.model)
    with pytest.raises(OutputError, match=r"cannot write .*No such file"):
        save_model(network, settings, tmp_path / "absent" / "m.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder"):
        save_model(network, settings, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
