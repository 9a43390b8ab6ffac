"""The whole walk with tiny random models: whatever they find, it is found once, in the scan's voxels, every time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medmaskrcnn.errors import ModelFileError, ReadError
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.detect import detect_in_tiles
from medmaskrcnn.inference.detection import paste_detections, to_instances
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.case_result import CaseResult, Review
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Removal
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import load_case, save_case
from medmaskrcnn.structures.volume import Volume

SHAPE = (10, 40, 36)
Make = Callable[..., LoadedModel]
Blobs = Callable[..., Volume]
TILES = {"tile": (8, 24, 24), "tile_overlap": 0.4}


def model_of_kind(tiny_model: Make, kind: str) -> LoadedModel:
    return {
        "2D": lambda: tiny_model(2, detections_per_img=3),
        "2.5D": lambda: tiny_model(2, context=1, detections_per_img=3),
        "3D, one tile": lambda: tiny_model(3),
        "3D, tiles": lambda: tiny_model(3, inference=TILES),
    }[kind]()


KINDS = ["2D", "2.5D", "3D, one tile", "3D, tiles"]


@pytest.mark.parametrize("kind", KINDS)
def test_result_lies_in_the_scans_own_grid(tiny_model: Make, make_blobs: Blobs, kind: str) -> None:
    volume = make_blobs(SHAPE)
    result = segment(volume, model_of_kind(tiny_model, kind))
    found = result.candidates
    assert found.grid == volume.grid and len(found) == len(result.measurements) > 0
    assert found.class_names == ("liver", "tumour")
    assert (np.diff(found.scores) <= 0).all() and (found.scores > 0.01).all()
    assert (found.boxes[:, 3:] > found.boxes[:, :3]).all()
    assert (found.boxes[:, :3] >= 0).all() and (found.boxes[:, 3:] <= np.array(SHAPE) + 1e-3).all()
    for i in range(len(found)):
        if not found.masks[i].is_empty:
            assert (np.array(found.masks[i].start) >= np.floor(found.boxes[i, :3] - 1e-3)).all()
            assert (np.array(found.masks[i].end) <= np.ceil(found.boxes[i, 3:] + 1e-3)).all()
    assert result.record.model_name == "tiny" and result.record.device == "cpu"


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_work_twice_is_the_same_bytes(tiny_model: Make, make_blobs: Blobs, kind: str, tmp_path: Path) -> None:
    model = model_of_kind(tiny_model, kind)
    for name in ("one", "two"):
        save_case(segment(make_blobs(SHAPE), model), tmp_path / f"{name}.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_resampled_walk_comes_back_to_the_voxels(tiny_model: Make, make_blobs: Blobs) -> None:
    model = tiny_model(3, preprocess={"spacing_mm": (2.0, 2.0, 2.0)}, inference={"tile": (16, 16, 16)})
    volume = make_blobs(SHAPE)
    assert prepare(volume, model.settings.preprocess).tensor.shape == (1, 15, 24, 16)
    found = segment(volume, model).candidates
    assert len(found) and (found.boxes[:, 3:] <= np.array(SHAPE) + 1e-3).all()
    assert found.boxes[:, 4].max() > 24  # rows of the scan, not of the network's grid


def test_tiles_are_where_their_windows_are(make_blobs: Blobs, tiny_model: Make) -> None:
    """One tile's detections, shifted and scaled by hand, are what the walk reports for it."""
    tiles = {"tile": (8, 96, 96), "tile_overlap": 0}
    model = tiny_model(3, preprocess={"spacing_mm": (3.0, 0.6, 1.8)}, inference=tiles)
    prepared = prepare(make_blobs((16, 24, 20)), model.settings.preprocess)
    assert prepared.tensor.shape[1:] == (16, 48, 10) and prepared.scale == (1, 0.5, 2)
    found = [item for item, _ in detect_in_tiles(model, prepared)]
    second = torch.nn.functional.pad(prepared.tensor[None, :, 8:16], (0, 22, 0, 16, 0, 8))
    boxes = model.network.detect(second, [(8, 48, 10)])[0].boxes
    expected = (boxes + torch.tensor([8, 0, 0, 8, 0, 0])) * torch.tensor([1, 0.5, 2, 1, 0.5, 2])
    ours = torch.stack([torch.from_numpy(f.box) for f in found])
    assert len(expected) >= 3
    for box in expected:
        assert (ours - box).abs().amax(dim=1).min() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_progress_rises_and_ends(tiny_model: Make, make_blobs: Blobs, kind: str) -> None:
    calls: list[tuple[str, float]] = []
    segment(make_blobs(SHAPE), model_of_kind(tiny_model, kind), progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _ in calls))
    assert stages == ["read", "prepare", "find", "measure"]
    assert calls == sorted(calls, key=lambda call: (stages.index(call[0]), call[1]))
    for stage in stages:
        shares = [share for name, share in calls if name == stage]
        assert shares[0] == 0 and shares[-1] == 1
    assert calls[-1] == ("measure", 1.0)
    if kind != "3D, one tile":
        assert len(calls) > 8  # the long stage tells how far it is


