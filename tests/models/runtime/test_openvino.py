"""The network by OpenVINO: what its parts compute, where programs are kept, and what is refused."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny, tiny_settings

import medmaskrcnn
from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.dense_part import DensePart, unflatten
from medmaskrcnn.models.inference_backend import compile_parts
from medmaskrcnn.models.runtime.openvino_engine import OpenVINOProgram
from medmaskrcnn.settings import ModelFileSettings, ModelSettings
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

pytestmark = [pytest.mark.slow, pytest.mark.needs(extra="openvino")]

# What docs/fast.md promises: of maps, logits and deltas as a share of the largest value, of what is found as it is.
ERROR = {"fp32": 1e-4, "bf16": 0.03}
SCORE, BOX_VOX, MASK = 1e-4, 0.05, 1e-3

UPRIGHT = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
"""D up, H to the back, W to the left: nothing is turned."""


def settings_of(dims: int, norm: str = "group", name: str = "light") -> ModelFileSettings:
    widths = "light_channels" if name == "light" else "channels"
    return tiny_settings(
        dims,
        sizes=(6, 10, 16, 24, 32),
        model={"class_names": ("liver", "kidney")},
        backbone={"name": name, widths: (16, 16, 16, 16), "fpn_channels": 16, "norm": norm},
        rpn={"pre_nms_top_n": 60, "post_nms_top_n": 30},
        roi={"box_size": 4, "mask_size": 4, "box_hidden": 32, "mask_channels": 16, "canonical_size": 24.0},
        detection={"detections_per_img": 9, "mask_threshold": 0.0},
    )


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(settings_of(2), tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def scan() -> Volume:
    values = np.random.default_rng(0).normal(100, 30, (1, 3, 70, 90)).astype(np.float32)
    values[0, :, 20:50, 30:60] += 200
    return Volume(values, Grid((3, 70, 90), UPRIGHT))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "norm"), [("light", "group"), ("light", "frozen_batch"), ("resnet18", "group")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_dense_part_is_that_of_torch(dims: int, name: str, norm: str, precision: str) -> None:
    torch.manual_seed(0)
    network = build_model(settings_of(dims, norm, name).model).eval()
    part = DensePart(network.pyramid, network.rpn_head).eval()
    program = OpenVINOProgram(part, precision=precision, name="tiny")
    for shape in ((1, 1, 64, 96), (2, 1, 96, 64)) if dims == 2 else ((1, 1, 16, 64, 32), (1, 1, 8, 32, 64)):
        images = torch.randn(shape)
        with torch.no_grad():
            levels = network.pyramid(images)
            objectness, deltas = network.rpn_head(levels)
        for theirs, ours in zip(unflatten(program(images)), (levels, objectness, deltas), strict=True):
            for a, b in zip(theirs, ours, strict=True):
                assert a.shape == b.shape and a.dtype == torch.float32
                assert (a - b).abs().max() <= ERROR[precision] * max(b.abs().max(), 0.1)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_heads_are_those_of_torch_for_any_number_of_regions(dims: int, precision: str) -> None:
    torch.manual_seed(0)
    network = build_model(settings_of(dims).model).eval()
    programs = compile_parts(network.parts(), precision=precision, name="tiny")
    assert programs.mask_head is not None and programs.box_head.rows == 128 and programs.mask_head.rows == 20
    for rows in (0, 1, 17, 20, 28, 130, 170):
        regions = torch.randn(rows, 16, *(4,) * dims)
        with torch.no_grad():
            expected = (*network.box_head(regions), network.mask_head(regions))
        kept = programs.box_head(regions), programs.mask_head(regions)
        programs.box_head(torch.randn_like(regions)), programs.mask_head(torch.randn_like(regions))
        for ours, theirs in zip((*kept[0], kept[1]), expected, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == torch.float32
            if rows:
                assert (ours - theirs).abs().max() <= ERROR[precision] * theirs.abs().max()


@pytest.mark.parametrize(
    ("dims", "pyramid", "with_masks"), [(2, "fpn", True), (2, "fpn", False), (2, "c4", True), (3, "fpn", True)]
)
def test_in_fp32_the_network_finds_what_torch_finds(dims: int, pyramid: str, with_masks: bool) -> None:
    """Two images: 300 proposals are three passes of the box head, 50 objects are three of the mask head."""
    torch.manual_seed(0)
    network = build_model(many_found(dims, pyramid, with_masks)).eval()
    images = torch.randn((2, 1, 64, 96) if dims == 2 else (2, 1, 16, 64, 64))
    budgets = (150, 1, 0)
    expected = [network.detect(images, post_nms_top_n=most) for most in budgets]
    network.compiled = compile_parts(network.parts(), precision="fp32", name="tiny")
    for most, by_torch in zip(budgets, expected, strict=True):
        assert min(len(d.boxes) for d in by_torch) >= min(most, 25)
        for ours, theirs in zip(network.detect(images, post_nms_top_n=most), by_torch, strict=True):
            assert torch.equal(ours.labels, theirs.labels)
            torch.testing.assert_close(ours.scores, theirs.scores, atol=SCORE, rtol=0)
            torch.testing.assert_close(ours.boxes, theirs.boxes, atol=BOX_VOX, rtol=0)
            if with_masks:
                torch.testing.assert_close(ours.mask_probabilities, theirs.mask_probabilities, atol=MASK, rtol=0)
            else:
                assert ours.mask_probabilities is None and network.compiled.mask_head is None
    if with_masks:
        boxes, labels = [d.boxes for d in expected[0]], [d.labels for d in expected[0]]
        for (_, ours), theirs in zip(network.outline(images, boxes, labels), expected[0], strict=True):
            torch.testing.assert_close(ours, theirs.mask_probabilities, atol=MASK, rtol=0)


def many_found(dims: int, pyramid: str, with_masks: bool) -> ModelSettings:
    """Settings with which 25 objects are found in every image."""
    settings = settings_of(dims).model
    model = settings.model_copy(
        update={
            "with_masks": with_masks,
            "backbone": settings.backbone.model_copy(update={"pyramid": pyramid}),
            "rpn": settings.rpn.model_copy(update={"pre_nms_top_n": 400, "nms_iou": 0.9}),
            "detection": settings.detection.model_copy(update={"detections_per_img": 25}),
        }
    )
    if pyramid == "fpn":
        return model
    anchors = settings.anchors.model_copy(update={"sizes": settings.anchors.sizes[2:3]})
    return model.model_copy(update={"anchors": anchors})


def test_a_program_is_found_again_by_what_it_depends_on(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = build_model(settings_of(2).model).parts()["dense"]
    images = torch.randn(1, 1, 64, 64)
    first = OpenVINOProgram(part, precision="fp32", name="a")
    made = [m.clone() for m in first(images)]
    files = list(first.folder.iterdir())
    assert files == [first.file((1, 1, 64, 64))]
    monkeypatch.setattr(
        "medmaskrcnn.models.runtime.openvino_engine.converted", lambda *_: pytest.fail("it is made again")
    )
    again = OpenVINOProgram(part, precision="fp32", name="a")
    for a, b in zip(made, again(images), strict=True):
        assert torch.equal(a, b)
    others = [
        OpenVINOProgram(part, precision="fp32", name="b").file((1, 1, 64, 64)),
        OpenVINOProgram(part, precision="bf16", name="a").file((1, 1, 64, 64)),
        first.file((1, 1, 64, 96)),
    ]
    assert len({*files, *others}) == 4


def test_nobody_is_told_of_the_use(tmp_path: Path) -> None:
    """OpenVINO and NNCF report to Google Analytics by a package of their own, which must not be there for them."""
    model = save_tiny(settings_of(2), tmp_path / "tiny.safetensors")
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from medmaskrcnn import load_model\n"
        "from medmaskrcnn.compression.quantise import quantise\n"
        f"quantise(Path({str(model)!r}), [torch.randn(1, 1, 64, 64)])\n"
        f"loaded = load_model({str(model)!r}, device='cpu', engine='openvino', precision='int8')\n"
        "loaded.network.detect(torch.randn(1, 1, 64, 64))\n"
        "assert 'openvino' in sys.modules and 'nncf' in sys.modules\n"
        "assert not [n for n, m in sys.modules.items() if n.startswith('openvino_telemetry') and m is not None]\n"
    )
    paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(
    sys.platform != "linux", reason="alternative signal stacks are set on Linux; not Windows, not macOS"
)
def test_a_signal_is_handled_when_programs_are_gone() -> None:
    """OpenVINO gives each Core a stack for signals, and once put back one that was freed: Ctrl-C ended the process."""
    images = torch.randn(1, 1, 32, 32)
    programs = [
        OpenVINOProgram(build_model(settings_of(2).model).parts()["dense"], precision="fp32", name=name)
        for name in "ab"
    ]
    for program in programs:
        program(images)
    del program
    while programs:
        del programs[0]
        gc.collect()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
        signal.raise_signal(signal.SIGUSR1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_damaged_program_is_made_again() -> None:
    part = build_model(settings_of(2).model).parts()["dense"]
    images = torch.randn(1, 1, 32, 32)
    program = OpenVINOProgram(part, precision="fp32", name="a")
    made = [m.clone() for m in program(images)]
    program.file((1, 1, 32, 32)).write_bytes(b"not a program")
    for a, b in zip(made, OpenVINOProgram(part, precision="fp32", name="a")(images), strict=True):
        assert torch.equal(a, b)


def test_segmenting_with_openvino_finds_the_same(model_path: Path) -> None:
    loaded = {
        e: medmaskrcnn.load_model(model_path, device="cpu", precision="fp32", engine=e) for e in ("torch", "openvino")
    }
    found = {e: medmaskrcnn.segment(scan(), model) for e, model in loaded.items()}
    ours, theirs = found["torch"].candidates, found["openvino"].candidates
    assert len(ours) > 3 and np.array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.05)
    assert found["openvino"].record.settings["engine"].startswith("openvino 2")
    assert "engine" not in found["torch"].record.settings
    assert found["torch"].run["engine"].startswith("torch ")


def test_what_cannot_run_is_refused(model_path: Path) -> None:
    with pytest.raises(ValueError, match="torch, openvino, torch-compile, got 'tensorrt'"):
        medmaskrcnn.load_model(model_path, engine="tensorrt")
    with pytest.raises(ModelFileError, match="no 8-bit form beside it"):
        medmaskrcnn.load_model(model_path, device="cpu", engine="openvino", precision="int8")
    with pytest.raises(ValueError, match="int8 needs engine openvino"):
        medmaskrcnn.load_model(model_path, device="cpu", precision="int8")


def test_without_the_extra_the_message_names_it(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmaskrcnn.models.runtime.choice.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "medmaskrcnn\[openvino\]"'):
        medmaskrcnn.load_model(model_path, engine="openvino")


def test_in_bf16_the_program_is_made_of_the_weights_as_they_are(model_path: Path) -> None:
    """It is asked for within autocast, which must not reach into the conversion."""
    loaded = medmaskrcnn.load_model(model_path, device="cpu", precision="bf16", engine="openvino")
    found = medmaskrcnn.segment(scan(), loaded)
    assert found.record.precision == "bf16" and found.record.settings["engine"].startswith("openvino 2")
    exact = medmaskrcnn.segment(scan(), medmaskrcnn.load_model(model_path, device="cpu", precision="fp32"))
    assert len(found.candidates) > 3
    np.testing.assert_allclose(found.candidates.scores[:3], exact.candidates.scores[:3], atol=0.05)