def test_classes_and_score(tiny_model: Make, make_blobs: Blobs) -> None:
    model = tiny_model(3, detections_per_img=30)
    everything = segment(make_blobs(SHAPE), model)
    assert set(everything.candidates.labels) == {0, 1}
    tumours = segment(make_blobs(SHAPE), model, classes=["tumour"])
    assert set(tumours.candidates.labels) == {1}
    kept = np.flatnonzero(everything.candidates.labels == 1)
    np.testing.assert_array_equal(tumours.candidates.scores, everything.candidates.scores[kept])
    assert tumours.record.settings["classes"] == ["tumour"]

    middle = float(np.median(everything.candidates.scores))
    strict = segment(make_blobs(SHAPE), model, score=middle)
    assert len(strict.candidates) == len(everything.candidates)
    assert 0 < len(strict.instances) < len(everything.instances)
    assert (strict.instances.scores >= np.float32(middle)).all()
    assert strict.record.settings["score"] == middle


@pytest.mark.parametrize("classes", [None, ["liver"]])
def test_a_single_class_keeps_its_best(tiny_model: Make, make_blobs: Blobs, classes: list[str] | None) -> None:
    every = segment(make_blobs(SHAPE), tiny_model(3, detections_per_img=30)).candidates
    model = tiny_model(3, detections_per_img=30, inference={"one_per_scan_classes": ("liver",)})
    candidates = segment(make_blobs(SHAPE), model, classes=classes).candidates
    assert len(candidates) == (len(every) if classes is None else (every.labels == 0).sum())
    single = candidates.without_removed()
    single = single.select([i for i, mask in enumerate(single.masks) if not mask.is_empty])
    livers = every.scores[[i for i in range(len(every)) if every.labels[i] == 0 and not every.masks[i].is_empty]]
    assert len(livers) > 1
    assert single.scores[single.labels == 0].tolist() == [livers.max()]
    tumours = [mask for label, mask in zip(every.labels, every.masks, strict=True) if label and not mask.is_empty]
    assert (single.labels == 1).sum() == (0 if classes else len(tumours))


def test_wrong_arguments(tiny_model: Make, make_blobs: Blobs, tmp_path: Path) -> None:
    model = tiny_model(3)
    with pytest.raises(ValueError, match="no class spleen; its classes are: liver, tumour"):
        segment(make_blobs(SHAPE), model, classes=["spleen", "liver"])
    for score in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"score must lie in 0\.\.1"):
            segment(make_blobs(SHAPE), model, score=score)
    with pytest.raises(ModelFileError, match="unknown model 'nobody'"):
        segment(make_blobs(SHAPE), "nobody")
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda' or 'mps', got 'tpu'"):
        segment(make_blobs(SHAPE), __file__, device="tpu")
    with pytest.raises(ReadError):
        segment(tmp_path / "missing.nii.gz", model)


def test_a_blank_scan_gives_an_empty_result(tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model(3)
    unsure = model.settings.model.detection.model_copy(update={"score_thresh": 1.0})
    network = model.network
    settings = network.settings
    try:
        network.settings = settings.model_copy(update={"detection": unsure})
        volume = Volume(np.zeros((1, 6, 20, 20), np.int16), Grid((6, 20, 20), np.diag([3.0, 1, 1, 1])))
        result = segment(volume, model)
    finally:
        network.settings = settings
    assert len(result.candidates) == 0 and result.measurements == ()
    save_case(result, tmp_path / "empty.npz")


@pytest.mark.parametrize("dims", [2, 3])
def test_what_better_ones_cover_is_dropped(tiny_model: Make, make_blobs: Blobs, dims: int) -> None:
    """In slices before they are linked: a chain that a covered object takes part in would go astray."""

    def most_shared(**inference: float) -> int:
        model = tiny_model(dims, detections_per_img=8, inference={"link_gap": 0, **inference})
        found = segment(make_blobs(SHAPE), model).candidates.without_removed()
        times = np.zeros((2, *SHAPE), np.int64)
        for label, mask in zip(found.labels, found.masks, strict=True):
            times[label][mask.window] += mask.array
        return int(times.max())

    assert most_shared() > 1
    assert most_shared(max_containment=0.0) == 1, "no voxel may be held twice by one class"


@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_removed_stays_among_the_candidates(
    tiny_model: Make, make_blobs: Blobs, dims: int, tmp_path: Path
) -> None:
    """Its voxels are those that a run without suppression finds; no threshold takes it in, a person does."""
    rules = {"max_containment": 0.3, "one_per_scan_classes": ("liver",), "link_gap": 0}
    every, result = (
        segment(make_blobs(SHAPE), tiny_model(dims, detections_per_img=8, inference=one), score=0.0)
        for one in ({"link_gap": 0}, rules)
    )
    found = result.candidates
    assert {*found.removed.tolist()} == {*Removal}
    for label in range(2):  # linked in another way, but nothing is lost
        voxels = [Mask.empty().union(*(one.masks[i] for i in np.flatnonzero(one.labels == label)))
                  for one in (every.candidates, found)]  # fmt: skip
        assert voxels[0].tight() == voxels[1].tight()
    assert (found.removed[result.kept] == Removal.NONE).all() and len(result.instances) < len(found)
    gone = int(np.flatnonzero(found.removed == Removal.CONTAINED)[0])
    assert gone in replace(result, review=Review(accepted=(gone,))).kept
    save_case(result, tmp_path / "all.npz")
    again = load_case(tmp_path / "all.npz")
    assert again.candidates.removed.tolist() == found.removed.tolist() and again.kept == result.kept


def test_one_slice_with_a_slice_wise_model(tiny_model: Make, make_blobs: Blobs) -> None:
    for context in (0, 1):
        found = segment(make_blobs((1, 40, 36)), tiny_model(2, context=context, detections_per_img=3)).candidates
        assert 0 < len(found) <= 3
        assert found.boxes[:, 0].tolist() == [0] * len(found) and found.boxes[:, 3].tolist() == [1] * len(found)


def test_batches_of_slices_change_nothing(tiny_model: Make, make_blobs: Blobs) -> None:
    def found(slices: int) -> CaseResult:
        model = tiny_model(2, context=1, detections_per_img=3, inference={"slices_per_batch": slices})
        return segment(make_blobs(SHAPE), model)

    one, many = found(1).candidates, found(7).candidates
    assert len(one) == len(many)
    np.testing.assert_allclose(one.scores, many.scores, atol=1e-5)  # batched sums are ordered otherwise


def test_batches_of_tiles_change_nothing(tiny_model: Make, make_blobs: Blobs) -> None:
    def found(tiles: int) -> CaseResult:
        model = tiny_model(3, detections_per_img=3, inference={"tiles_per_batch": tiles, "tile": (16, 32, 32)})
        return segment(make_blobs((20, 70, 40)), model)

    one, many = found(1).candidates, found(5).candidates
    assert len(one) == len(many) > 3  # more than one tile can hold
    np.testing.assert_allclose(one.scores, many.scores, atol=1e-5)
    for a, b in zip(one.masks, many.masks, strict=True):
        assert a.start == b.start and a.array.shape == b.array.shape and np.mean(a.array != b.array) < 0.01


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_many_candidates_take_the_memory_of_their_boxes() -> None:
    """120 objects in a scan of 8 million voxels: dense masks would take 1 GB."""
    shape, n = (128, 256, 256), 120
    generator = torch.Generator().manual_seed(0)
    low = torch.rand((n, 3), generator=generator) * (torch.tensor(shape) - 24)
    boxes = torch.cat([low, low + 8 + 16 * torch.rand((n, 3), generator=generator)], dim=1)
    cells = torch.rand((n, 8, 8, 8), generator=generator)
    with Largest():
        torch.rand(1)  # the first dispatch mode of a process imports much, which is not to be counted
    tracemalloc.start()
    try:
        with Largest() as largest:
            scores = torch.rand(n, generator=generator)
            found = paste_detections(boxes, torch.zeros(n), scores, cells, shape=shape, threshold=0.5)
        to_instances(
            found,
            grid=Grid((256, 128, 256), np.diag([1.0, 1, 1, 1])),
            class_names=("a",),
            turned_shape=shape,
            axes=AxisMap((1, 0, 2), (True, False, True)),
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    boxes_hold = sum(prod(f.mask.array.shape) for f in found)
    assert len(found) == n and largest.elements < 26**3 * 8
    assert peak < 4 * boxes_hold + 4_000_000 < prod(shape) * 4  # bytes


def test_the_record_names_what_was_done_and_no_path(tiny_model: Make, make_blobs: Blobs) -> None:
    volume = make_blobs(SHAPE, modality="CT")
    volume = replace(volume, provenance=replace(volume.provenance, files=("/home/someone/Smith^John/1.dcm",)))
    model = tiny_model(3)
    result = segment(volume, model)
    assert result.record.model_sha256 == model.sha256 and result.record.model_licence == "CC0-1.0"
    assert result.record.source["modality"] == "CT"
    assert "Smith" not in str(result.record) and "Smith" in str(result.run)
    assert set(result.run["seconds"]) == {"load model", "read", "prepare", "find", "measure"}
